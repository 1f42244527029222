"""Shared parts of commands: selection, measuring, and the one way to show and write results."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

import impls
from bench.cells import Selection, name_step
from bench.cli.parameters import parse_requirements
from bench.options import MOST_COUNT, Options
from common.config import check_size
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.engine.session import Measurement
    from bench.engine.task import Task
    from bench.environments.builder import Builder
    from bench.report.table import Document
    from bench.runfile import ResultsWithSamples

SAFE_TEXT = "what was measured is safe: go on with the same command and --resume"
WIDTH = 100
"""Characters of a line in a text file."""
FORMATS = ("text", "md", "json", "html")
ENDINGS = {"text": ("txt", "text"), "md": ("md", "markdown"), "html": ("html", "htm")}
"""Format → endings of its files; other formats have their name."""


class Output(NamedTuple):
    """Form and place of a command's results."""

    form: str = "text"
    file: Path | None = None
    """New file; None for standard output."""
    details: bool = False
    """Whether a terminal shows folded parts, too; a file has them always."""

    @classmethod
    def choose(
        cls, given: str | None, file: Path | None, *, details: bool, forms: Iterable[str] = FORMATS
    ) -> Self:
        """Return the form that is given, or that a file's name asks for; text without a file.

        Raises:
            BakeoffError: the ending is unknown, or there can be no such new file.
        """
        if file is None:
            return cls(given or "text", details=details)
        known = {f".{end}": name for name in forms for end in ENDINGS.get(name, (name,))}
        ending = file.suffix.lower()
        if given is None and ending not in known:
            raise BakeoffError(
                f"output {file} ends in {file.suffix or 'nothing'}; {', '.join(known)} are known: "
                "name it so, or give --format"
            )
        require_new(file, "output")
        return cls(given or known[ending], file, details)

    def write(self, text: str) -> None:
        """Write a text to the file, whole or not at all, and name it; or to standard output."""
        if self.file is None:
            sys.stdout.write(text)
            return
        from bench.runfile.writer import whole_file

        with whole_file(self.file, "output ") as partial:
            partial.write_text(text, encoding="utf-8")
        print(self.file)


TERMINAL = Output()


def parse_selection(
    entrant: Iterable[str] | None,
    style: Iterable[str] | None,
    workload: Iterable[str] | None,
    backend: str | None,
    metric: Iterable[str] | None,
    step: Path | None = None,
) -> Selection:
    """Return the selection of cells and metrics that options ask for.

    Raises:
        BakeoffError: there is no such entrant, workload or file, or a metric is not one that two
            sides can be compared by.
    """
    from bench.prepare.sides import require_metrics

    given = {"entrant": entrant, "style": style, "workload": workload, "metric": metric}
    chosen = Selection.parse(given | {"backend": ()})
    if step is not None:
        for option, names in (("--entrant", chosen.entrants), ("--workload", chosen.workloads)):
            if names:
                raise BakeoffError(
                    f"--step is measured alone, and {option} is given; leave one of the two out"
                )
        name = name_step(step)
        chosen = replace(chosen, workloads=(name,), files={name: str(step.resolve())})
    for name in chosen.entrants:
        impls.require_shared(impls.locate(name, chosen.files))
    require_metrics(chosen.metrics)
    chosen.check_names()
    return replace(chosen, backends=(backend,) if backend else ())


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


@contextmanager
def reserve_machine(
    *, wait: bool, packages: Sequence[str] | None, more: Path | None = None
) -> Iterator[Builder]:
    """Hold the lock of this machine, and yield a builder of environments.

    Args:
        wait: Whether to wait for another run; without it, that is a BakeoffError.
        packages: Requirements that all environments have, too.
        more: A run file to go on with: what is wrong with it is told before anything is built.
    """
    from bench.engine.machine import machine_lock
    from bench.environments.builder import Builder
    from bench.runfile.reader import read

    if more is not None:
        read(more)
    with machine_lock(wait=wait):
        yield Builder(notify=error_console().print, extras=parse_requirements(packages))


@contextmanager
def promise_resumption(is_kept: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Say that --resume goes on, if this is cut off or the disk is full, and something is kept."""
    from bench.engine.journal import DiskError

    try:
        yield
    except KeyboardInterrupt:
        if is_kept():
            error_console().print(SAFE_TEXT)
        raise
    except DiskError as error:
        hint = f"; {SAFE_TEXT}" if is_kept() else ""
        raise DiskError(f"{error}{hint}") from error


def measure_task(task: Task, before: float, *, resume: bool, more: Path | None) -> Measurement:
    """Measure a task, and show the progress; if it is cut off, say how to go on.

    `before` is the number of seconds of the budget that are spent already.

    Raises:
        KeyboardInterrupt: it was cut off.
        DiskError: the disk is full.
    """
    from bench.engine.session import measure
    from bench.report.terminal import Progress

    console = error_console()
    for note in dict.fromkeys(note for side in task.sides.values() for note in side.offer.notes):
        console.print(note)
    with promise_resumption(), Progress(console, task.options.budget) as shown:
        resumed = "" if resume else None
        return measure(task, before=before, resume=resumed, on_progress=shown, more=more)


def finish(results: ResultsWithSamples, output: Output, kept: Path | None = None) -> None:
    """Show results on the terminal, or write them, with their headline on standard error.

    `kept`, the file that holds them so far, is removed at the end.
    """
    with promise_resumption(lambda: kept is not None):
        from bench.cli.report import make_document
        from bench.runfile.reader import Machine, Run
        from bench.runfile.writer import run_file, write  # takes a second, in which Ctrl-C may come

        data = run_file(results)
        machine = msgspec.convert(data["machine_info"], Machine)
        when = data["datetime"][:19] if results.spent.wall_seconds else ""  # else from other files
        shown = make_document(Run("", results, machine=machine, when=when))
        if output.file is not None:
            print(shown.headline, file=sys.stderr)
        if output.form != "json":
            publish([shown], output)
        elif output.file is not None:
            write(output.file, data)
            print(output.file)
        else:
            print(msgspec.json.encode(data, enc_hook=float).decode())
    if kept is not None:
        kept.unlink(missing_ok=True)


def publish(documents: Sequence[Document], output: Output = TERMINAL) -> None:
    """Show documents as `html`, `md` or `text` on a terminal, in a new file or standard output."""
    if output.form == "html":
        from bench.report.page import page

        output.write(page(*documents))
    elif output.form == "md":
        from bench.report.markdown import markdown

        output.write("\n".join(map(markdown, documents)))
    else:
        from rich.console import Console

        from bench.report import terminal

        file, width = (None, None) if output.file is None else (io.StringIO(), WIDTH)
        console = Console(highlight=False, file=file, width=width)
        for document in documents:
            terminal.show(document, console, details=output.details or file is not None)
        if file is not None:
            output.write(file.getvalue())
