"""`bakeoff history`: the stacks of many days measured now, or the runs of a project in time."""

from __future__ import annotations

import sys
import time
from datetime import date
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import turns
from bench.cli.documents import format_of, give, put, rendered, show
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cells import Selection
    from bench.compare.history_result import HistoryFile
    from bench.compare.timeline import Filters
    from bench.engine.actions import Options

SINCE, EVERY, BUDGET = "2024-06", "1mo", 900.0
EXAMPLES = """Examples:\n
bakeoff history --since 2024-06 --every 2mo -o past\n
bakeoff history --since 2025-11 --every 1w --workload toy --entrant flax_nnx --style all\n
bakeoff history --since 2024-06 --every 2mo -o past --resume\n
bakeoff history --runs .benchmarks --runs results --metric step,compile"""


class HistoryFormat(StrEnum):
    """What the time line of kept runs can be."""

    TEXT = "text"
    MD = "md"
    HTML = "html"
    CSV = "csv"
    JSON = "json"


SHORT = (HistoryFormat.TEXT, HistoryFormat.MD)
"""Show few metrics, unless others are asked for."""
DATA = (HistoryFormat.CSV, HistoryFormat.JSON)
"""Have all metrics."""
FILES = {
    "page.html": HistoryFormat.HTML,
    "timeline.csv": HistoryFormat.CSV,
    "timeline.json": HistoryFormat.JSON,
}
"""Of the folder that `--runs … -o FOLDER` makes."""


def history(
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
    entrant: turns.Entrants = None,
    style: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These, or all.", show_default="pure")
    ] = None,
    workload: turns.Workloads = None,
    backend: turns.Backend = None,
    metric: turns.Metrics = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Wall time, once environments are built; --sweeps with --blocks come first.",
            show_default=f"{BUDGET:.0f}",
        ),
    ] = None,
    sweeps: Annotated[
        int | None,
        typer.Option(help="Visits of each day.", show_default="as the budget goes, 2 at least"),
    ] = None,
    blocks: turns.Blocks = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new folder for runs, page and series. Of --runs: a new folder for page, CSV "
            "and JSON, or a file whose ending says what it is.",
        ),
    ] = None,
    resume: turns.Resume = False,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure nothing: show the runs in this folder, and below, in time.",
        ),
    ] = None,
    format_: Annotated[
        HistoryFormat | None,
        typer.Option(
            "--format",
            help="Of --runs: the output is one file.",
            show_default="by the output's ending, else text",
        ),
    ] = None,
    machine: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Of --runs: part of its name.")
    ] = None,
    last: Annotated[
        int | None, typer.Option(help="Of --runs: so many of each machine's newest runs.", min=1)
    ] = None,
    details: turns.Details = False,
) -> int:
    """Measure the whole stack of many days, and say what changed when, and by how much.

    Environments are built by uv, kept, and used again; your own is never touched. Each day's worker
    takes turns with one of the last day's stack, so that a busy hour is no trend. Days and
    libraries that cannot be had are gaps, and said to be. Ctrl-C loses nothing: --resume goes on.

    Exit status: 0 done, 1 some of the runs of --runs cannot be read, 2 wrong use, 130 Ctrl-C.
    """
    from bench.environments.spec import day, today

    styles, metrics = turns.names(style), turns.names(metric)
    if resume and until is None and not runs:  # a day that has begun is another history's
        until = last_day()
    first = day(since, "--since", released=not runs) if since else None
    newest = day(until, "--until", last=True, released=not runs) if until else None
    if first and newest and first > newest:
        raise BakeoffError(f"--since {first} is after --until {newest}; turn them around")
    if runs:
        refuse(
            {
                "--every": every,
                "--backend": backend,
                "--budget": budget,
                "--sweeps": sweeps,
                "--blocks": blocks,
                "--resume": resume or None,
            },
            "for measuring; with --runs nothing is: leave it out",
        )
        from bench.compare.timeline import Filters
        from bench.report.page.data import SHOWN
        from bench.runfile.reader import TIME

        filters = Filters(
            names={
                "entrant": turns.names(entrant),
                "style": () if styles == ("all",) else styles,
                "workload": turns.names(workload),
                "metric": () if "all" in metrics else metrics,
            },
            machines=tuple(machine or ()),
            since=first or date.min,
            until=newest or date.max,
            last=last,
        )
        chosen = format_of(format_, output, HistoryFormat, folder=True)
        short = (TIME, "step") if chosen in SHORT else () if chosen in DATA else SHOWN
        usual = () if "all" in metrics else short
        return kept(runs, filters, usual, output, chosen, details=details)
    refuse(
        {"--format": format_, "--machine": machine, "--last": last},
        "for --runs; leave it out, or give --runs FOLDER",
    )
    from bench.compare.history import days_of
    from bench.compare.history_result import document
    from bench.engine.actions import Options

    budget, every = BUDGET if budget is None else budget, every or EVERY
    turns.check_counts(budget, sweeps=sweeps, blocks=blocks)
    days = days_of(first or day(SINCE, "--since"), newest or today(), every)
    folder = output or Path(f"history-{time.strftime('%Y%m%d-%H%M%S')}")
    require_new(folder, "output")
    styles = () if styles == ("all",) else styles or ("pure",)
    selection = turns.selection(entrant, styles, workload, backend)
    options = Options(budget, blocks=blocks)
    data = measured(
        days, every, selection, turns.metrics_of(metrics), options, sweeps, folder, resume=resume
    )
    show(document(data), details=details)
    print(folder)
    return 0


def refuse(options: dict[str, Any], why: str) -> None:
    """Raise BakeoffError if one of these options was given."""
    for option, value in options.items():
        if value is not None:
            raise BakeoffError(f"{option} is {why}")


def last_day() -> str:
    """Return the last day of the history that was cut off."""
    from bench.engine.journal import FOLDER, Journal, newest

    days = Journal.open(newest(FOLDER / "history")).header.get("days")
    if not days:
        raise BakeoffError("the newest journal is of no history; start anew without --resume")
    return str(days[-1])


def kept(
    folders: list[Path],
    filters: Filters,
    usual: Sequence[str],
    output: Path | None,
    format_: HistoryFormat | None,
    *,
    details: bool,
) -> int:
    """Show the runs in folders as time lines; return the exit status.

    `usual` are the metrics where the filters name none. `output` is a new file or folder, or None
    for standard output; without a format it is a folder, with a page, CSV and JSON.

    Raises:
        BakeoffError: there is nothing to show, or the output cannot be written.
    """
    from rich.progress import track

    from bench.compare.export import timelines_csv, timelines_json
    from bench.compare.timeline import document, kept_runs
    from bench.runfile.writer import new_folder

    console = turns.error_console()
    found = kept_runs(
        folders,
        filters,
        usual=usual,
        progress=partial(
            track,
            description="reading run files",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ),
    )

    def written(form: HistoryFormat) -> str:
        match form:
            case HistoryFormat.CSV:
                return timelines_csv(found)
            case HistoryFormat.JSON:
                return timelines_json(found)
            case _:
                return rendered(partial(document, found), form)

    if output is None and format_ is HistoryFormat.TEXT:
        show(document(found), details=details)
    elif format_ is not None:
        give(written(format_), output)
    elif output is not None:
        new_folder(output, "output")
        for name, form in FILES.items():
            put(output / name, written(form))
        print(output)
    return 1 if found.problems else 0


def measured(
    days: list[date],
    every: str,
    selection: Selection,
    metrics: frozenset[str],
    options: Options,
    sweeps: int | None,
    folder: Path,
    *,
    resume: bool,
) -> HistoryFile:
    """Measure the stacks of days and write what was found; return the content of `history.json`.

    Args:
        days: In the order of time; the last one's stack is the reference.
        every: How far they are apart.
        selection: Cells to measure.
        metrics: To measure.
        options: The budget and blocks.
        sweeps: Visits of each day.
        folder: For all files.
        resume: Go on with what was cut off.
    """
    from bench.compare.experiment import measure, write_runs
    from bench.compare.history import Stacks, history_data, runs_of
    from bench.compare.history_result import document
    from bench.engine.cores import one_core_lanes
    from bench.engine.sides_plan import REFERENCE, History
    from bench.environments.builder import Builder
    from bench.result_pages import PAGE

    console = turns.error_console()
    stacks = Stacks()
    with turns.announced(console, "building environments") as say:
        tell = partial(console.print, markup=False)
        stacks.build(days, selection.entrants, Builder(notify=say), tell)
    cells = stacks.cells(selection)
    names = [name for name in stacks.sides if name != REFERENCE]

    def schedule(seeded: Options, before: float) -> History:
        return History(names, cells, metrics, seeded, before, one_core_lanes(), sweeps)

    with turns.progress(console, options.budget) as told:
        past, journal = measure(
            schedule,
            options,
            stacks.sides,
            {
                "days": [str(day) for day in days],
                "cells": [str(cell) for cell in cells[REFERENCE]],
                "metrics": sorted(metrics),
                "counts": [options.budget, sweeps, options.blocks],
            },
            kind="history",
            before=stacks.asking,
            resume=resume,
            told=told,
        )
    data = history_data(
        past,
        stacks,
        since=str(days[0]),
        until=str(days[-1]),
        every=every,
        reference=str(days[-1]),
        arguments=sys.argv[1:],
        seed=journal.header["seed"],
    )
    write_runs(folder, "output", {**runs_of(past, stacks, data, turns.MARGIN), "history": data})
    put(folder / PAGE, rendered(partial(document, data), "html"))
    journal.remove()
    return data
