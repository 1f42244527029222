"""Shared parts of commands: selection and options, the machine's lock, progress, resuming."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.cells import Selection, name_step
from bench.cli.parameters import parse_requirements
from bench.options import MOST_COUNT, Options
from common.config import check_size
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.engine.session import Measurement
    from bench.engine.task import Task
    from bench.environments.builder import Builder
    from bench.samples import Sample

SAFE_TEXT = "what was measured is safe: go on with the same command and --resume"


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


def make_builder(
    *, wait: bool, packages: Sequence[str] | None, more: Path | None = None
) -> Builder:
    """Return a builder of environments, once it is known that nothing else is in the way.

    Args:
        wait: Whether another run on this machine is no BakeoffError: it is waited for later.
        packages: Requirements that all environments have, too.
        more: A run file to go on with: what is wrong with it is told before anything is built.
    """
    from bench.engine.journal import require_journals_folder
    from bench.engine.machine import require_free_machine
    from bench.environments.builder import Builder
    from bench.runfile.reader import read

    if more is not None:
        read(more)
    require_journals_folder()
    if not wait:
        require_free_machine()
    return Builder(notify=error_console().print, extras=parse_requirements(packages))


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


def measure_task(
    task: Task,
    *,
    wait: bool,
    resume: bool,
    more: Path | None,
    goes_on: bool = True,
    is_enough: Callable[[Sequence[Sample]], bool] = lambda _samples: False,
) -> Measurement:
    """Measure a task, and show the progress; if it is cut off, say how to go on.

    `goes_on` says whether the command takes `--resume`. `is_enough` gets the samples between
    visits, and says whether they do.

    Raises:
        KeyboardInterrupt: it was cut off.
        DiskError: the disk is full.
    """
    from bench.engine.journal import find_journals
    from bench.engine.session import measure
    from bench.report.terminal import Progress

    console, before = error_console(), find_journals(task.kind)
    for note in dict.fromkeys(note for side in task.sides.values() for note in side.offer.notes):
        console.print(note)

    def is_kept() -> bool:  # not while another run is waited for
        return goes_on and (resume or find_journals(task.kind) != before)

    with promise_resumption(is_kept), Progress(console, task.options.budget) as shown:
        resumed = "" if resume else None
        return measure(
            task, wait=wait, resume=resumed, on_progress=shown, more=more, is_enough=is_enough
        )
