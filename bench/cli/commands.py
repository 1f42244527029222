"""Parts that commands share: selection, progress, and the one way to show and write results."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

import impls
from bench.cells import Selection, name_step, parse_entrants
from bench.options import MOST_COUNT, Options, parse_names
from common.config import check_size
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.engine.journal import Journal
    from bench.engine.session import Measurement
    from bench.engine.task import Task
    from bench.report.table import Document
    from bench.runfile import ResultsWithSamples

SAFE_TEXT = "what was measured is safe: go on with the same command and --resume"
WIDTH = 100
"""Characters of a line in a text file."""
FORMATS = ("text", "md", "json", "html")
ENDINGS = {"text": ("txt", "text"), "md": ("md", "markdown"), "html": ("html", "htm")}
"""Format → endings of its files; other formats have their name."""
Format = Annotated[
    Literal["text", "md", "json", "html"] | None,
    typer.Option(
        "--format",
        help="text for a terminal, md for a pull request, html for a page, json for a run file.",
        show_default="by the output's ending, else text",
    ),
]
Details = Annotated[bool, typer.Option("--verbose", "-v", help="All sentences and tables.")]


def selection(
    entrant: list[str] | None,
    style: list[str] | tuple[str, ...] | None,
    workload: list[str] | None,
    backend: str | None,
    metric: list[str] | None,
    step: Path | None = None,
) -> Selection:
    """Return the selection of cells and metrics that options ask for.

    Raises:
        BakeoffError: there is no such entrant, workload or file, or a metric is not measured in
            turns.
    """
    from bench.prepare.sides import require_metrics

    entrants, files = parse_entrants(parse_names(entrant))
    workloads = parse_names(workload)
    if step is not None:
        for option, given in (("--entrant", entrants), ("--workload", workloads)):
            if given:
                raise BakeoffError(
                    f"--step is measured alone, and {option} is given; leave one of the two out"
                )
        workloads = (name_step(step),)
        files = {workloads[0]: str(step.resolve())}
    chosen = Selection(
        entrants,
        parse_names(style),
        workloads,
        (backend,) if backend else (),
        parse_names(metric),
        files,
    )
    for name in chosen.entrants:
        impls.require_shared(impls.locate(name, files))
    require_metrics(chosen.metrics)
    chosen.check_names()
    return chosen


def check_options(options: Options) -> Options:
    """Return valid options; raise BakeoffError if they are not."""
    if options.processes is not None:
        check_size("--pairs", options.processes, most=MOST_COUNT)
    options.check()
    return options


def error_console() -> Console:
    """Return the console of standard error, for progress and remarks, without markup."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)


def measure_task(task: Task, before: float, *, resume: bool, more: Path | None) -> Measurement:
    """Measure a task, and show the progress; if it is cut off, say how to go on.

    `before` is the number of seconds of the budget that are spent already.

    Raises:
        KeyboardInterrupt: it was cut off.
        DiskError: the disk is full.
    """
    from bench.engine.journal import DiskError
    from bench.engine.session import measure
    from bench.report.terminal import Progress

    console = error_console()
    for note in dict.fromkeys(note for side in task.sides.values() for note in side.offer.notes):
        console.print(note, markup=False)
    try:
        with Progress(console, task.options.budget) as shown:
            resumed = "" if resume else None
            return measure(task, before=before, resume=resumed, on_progress=shown, more=more)
    except KeyboardInterrupt:
        console.print(SAFE_TEXT)
        raise
    except DiskError as error:
        raise DiskError(f"{error}; {SAFE_TEXT}") from error


def finish(
    results: ResultsWithSamples,
    format_: str,
    output: Path | None,
    *,
    details: bool = False,
    journal: Journal | None = None,
) -> None:
    """Show results on the terminal, or write them, with their headline on standard error.

    The journal that holds them so far is removed at the end.
    """
    try:
        from bench.cli.report import document_of
        from bench.runfile.reader import Run
        from bench.runfile.writer import run_file, write  # takes a second, in which Ctrl-C may come

        shown = document_of(Run("", results))
        if output is not None:
            print(shown.headline, file=sys.stderr)
        if format_ != "json":
            publish([shown], format_, output, details=details)
        elif output is not None:
            write(output, run_file(results))
            print(output)
        else:
            print(msgspec.json.encode(run_file(results), enc_hook=float).decode())
    except KeyboardInterrupt:
        if journal is not None:
            error_console().print(SAFE_TEXT)
        raise
    if journal is not None:
        journal.remove()


def publish(
    documents: Sequence[Document],
    format_: str = "text",
    output: Path | None = None,
    *,
    details: bool = False,
) -> None:
    """Show documents on a terminal, or write them to a new file or standard output.

    The format is `html`, `md` or `text`: on a terminal with folded parts if `details` are asked
    for, in a file always.
    """
    if format_ == "html":
        from bench.report.page import page

        give(page(*documents), output)
    elif format_ == "md":
        from bench.report.markdown import markdown

        give("\n".join(map(markdown, documents)), output)
    else:
        from rich.console import Console

        from bench.report import terminal

        file, width = (None, None) if output is None else (io.StringIO(), WIDTH)
        console = Console(highlight=False, file=file, width=width)
        for document in documents:
            terminal.show(document, console, details=details or file is not None)
        if file is not None:
            give(file.getvalue(), output)


def format_of(given: str | None, output: Path | None, formats: Iterable[str] = FORMATS) -> str:
    """Return the format that is given, or that a new file's name asks for; text without a file.

    Raises:
        BakeoffError: the ending is unknown, or the output cannot be a new file.
    """
    if output is None:
        return given or "text"
    known = {f".{end}": name for name in formats for end in ENDINGS.get(name, (name,))}
    ending = output.suffix.lower()
    if given is None and ending not in known:
        raise BakeoffError(
            f"output {output} ends in {output.suffix or 'nothing'}; {', '.join(known)} are known: "
            "name it so, or give --format"
        )
    require_new(output, "output")
    return given or known[ending]


def give(text: str, output: Path | None) -> None:
    """Write a text to a new file, whole or not at all, and say so; or to standard output."""
    if output is None:
        sys.stdout.write(text)
        return
    from bench.runfile.writer import whole_file

    with whole_file(output, "output ") as partial:
        partial.write_text(text, encoding="utf-8")
    print(output)
