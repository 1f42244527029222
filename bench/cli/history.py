"""`bakeoff history`: the stacks of many days measured now, or run files that were kept, in time."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import tracking
from bench.cli.documents import format_of
from bench.options import (
    BackendName,
    Blocks,
    EntrantNames,
    MetricNames,
    More,
    Options,
    Output,
    Pairs,
    Resume,
    StepFile,
    WorkloadNames,
    names_of,
)
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from bench.cells import Selection
    from bench.engine.session import Task
    from bench.track.sides import Days

SINCE, EVERY, BUDGET = "2024-06-01", "1mo", 900.0
EXAMPLES = """Examples:
bakeoff history --since 2024-06-01 --every 2mo -o past.html
bakeoff history --since 2025-11-01 --every 1w --workload toy --entrant flax_nnx --style all
bakeoff history --since 2024-06-01 --every 2mo -o past.html --resume
bakeoff history .benchmarks results -o nights.html"""


def history(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN.json|FOLDER]...",
            help="Run files that were kept, and folders that hold some: they are shown in time, "
            "and nothing is measured.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="First day.", show_default=SINCE),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="Last day, whose stack is the reference.", show_default="today"
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Days, weeks, months or years: 10d, 2w, 1mo, 1y.",
            show_default=EVERY,
        ),
    ] = None,
    step: StepFile = None,
    entrant: EntrantNames = None,
    style: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These, or all.", show_default="pure")
    ] = None,
    workload: WorkloadNames = None,
    backend: BackendName = None,
    metric: MetricNames = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Wall time, once environments are built; two pairs of each day come first.",
            show_default=f"{BUDGET:.0f}",
        ),
    ] = None,
    pairs: Pairs = None,
    blocks: Blocks = None,
    output: Output = None,
    format_: tracking.Format = None,
    details: tracking.Details = False,
    resume: Resume = False,
    more: More = None,
) -> int:
    """Measure the whole stack of many days, and say what changed when, and by how much.

    Environments are built by uv, kept, and used again; your own is never touched. Each day's worker
    takes turns with one of the last day's stack, so that a busy hour is no trend. Days and
    libraries that cannot be had are named. Ctrl-C loses nothing: --resume goes on.

    Exit status: 0 done, 1 some of the kept runs cannot be read, 2 wrong use, 130 Ctrl-C.
    """
    from bench.environments.spec import day, today
    from bench.track.history import document
    from bench.track.kept_runs import SKIPPED, kept_runs
    from bench.track.sides import days_of

    chosen = format_of(format_, output, tracking.FORMATS)
    if runs:
        measuring: dict[str, object] = {"--since": since, "--until": until, "--every": every}
        measuring |= {"--entrant": entrant, "--style": style, "--workload": workload}
        measuring |= {"--backend": backend, "--metric": metric, "--budget": budget}
        measuring |= {"--step": step, "--pairs": pairs, "--blocks": blocks, "--resume": resume}
        measuring |= {"--more": more}
        for option, value in measuring.items():
            if value not in (None, False):
                raise BakeoffError(
                    f"{option} is for measuring, and run files are given; leave one of the two out"
                )
        results = kept_runs(runs)
        results.arguments = sys.argv[1:]
        tracking.finish(results, document(results), chosen, output, details=details)
        return int(any(text.startswith(SKIPPED) for text in results.warnings))
    styles = names_of(style) or ("pure",)
    budget = BUDGET if budget is None else budget
    options = tracking.checked(Options(budget, processes=pairs, blocks=blocks, cores="one"))
    selection = tracking.selection(
        entrant, () if styles == ("all",) else styles, workload, backend, metric, step
    )
    if resume and until is None:  # a day that has begun is another history's
        until = last_day()
    newest = day(until, "--until") if until else today()
    dates = days_of(day(since or SINCE, "--since"), newest, every or EVERY)
    stacks, task = task_of(dates, selection, options)
    made = tracking.measured(task, stacks.asking, resume=resume, more=more)
    stacks.complete(made.results)
    tracking.finish(made.results, document(made.results), chosen, output, details=details)
    made.journal.remove()
    return 0


def last_day() -> str:
    """Return the last day of the history that was cut off."""
    from bench.engine.journal import Journal, journals

    for path in journals("history"):
        return max(name for name in Journal.open(path).header["needed"] if name[:1].isdigit())
    raise BakeoffError("there is no history to resume: run without --resume")


def task_of(days: Sequence[date], selection: Selection, options: Options) -> tuple[Days, Task]:
    """Return the stacks of days, built, and what is measured of them; the last is the reference."""
    from bench.engine.session import Task
    from bench.environments.builder import Builder
    from bench.track.sides import REFERENCE, Days, needed

    stacks = Days()
    stacks.build(days, selection, Builder(notify=tracking.error_console().print))
    groups = [(name, REFERENCE) for name in stacks.sides if name != REFERENCE]
    task = Task(
        "history",
        tuple(sys.argv[1:]),
        needed(selection, stacks.cells(selection)),
        stacks.sides,
        options,
        groups,
        REFERENCE,
        selection.files,
    )
    return stacks, task
