"""What the commands of tracking share: what is measured, progress, and how they end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from bench.cli.documents import give, rendered, show
from bench.options import MOST_COUNT, Options, names_of
from common.config import check_size
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    from bench.cells import Selection
    from bench.engine.actions import Action, Spent
    from bench.report.table import Document
    from bench.runfile import ResultsWithSamples

FORMATS = ("text", "md", "json", "html")
Format = Annotated[
    Literal["text", "md", "json", "html"] | None,
    typer.Option(
        "--format",
        help="text for a terminal, md for a pull request, html for a page, json for a run file.",
        show_default="by the output's ending, else text",
    ),
]
Details = Annotated[
    bool, typer.Option("--verbose", "-v", metavar="", help="All sentences and tables.")
]


def selection(
    entrant: list[str] | None,
    style: list[str] | tuple[str, ...] | None,
    workload: list[str] | None,
    backend: str | None,
    metric: list[str] | None,
) -> Selection:
    """Return the cells and metrics that are asked for.

    Raises:
        BakeoffError: there is no such entrant or workload, or a metric is not measured in turns.
    """
    import impls
    from bench.cells import Selection
    from bench.track.sides import require_metrics

    chosen = Selection(
        names_of(entrant),
        names_of(style),
        names_of(workload),
        (backend,) if backend else (),
        names_of(metric),
    )
    for name in chosen.entrants:
        impls.require_here(name)
    require_metrics(chosen.metrics)
    chosen.check_names()
    return chosen


def checked(options: Options) -> Options:
    """Return options that can be measured by; raise BakeoffError otherwise."""
    if options.processes is not None:
        check_size("--pairs", options.processes, most=MOST_COUNT)
    options.check()
    return options


def error_console() -> Console:
    """Return where progress and remarks are shown."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


@contextmanager
def progress(
    console: Console, budget: float, *, resumable: bool = True
) -> Iterator[Callable[[Action, Spent], None]]:
    """Show how far a measurement is; after Ctrl-C, say how to go on where something is kept."""
    from bench.report.progress import Progress

    begun = False
    try:
        with Progress(console, budget) as shown:

            def on_progress(action: Action, spent: Spent) -> None:
                nonlocal begun
                begun = True
                shown(action, spent)

            yield on_progress
    except KeyboardInterrupt:
        if begun and resumable:
            console.print(
                "what was measured is safe: go on with the same command and --resume", markup=False
            )
        raise


@contextmanager
def announced(console: Console, text: str) -> Iterator[Callable[[str], None]]:
    """Show what is done at the moment: in one line of a terminal, line by line elsewhere."""
    if not console.is_terminal:
        yield lambda now: console.print(now, markup=False)
        return
    with console.status(text) as status:
        yield status.update


def finish(
    results: ResultsWithSamples,
    document: Document,
    format_: str | None,
    output: Path | None,
    *,
    details: bool = False,
    marker: str = "",
) -> None:
    """Show results on the terminal, or write them, with their headline on standard error.

    Args:
        results: For a run file.
        document: The same, to read.
        format_: One of `FORMATS`; None for text on the terminal, or a folder with the other two.
        output: A new file or folder; standard output if None.
        details: Whether a terminal shows all of it.
        marker: First line of Markdown, by which a later comment finds the one that it replaces.
    """
    if output is None and format_ in (None, "text"):
        show(document, details=details)
        return
    if output is not None:
        print(document.headline, file=sys.stderr)
    if output is not None and format_ is None:
        try:
            output.mkdir()
        except OSError as error:
            raise BakeoffError(f"output {output}: {error.strerror}; name another one") from error
        for name, form in (("history.json", "json"), ("page.html", "html")):
            write_as(form, results, document, output / name)
    else:
        write_as(format_ or "text", results, document, output, marker)


def write_as(
    format_: str,
    results: ResultsWithSamples,
    document: Document,
    output: Path | None,
    marker: str = "",
) -> None:
    """Write results to a new file, or to standard output."""
    from bench.runfile.writer import run_file, write

    if format_ != "json":
        give(rendered(document, format_, marker), output)
    elif output is not None:
        write(output, run_file(results))
        print(output)
    else:
        print(msgspec.json.encode(run_file(results), enc_hook=float).decode())
