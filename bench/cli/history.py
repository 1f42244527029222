"""`bakeoff history`: the stacks of many days measured now, or the runs of a project in time."""

from __future__ import annotations

import datetime
import sys
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.documents import rendered, show
from bench.cli.turns import announced, measured
from common.errors import BakeoffError, require_new, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cells import Cell, Selection
    from bench.compare.experiment import Offered
    from bench.compare.filters import Filters
    from bench.compare.timeline import KeptRuns
    from bench.engine.actions import Options
    from bench.engine.sides_plan import History
    from bench.environments.builder import Environment

SINCE, EVERY, BUDGET = "2024-06", "1mo", 900.0
MARGIN = 0.02
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


FILES = {
    "page.html": HistoryFormat.HTML,
    "timeline.csv": HistoryFormat.CSV,
    "timeline.json": HistoryFormat.JSON,
}
"""Of the folder that `--runs … -o FOLDER` makes."""


def names(given: list[str] | None) -> tuple[str, ...]:
    """Return names that were given again, or with commas in between."""
    return tuple(name for value in given or () for name in value.split(",") if name)


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
    entrant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These only; again, or as a,b.")
    ] = None,
    style: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These, or all.", show_default="pure")
    ] = None,
    workload: Annotated[
        list[str] | None, typer.Option(metavar="NAME", show_default="toy and seed")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="an accelerator, else cpu")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="step, host_cost and all cold ones"),
    ] = None,
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
    blocks: Annotated[
        int | None,
        typer.Option(help="Blocks of each turn in a visit.", show_default="as the budget goes"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new folder for runs, page and series. Of --runs: a new folder for page, CSV "
            "and JSON, or a file whose ending says what it is.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was cut off, given the same options.")
    ] = False,
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
        int | None, typer.Option(help="Of --runs: so many of each machine's newest runs.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--verbose", "-v", help="All sentences and tables.")
    ] = False,
) -> int:
    """Measure the whole stack of many days, and say what changed when, and by how much.

    Environments are built by uv, kept, and used again; your own is never touched. Each day's worker
    takes turns with one of the last day's stack, so that a busy hour is no trend. Days and
    libraries that cannot be had are gaps, and said to be. Ctrl-C loses nothing: --resume goes on.

    Exit status: 0 done, 1 some of the runs of --runs cannot be read, 2 wrong use, 130 Ctrl-C.
    """
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
        from bench.compare.filters import Filters

        filters = Filters(
            entrants=names(entrant),
            styles=() if names(style) == ("all",) else names(style),
            workloads=names(workload),
            metrics=names(metric),
            machines=tuple(machine or ()),
            since=since or "",
            until=until or "",
            last=last,
        )
        return kept(runs, filters, output, format_ or by_ending(output), details=details)
    refuse(
        {"--format": format_, "--machine": machine, "--last": last},
        "for --runs; leave it out, or give --runs FOLDER",
    )
    from rich.console import Console

    from bench.cells import Selection
    from bench.compare.history import days_of
    from bench.environments.spec import day, today
    from common.config import check_rate, check_size

    budget, every = BUDGET if budget is None else budget, every or EVERY
    check_rate("--budget", budget)
    for option, count in (("--sweeps", sweeps), ("--blocks", blocks)):
        if count is not None:
            check_size(option, count, most=1000)
    if resume and until is None:  # a day that has begun meanwhile is another history's
        until = last_day()
    newest = day(until, "--until", last=True) if until else today()
    days = days_of(day(since or SINCE, "--since"), newest, every)
    folder = output or Path(f"history-{time.strftime('%Y%m%d-%H%M%S')}")
    require_new(folder, "output")
    styles = names(style) or ("pure",)
    selection = Selection(
        entrants_of(entrant),
        () if styles == ("all",) else styles,
        names(workload),
        (backend,) if backend else (),
    )
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    past = Past(days, selection, metrics_of(names(metric)), console, resume=resume)
    past.build()
    past.measure(budget, sweeps, blocks)
    past.write(folder, every, details=details)
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


def by_ending(output: Path | None) -> HistoryFormat | None:
    """Return the format that a file's name asks for; None for a folder, whose name has no ending.

    Raises:
        BakeoffError: the ending is not known.
    """
    if output is None:
        return HistoryFormat.TEXT
    endings = {f".{format_}": format_ for format_ in HistoryFormat}
    endings[".txt"] = endings.pop(".text")
    if output.suffix and output.suffix.lower() not in endings:
        raise BakeoffError(
            f"output {output} ends in {output.suffix}; {', '.join(endings)} are known, and no "
            "ending for a folder: name it so, or give --format"
        )
    return endings.get(output.suffix.lower())


def kept(
    folders: list[Path],
    filters: Filters,
    output: Path | None,
    format_: HistoryFormat | None,
    *,
    details: bool,
) -> int:
    """Show the runs in folders as time lines; return the exit status.

    Args:
        folders: Hold run files.
        filters: Which runs and series are shown.
        output: A new file or folder; None for standard output.
        format_: Of the file; None for a folder with a page, CSV and JSON.
        details: Whether all sentences and tables are printed.

    Raises:
        BakeoffError: there is nothing to show, or the output cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    from bench.cli.report import put
    from bench.compare.timeline import document, kept_runs
    from bench.report.page.data import SHOWN
    from bench.runfile.reader import TIME
    from bench.runfile.writer import new_folder

    if output is not None:
        require_new(output, "output")
    short = (HistoryFormat.TEXT, HistoryFormat.MD)
    usual = (TIME, "step") if format_ in short else SHOWN
    console = Console(stderr=True)
    found = kept_runs(
        folders,
        filters,
        usual=() if format_ in (HistoryFormat.CSV, HistoryFormat.JSON) else usual,
        progress=partial(
            track,
            description="reading run files",
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ),
    )
    if output is None and format_ is HistoryFormat.TEXT:
        show(document(found), details=details)
    elif output is None:
        sys.stdout.write(written(found, format_ or HistoryFormat.TEXT))
    else:
        if format_ is None:
            new_folder(output, "output")
        files = {output / name: each for name, each in FILES.items()}
        for path, each in (files if format_ is None else {output: format_}).items():
            put(path, written(found, each))
        print(output)
    return found.status


def written(found: KeptRuns, format_: HistoryFormat) -> str:
    """Return time lines as the content of a file."""
    from bench.compare.timeline import document
    from bench.compare.timeline_export import as_csv, as_json

    match format_:
        case HistoryFormat.CSV:
            return as_csv(found)
        case HistoryFormat.JSON:
            return as_json(found)
        case _:
            return rendered(partial(document, found), format_)


def entrants_of(given: list[str] | None) -> tuple[str, ...]:
    """Return the entrants that were asked for; raise BakeoffError where there is no such one."""
    import impls

    found = names(given)
    for name in found:
        impls.require_here(name)
    return found


def metrics_of(given: tuple[str, ...]) -> frozenset[str]:
    """Return the metrics to measure: what was asked for, if it is measured side by side.

    Raises:
        BakeoffError: one is unknown, or is measured by `pytest bench` alone.
    """
    from bench.engine.sides_plan import DEFAULT_METRICS
    from bench.metrics import EXACT, METRICS

    every = [name for name in METRICS if name in DEFAULT_METRICS]
    for name in given:
        if name in EXACT:
            raise BakeoffError(
                f"metric {name!r} is an exact count, which is compared always; give one that "
                f"varies: {', '.join(every)}"
            )
        if name not in METRICS:
            raise unknown("metric", name, every)
        if name not in every:
            known = ", ".join(every)
            raise BakeoffError(
                f"metric {name!r} is measured by `pytest bench` alone; side by side: {known}"
            )
    return frozenset(given) or DEFAULT_METRICS


class Past:
    """One history, from its environments to its files."""

    def __init__(
        self,
        days: list[datetime.date],
        selection: Selection,
        metrics: frozenset[str],
        console: Console,
        *,
        resume: bool,
    ) -> None:
        self.days, self.selection, self.metrics, self.console = days, selection, metrics, console
        self.resume = resume
        self.environments: dict[str, Environment] = {}
        """By name of side: the reference, and the first day of each stack."""
        self.named: dict[str, str] = {}
        """The side of each day."""
        self.gaps: dict[str, str] = {}
        """Days without an environment, and why."""
        self.sides: dict[str, Offered] = {}
        self.cells: dict[str, list[Cell]] = {}

    def build(self) -> None:
        """Build the environments, the reference's first; the others have its Python if they can."""
        from bench.engine.sides_plan import REFERENCE
        from bench.environments.builder import Builder
        from bench.environments.spec import of_day
        from bench.environments.uv import PYTHONS

        with announced(self.console, "building environments") as say:
            builder = Builder(notify=say)
            reference = builder.environment(of_day(self.days[-1]), PYTHONS)
            self.environments[REFERENCE] = reference
            pythons = [reference.python, *(p for p in PYTHONS if p != reference.python)]
            stacks: dict[Any, str] = {}
            for day in self.days:
                name = str(day)
                say(f"the environment of {name}")
                try:
                    found = builder.environment(of_day(day), pythons)
                except BakeoffError as error:
                    self.gaps[name] = str(error)
                    self.console.print(f"{name}: {error}", markup=False)
                    continue
                stack = stacks.setdefault((found.pins, found.python), name)
                self.named[name] = stack
                self.environments.setdefault(stack, found)

    def offers(self) -> None:
        """Ask each side what it has; one that cannot be asked is a gap."""
        from bench.compare import experiment
        from bench.engine.sides_plan import REFERENCE

        entrants = self.selection.entrants
        for name, environment in [*self.environments.items()]:
            try:
                self.sides[name] = experiment.asked(environment, entrants)
            except BakeoffError as error:
                if name == REFERENCE:
                    raise
                self.console.print(str(error), markup=False)
                del self.environments[name]
                days = [day for day, stack in self.named.items() if stack == name]
                self.gaps |= {day: str(error) for day in days if self.named.pop(day)}
        whole = experiment.selected(self.selection, {REFERENCE: self.sides[REFERENCE]})[REFERENCE]
        self.cells = {
            name: [c for c in whole if name == REFERENCE or side.gap(c.entrant, c.style) is None]
            for name, side in self.sides.items()
        }

    def measure(self, budget: float, sweeps: int | None, blocks: int | None) -> None:
        """Measure all stacks."""
        from bench.engine.actions import Options
        from bench.engine.sides_plan import REFERENCE

        start = time.monotonic()
        self.offers()
        self.history, self.journal = measured(
            self.console,
            partial(self.schedule, sweeps=sweeps),
            Options(budget, blocks=blocks),
            self.environments,
            {
                "days": [str(day) for day in self.days],
                "cells": [str(cell) for cell in self.cells[REFERENCE]],
                "metrics": sorted(self.metrics),
                "counts": [budget, sweeps, blocks],
            },
            kind="history",
            before=time.monotonic() - start,
            resume=self.resume,
        )

    def schedule(self, options: Options, before: float, *, sweeps: int | None) -> History:
        """Return the plan."""
        from bench.engine.cores import one_core_lanes
        from bench.engine.sides_plan import REFERENCE, History

        days = [name for name in self.environments if name != REFERENCE]
        return History(days, self.cells, self.metrics, options, before, one_core_lanes(), sweeps)

    def write(self, folder: Path, every: str, *, details: bool) -> None:
        """Write what was found, and print it."""
        from bench.cli.report import put
        from bench.compare.history import document, history_data, write_files
        from bench.engine.sides_plan import REFERENCE
        from bench.results import PAGE

        data = history_data(
            self.history,
            self.sides,
            self.named,
            self.gaps,
            since=str(self.days[0]),
            until=str(self.days[-1]),
            every=every,
            reference=str(self.days[-1]),
            reference_versions=self.sides[REFERENCE].offer.versions,
            arguments=sys.argv[1:],
            seed=self.journal.header["seed"],
            when=datetime.datetime.now(datetime.UTC).isoformat()[:19],
        )
        write_files(folder, self.history, self.sides, data, MARGIN)
        put(folder / PAGE, rendered(partial(document, data), "html"))
        self.journal.remove()
        show(document(data), details=details)
        print(folder)
