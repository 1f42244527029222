"""A history: the stacks of many days, each visited in turns with the newest one.

Its data are `history.json`; a run file of each stack lies beside it.
"""

from __future__ import annotations

import calendar
import datetime
import math
import os
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from scipy import special

from bench.compare import experiment, trends, windows
from bench.compare.history_result import (
    Change,
    Day,
    ExactSeries,
    HistoryFile,
    HistoryTime,
    RatioSeries,
    timeline,
)
from bench.compare.pairs import log_ratios
from bench.compare.series import SeriesChange, SeriesKey, order
from bench.compare.visits import Visits, visits
from bench.engine.sides_plan import REFERENCE
from bench.environments.spec import of_day
from bench.environments.uv import PYTHONS
from bench.metrics import EXACT, METRICS, Kind
from bench.runfile import PlanOfRun
from bench.runfile.reader import processor_model
from bench.runfile.section import number
from bench.runfile.writer import run_data
from bench.worker.settings import affinity
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cells import Cell, Selection
    from bench.compare.experiment import Offered
    from bench.engine.sides_plan import History
    from bench.environments.builder import Builder, Environment
    from bench.runfile import RunFile

EVERY = re.compile(r"(\d{1,3})(d|w|mo|y)")
MOST_DAYS = 400


def days_of(since: datetime.date, until: datetime.date, every: str) -> list[datetime.date]:
    """Return the days from `since` to `until`, which is one of them, `every` so often.

    Raises:
        BakeoffError: there is no such step, or it gives none or too many.
    """
    match = EVERY.fullmatch(every)
    if match is None or not int(match[1]):
        raise BakeoffError(
            f"--every {every!r} is no step; give days, weeks, months or years, as in 10d, 2w, 1mo"
        )
    if since > until:
        raise BakeoffError(f"--since {since} is after --until {until}; turn them around")
    count, unit = int(match[1]), match[2]
    days = [since]
    while days[-1] < until:
        days.append(min(later(since, len(days) * count, unit), until))
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return days


def later(day: datetime.date, count: int, unit: str) -> datetime.date:
    """Return a day so many units later; the last of a month where it has no such day."""
    if unit in ("d", "w"):
        return day + datetime.timedelta(count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return datetime.date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


@dataclass
class Stacks:
    """The sides of a history: the reference, and the first day of each stack."""

    sides: dict[str, Offered] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    """The side of each day: two days of one stack share theirs."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Days without a side, and why."""
    asking: float = 0.0
    """Seconds of the budget that it took to ask the sides what they have."""

    def build(
        self,
        days: Sequence[datetime.date],
        entrants: Sequence[str],
        builder: Builder,
        tell: Callable[[str], None],
    ) -> None:
        """Build all environments, the reference's first, and ask each what it has.

        Args:
            days: The last one is the reference; the others have its Python if they can.
            entrants: That are asked for.
            builder: Of environments.
            tell: Says which day is a gap, and why.
        """
        reference = builder.environment(of_day(days[-1]), PYTHONS)
        self.ask(REFERENCE, reference, entrants)
        pythons = list(dict.fromkeys([reference.python, *PYTHONS]))
        stacks: dict[Any, str] = {}
        for day in days:
            name = str(day)
            builder.notify(f"the environment of {name}")
            try:
                found = builder.environment(of_day(day), pythons)
                stack = found.pins, found.python
                if stack not in stacks:
                    self.ask(name, found, entrants)
                    stacks[stack] = name
                self.named[name] = stacks[stack]
            except BakeoffError as error:
                self.gaps[name] = str(error)
                tell(f"{name}: {error}")

    def ask(self, name: str, environment: Environment, entrants: Sequence[str]) -> None:
        """Ask a side what it has."""
        start = time.monotonic()
        self.sides[name] = experiment.asked(environment, entrants)
        self.asking += time.monotonic() - start

    def cells(self, selection: Selection) -> dict[str, list[Cell]]:
        """Return the cells that the reference has, and each other side of these."""
        whole = experiment.selected(selection, {REFERENCE: self.sides[REFERENCE]})[REFERENCE]
        return {
            name: [c for c in whole if name == REFERENCE or side.gap(c.entrant, c.style) is None]
            for name, side in self.sides.items()
        }


def visited(history: History) -> dict[SeriesKey, Visits]:
    """Return what the visits of each cell and metric found, by index of day."""
    sweeps, out = swept(history), {}
    for cell, metric in product(history.cells[REFERENCE], history.metrics):
        logs = np.full((len(history.days), sweeps), np.nan)
        for index, day in enumerate(history.days):
            values = defaultdict(list)
            for sweep, value in logs_by_sweep(history, day, cell, metric):
                values[sweep].append(value)
            for sweep in range(sweeps):
                if values[sweep + 1]:
                    logs[index, sweep] = np.mean(values[sweep + 1])
        if not np.isnan(logs).all():
            out[SeriesKey.of(cell, metric)] = visits(logs)
    return {key: out[key] for key in sorted(out, key=order)}


def swept(history: History) -> int:
    """Return the number of sweeps."""
    return max((sweep for sweep, _ in history.visits), default=0)


def logs_by_sweep(
    history: History, day: str, cell: Cell, metric: str
) -> Iterator[tuple[int, float]]:
    """Yield the log-ratios of a day's cell to the reference, each with its sweep.

    Warm metrics are relative to the reference's same cell, block by block; cold ones to the
    reference's baseline in the same visit, so that their level means nothing, but their changes do.
    """
    row = history.sides[day].state.cells.get(cell)
    if row is None or row.failure is not None:
        return
    blocks, warm = row.blocks.get(metric, []), METRICS[metric].kind is Kind.WARM
    reference = history.sides[REFERENCE].state.cells.get(cell if warm else cell.baseline)
    theirs = reference.blocks.get(metric, []) if reference else []
    if warm:
        for pair, value in log_ratios(theirs, blocks):
            yield history.visit_of[pair][0], value
        return
    beside = defaultdict(list)
    for block in theirs:
        beside[history.visit_of[block.number]].append(math.log(block.values[0]))
    for block in blocks:
        visit = history.visit_of[block.number]
        if visit in beside:
            yield visit[0], math.log(block.values[0]) - float(np.mean(beside[visit]))


def changed(found: Mapping[SeriesKey, Visits]) -> list[SeriesChange]:
    """Return the changes of all series, the largest first; any false one with odds of 5 %."""
    known = {key: each.points() for key, each in found.items() if each.tells_changes}
    return sorted(windows.changes(known, floor=2), key=lambda change: -abs(math.log(change.ratio)))


def history_data(history: History, made: Stacks, **about: Any) -> HistoryFile:
    """Return the content of `history.json`, once the schedule has come to its end.

    `about` are the fields that say what was asked for.
    """
    found, sides = visited(history), made.sides
    stacks = list(history.days)
    data = HistoryFile(
        **about,
        reference_versions=sides[REFERENCE].offer.versions,
        when=datetime.datetime.now(datetime.UTC).isoformat()[:19],
        machine=this_machine(),
        warnings=[*experiment.doubts(history, sides, REFERENCE), *unlike(found, stacks)],
        days=days_data(history, made),
        stacks=stacks,
        sweeps=swept(history),
        plan=history.plan,
        comparisons=windows.comparisons([v.days.size for v in found.values() if v.tells_changes]),
        series=[series_data(key, each, history) for key, each in found.items()],
        exact=exact_series(history),
        changes=[change_data(change, stacks) for change in changed(found)],
        spent=HistoryTime(
            wall_seconds=history.spent.wall,
            sampling_seconds=history.spent.sampling,
            processes=history.spent.processes,
        ),
    )
    data.sentences = list(trends.sentences(timeline(data)))
    return data


def days_data(history: History, made: Stacks) -> list[Day]:
    """Return the days, in their order: what the stack of each is, or why it has none."""
    days = [Day(day=day, missing=why) for day, why in made.gaps.items()]
    for day, stack in made.named.items():
        side = made.sides[stack]
        found = Day(
            day=day,
            stack=stack,
            versions=side.offer.versions,
            python=side.environment.python,
            gaps=day_gaps(stack, history, side),
        )
        days.append(found)
    return sorted(days, key=lambda day: day.day)


def this_machine() -> str:
    """Return the name of this machine's processor, and the number of its cores."""
    name = processor_model(pytest_benchmark_generate_machine_info()) or "an unknown processor"
    return f"{name}, {len(affinity() or []) or os.cpu_count() or 1} cores"


def unlike(found: Mapping[SeriesKey, Visits], days: Sequence[str]) -> Iterator[str]:
    """Yield the days whose visits differ by more than those of other days, in sentences."""
    for key, each in found.items():
        if each.unlike:
            yield (
                f"Visits of {key.entrant} {key.style} differ by far more than on other days in "
                f"{key.metric} at {key.workload} on {', '.join(days[d] for d in each.unlike)}: "
                "changes there are less certain than p says."
            )


def day_gaps(stack: str, history: History, side: Offered) -> dict[str, str]:
    """Return the cells of the reference that a stack lacks or that failed there, and why."""
    state = history.sides[stack].state
    out = {}
    for cell in history.cells[REFERENCE]:
        name = f"{cell.entrant} {cell.style}"
        if cell not in state.cells:
            library = side.environment.gaps.get(trends.distribution(cell.entrant))
            out[name] = library or side.gap(cell.entrant, cell.style) or "not offered"
        elif state.cells[cell].failure is not None:
            out[f"{name} {cell.workload}"] = str(state.cells[cell].failure)
    return out


def series_data(key: SeriesKey, found: Visits, history: History) -> RatioSeries:
    """Return a series as `history.json` has it, its ratios to the last day that it has."""
    last = found.days[-1]
    logs = found.mean - found.mean[last]
    half = np.full(logs.size, np.nan)
    if found.df > 0:
        error = np.hypot(found.error(), found.error()[last])
        half = special.stdtrit(found.df, 0.975) * error
    half[last] = np.nan  # the others are relative to it
    rows = [history.sides[day].state.cells.get(key.cell) for day in history.days]
    samples = [[] if row is None or row.failure else row.values(key.metric) for row in rows]
    return RatioSeries(
        **key.cell.facts,
        metric=key.metric,
        unit=key.unit,
        ratio=[number(v) for v in np.exp(logs).tolist()],
        low=[number(v) for v in np.exp(logs - half).tolist()],
        high=[number(v) for v in np.exp(logs + half).tolist()],
        visits=found.visits.astype(int).tolist(),
        median=[float(np.median(values)) if values else None for values in samples],
        sd_of_visit=number(found.sd),
        df=found.df,
    )


def exact_series(history: History) -> list[ExactSeries]:
    """Return the exact metrics that are not the same on all days, day by day."""
    out = []
    for cell in history.cells[REFERENCE]:
        rows = [history.sides[day].state.cells.get(cell) for day in history.days]
        for metric in EXACT:
            values = [row.exact.get(metric) if row is not None else None for row in rows]
            if len({value for value in values if value is not None}) > 1:
                out.append(ExactSeries(**cell.facts, metric=metric, value=values))
    return out


def change_data(change: SeriesChange, stacks: Sequence[str]) -> Change:
    """Return a change as `history.json` has it."""
    return Change(
        **change.key.cell.facts,
        metric=change.key.metric,
        before=stacks[change.before],
        after=stacks[change.after],
        **{name: getattr(change, name) for name in SeriesChange._fields[3:]},
    )


def runs_of(history: History, made: Stacks, data: HistoryFile, margin: float) -> dict[str, RunFile]:
    """Return the run of each stack as an ordinary run file has it, by name of side."""
    plan = PlanOfRun(margin=margin, seed=data.seed, budget_seconds=history.options.budget)
    return {
        name: run_data(
            history.sides[name].state,
            {cell: set(history.metrics) for cell in history.cells[name]},
            made.sides[name].offer,
            plan=plan,
            arguments=data.arguments,
            history={"stack": name, "reference": data.reference},
        )
        for name in (*history.days, REFERENCE)
    }
