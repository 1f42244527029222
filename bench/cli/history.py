"""`bakeoff history`: the stacks of many days measured now, or run files that were kept, in time."""

from __future__ import annotations

import sys
from datetime import date
from functools import partial
from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import turns
from bench.cli.documents import format_of
from bench.options import (
    BackendName,
    Blocks,
    EntrantNames,
    MetricNames,
    Options,
    Output,
    Pairs,
    Resume,
    WorkloadNames,
    names_of,
)
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cells import Selection
    from bench.engine.session import Measured
    from bench.runfile import ResultsWithSamples
    from bench.track.kept_runs import Filters

SINCE, EVERY, BUDGET = "2024-06", "1mo", 900.0
EXAMPLES = """Examples:\n
bakeoff history --since 2024-06 --every 2mo -o past\n
bakeoff history --since 2025-11 --every 1w --workload toy --entrant flax_nnx --style all\n
bakeoff history --since 2024-06 --every 2mo -o past --resume\n
bakeoff history .benchmarks results --metric step,compile -o nights.html"""


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
        typer.Option(metavar="DAY", help="First day, or month, as in 2024-06.", show_default=SINCE),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="Last day, whose stack is the reference; today."),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Days, weeks, months or years: 10d, 2w, 1mo, 1y.",
            show_default=EVERY,
        ),
    ] = None,
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
    format_: turns.Format = None,
    machine: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Of kept runs: part of its name.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(metavar="N", help="So many of the newest kept runs.", min=1)
    ] = None,
    details: turns.Details = False,
    resume: Resume = False,
) -> int:
    """Measure the whole stack of many days, and say what changed when, and by how much.

    Environments are built by uv, kept, and used again; your own is never touched. Each day's worker
    takes turns with one of the last day's stack, so that a busy hour is no trend. Days and
    libraries that cannot be had are named. Ctrl-C loses nothing: --resume goes on. An output
    without an ending is a new folder with history.json and page.html.

    Exit status: 0 done, 1 some of the kept runs cannot be read, 2 wrong use, 130 Ctrl-C.
    """
    from bench.environments.spec import day, today
    from bench.track.history import document

    styles, metrics, kept = names_of(style), names_of(metric), bool(runs)
    if output is not None and not output.suffix and format_ is None:
        require_new(output, "output")
        chosen = None
    else:
        chosen = format_of(format_, output, turns.FORMATS)
    if resume and until is None and not kept:  # a day that has begun is another history's
        until = last_day()
    first = day(since, "--since", released=not kept) if since else None
    newest = day(until, "--until", last=True, released=not kept) if until else None
    if first and newest and first > newest:
        raise BakeoffError(f"--since {first} is after --until {newest}; turn them around")
    styles = () if styles == ("all",) else styles
    if runs:
        from bench.track.kept_runs import Filters

        measuring = {"--every": every, "--backend": backend, "--budget": budget, "--pairs": pairs}
        measuring |= {"--blocks": blocks, "--resume": resume or None}
        refuse(measuring, "for measuring, and run files are given; leave one of the two out")
        names = {"entrant": names_of(entrant), "style": styles, "workload": names_of(workload)}
        names |= {"metric": () if metrics == ("all",) else metrics}
        dates = first or date.min, newest or date.max
        results, status = kept_history(runs, Filters(names, machine or "", *dates, last))
        turns.finish(results, document(results), chosen, output, details=details)
        return status
    refuse({"--machine": machine, "--last": last}, "for run files; give some, or leave it out")
    from bench.track.days import days_of

    budget = BUDGET if budget is None else budget
    options = turns.checked(Options(budget, processes=pairs, blocks=blocks, cores="one"))
    selection = turns.selection(entrant, styles or ("pure",), workload, backend, metric)
    dates_of = days_of(first or day(SINCE, "--since"), newest or today(), every or EVERY)
    made = measured(dates_of, selection, options, resume=resume)
    turns.finish(made.results, document(made.results), chosen, output, details=details)
    made.journal.remove()
    return 0


def refuse(options: dict[str, Any], why: str) -> None:
    """Raise BakeoffError if one of these options was given."""
    for option, value in options.items():
        if value is not None:
            raise BakeoffError(f"{option} is {why}")


def last_day() -> str:
    """Return the last day of the history that was cut off."""
    from bench.engine.journal import Journal, journals

    for path in journals("history"):
        return max(name for name in Journal.open(path).header["needed"] if name[:1].isdigit())
    raise BakeoffError("there is no history to resume: run without --resume")


def kept_history(places: list[Path], filters: Filters) -> tuple[ResultsWithSamples, int]:
    """Return the runs in files and folders as a history, and the exit status."""
    from rich.progress import track

    from bench.track.kept_runs import kept_runs

    console = turns.error_console()
    progress = partial(
        track,
        description="reading run files",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    kept = kept_runs(places, filters, progress)
    kept.results.arguments = sys.argv[1:]
    kept.results.warnings += [f"skipped: {problem}" for problem in kept.problems]
    for note in kept.notes:
        console.print(note, markup=False)
    return kept.results, 1 if kept.problems else 0


def measured(
    days: Sequence[date], selection: Selection, options: Options, *, resume: bool
) -> Measured:
    """Measure the stacks of days, in the order of time; the last one's is the reference."""
    from bench.engine.session import measure
    from bench.environments.builder import Builder
    from bench.track.days import Days
    from bench.track.sides import task
    from bench.track.timeline import REFERENCE

    console, stacks = turns.error_console(), Days()
    with turns.announced(console, "building environments") as say:
        notify = partial(console.print, markup=False)
        stacks.build(days, selection.entrants, Builder(notify=say), notify)
    groups = [(name, REFERENCE) for name in stacks.sides if name != REFERENCE]
    of_history = task(
        "history",
        selection,
        stacks.sides,
        stacks.cells(selection),
        groups,
        options,
        base=REFERENCE,
        arguments=sys.argv[1:],
    )
    with turns.progress(console, options.budget) as on_progress:
        made = measure(
            of_history,
            before=stacks.asking,
            resume="" if resume else None,
            on_progress=on_progress,
        )
    stacks.complete(made.results)
    return made
