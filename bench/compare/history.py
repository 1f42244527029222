"""A history: the stacks of many days, each visited in turns with the newest one.

Its data are `history.json`; a run file of each stack lies beside it.
"""

from __future__ import annotations

import calendar
import datetime
import math
import os
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from scipy import special

from bench.cells import Cell
from bench.compare import experiment, trends, windows
from bench.compare.pairs import log_ratios
from bench.compare.series import (
    ALPHA,
    Moment,
    Point,
    Series,
    SeriesChange,
    SeriesKey,
    Timeline,
    changes,
    moves,
    order,
)
from bench.compare.visits import Visits, visits
from bench.engine.sides_plan import REFERENCE
from bench.environments.spec import of_day
from bench.environments.uv import PYTHONS
from bench.metrics import EXACT, METRICS, Kind
from bench.report.table import Document, Section, percent
from bench.runfile import PlanOfRun
from bench.runfile.reader import processor_model
from bench.runfile.section import number
from bench.runfile.writer import run_data
from bench.worker.settings import affinity
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cells import Selection
    from bench.compare.experiment import Offered
    from bench.engine.sides_plan import History
    from bench.environments.builder import Builder, Environment
    from bench.runfile import RunFile

    type Facts = dict[str, Any]
    """What `history.json` holds."""

SCHEMA = 1
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
    while len(days) <= MOST_DAYS and (after := later(since, len(days) * count, unit)) < until:
        days.append(after)
    if len(days) > MOST_DAYS:
        raise BakeoffError(
            f"--every {every} gives more than {MOST_DAYS} days from {since} to {until}; give a "
            "longer step"
        )
    return [*days, until] if until > days[-1] else days


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

    tell: Callable[[str], None]
    """Says what is a gap, and why."""
    environments: dict[str, Environment] = field(default_factory=dict)
    sides: dict[str, Offered] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    """The side of each day: two days of one stack share theirs."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Days without a side, and why."""

    def build(self, days: Sequence[datetime.date], builder: Builder) -> None:
        """Build the environments, the reference's first; the others have its Python if they can."""
        reference = self.environments[REFERENCE] = builder.environment(of_day(days[-1]), PYTHONS)
        pythons = dict.fromkeys([reference.python, *PYTHONS])
        stacks: dict[Any, str] = {}
        for day in days:
            name = str(day)
            builder.notify(f"the environment of {name}")
            try:
                found = builder.environment(of_day(day), list(pythons))
            except BakeoffError as error:
                self.gaps[name] = str(error)
                self.tell(f"{name}: {error}")
                continue
            self.named[name] = stacks.setdefault((found.pins, found.python), name)
            self.environments.setdefault(self.named[name], found)

    def ask(self, entrants: Sequence[str]) -> None:
        """Ask each side what it has; one that cannot be asked is a gap."""
        for name, environment in [*self.environments.items()]:
            try:
                self.sides[name] = experiment.asked(environment, entrants)
            except BakeoffError as error:
                if name == REFERENCE:
                    raise
                self.tell(str(error))
                del self.environments[name]
                days = [day for day, stack in self.named.items() if stack == name]
                self.gaps |= {day: str(error) for day in days if self.named.pop(day)}

    def cells(self, selection: Selection) -> dict[str, list[Cell]]:
        """Return the cells that the reference has, and each other side of these."""
        whole = experiment.selected(selection, {REFERENCE: self.sides[REFERENCE]})[REFERENCE]
        return {
            name: [c for c in whole if name == REFERENCE or side.gap(c.entrant, c.style) is None]
            for name, side in self.sides.items()
        }


def visited(history: History) -> dict[SeriesKey, Visits]:
    """Return what the visits of each cell and metric found, by index of day."""
    sweeps, beside = swept(history), reference_cold(history)
    found: dict[SeriesKey, dict[tuple[int, int], list[float]]] = {}
    for index, day in enumerate(history.days):
        for cell in history.cells[day]:
            row = history.sides[day].state.cells[cell]
            if row.failure is not None:
                continue
            for metric in history.metrics & row.blocks.keys():
                values = found.setdefault(key_of(cell, metric), defaultdict(list))
                for sweep, value in logs_by_sweep(history, day, cell, metric, beside):
                    if sweep <= sweeps:
                        values[index, sweep - 1].append(value)
    out = {}
    for key in sorted((key for key, values in found.items() if values), key=order):
        logs = np.full((len(history.days), sweeps), np.nan)
        for place, values_there in found[key].items():
            logs[place] = np.mean(values_there)
        out[key] = visits(logs)
    return out


def swept(history: History) -> int:
    """Return the number of sweeps."""
    return max((sweep for sweep, _ in history.visits), default=0)


def key_of(cell: Cell, metric: str) -> SeriesKey:
    """Return the key of a cell's series."""
    known = METRICS.get(metric) or EXACT.get(metric)
    unit = known.unit if known else ""
    return SeriesKey("", **vars(cell), metric=metric, unit=unit, exact=metric in EXACT)


def logs_by_sweep(
    history: History,
    day: str,
    cell: Cell,
    metric: str,
    beside: Mapping[tuple[str, str, int, str], float],
) -> Iterator[tuple[int, float]]:
    """Yield the log-ratios of a day's cell to the reference, each with its sweep.

    Warm metrics are relative to the reference's same cell, block by block; cold ones to the
    reference's baseline in the same visit, so that their level means nothing, but their changes do.
    """
    blocks = history.sides[day].state.cells[cell].blocks[metric]
    if METRICS[metric].kind is Kind.WARM:
        theirs = history.sides[REFERENCE].state.cells.get(cell)
        for pair, value in log_ratios(theirs.blocks.get(metric, []) if theirs else [], blocks):
            yield history.visit_of[pair][0], value
        return
    for block in blocks:
        sweep, _ = history.visit_of[block.number]
        base = beside.get((metric, cell.workload, sweep, day))
        if base is not None:
            yield sweep, math.log(block.values[0]) - base


def reference_cold(history: History) -> dict[tuple[str, str, int, str], float]:
    """Return the reference's baseline in each visit: the mean logarithm of its cold processes."""
    values: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for cell, row in history.sides[REFERENCE].state.cells.items():
        for metric, blocks in row.blocks.items():
            if cell.is_baseline and METRICS[metric].kind is Kind.COLD:
                for block in blocks:
                    visit = history.visit_of[block.number]
                    values[metric, cell.workload, *visit].append(math.log(block.values[0]))
    return {key: float(np.mean(each)) for key, each in values.items()}


def changed(found: Mapping[SeriesKey, Visits]) -> list[SeriesChange]:
    """Return the changes of all series, the largest first; any false one with odds `ALPHA`."""
    known = {key: (v.days, v.points()) for key, v in found.items() if v.tells_changes}
    return sorted(changes(known, floor=2), key=lambda change: -abs(math.log(change.ratio)))


def history_data(history: History, made: Stacks, **about: Any) -> Facts:
    """Return the content of `history.json`, once the schedule has come to its end.

    `about` are further entries: options and conditions.
    """
    found, sides = visited(history), made.sides
    stacks = list(history.days)
    sizes = [each.days.size for each in found.values() if each.tells_changes]
    data = {
        "kind": "history",
        "schema": SCHEMA,
        **about,
        "reference_versions": sides[REFERENCE].offer.versions,
        "when": datetime.datetime.now(datetime.UTC).isoformat()[:19],
        "machine": this_machine(),
        "warnings": [*experiment.doubts(history, sides, REFERENCE), *unlike(found, stacks)],
        "days": [
            {
                "day": day,
                "stack": stack,
                "versions": sides[stack].offer.versions if stack in sides else {},
                "python": sides[stack].environment.python if stack in sides else None,
                "gaps": day_gaps(stack, history, sides) if stack in sides else {},
                "missing": made.gaps.get(day),
            }
            for day, stack in sorted({**made.named, **dict.fromkeys(made.gaps, "")}.items())
        ],
        "stacks": stacks,
        "sweeps": swept(history),
        "plan": history.plan,
        "alpha": ALPHA,
        "comparisons": windows.comparisons(sizes),
        "series": [series_data(key, each, history) for key, each in found.items()],
        "exact": exact_series(history),
        "changes": [change_data(change, stacks) for change in changed(found)],
        "spent": {
            "wall_seconds": history.spent.wall,
            "sampling_seconds": history.spent.sampling,
            "processes": history.spent.processes,
        },
    }
    return data | {"sentences": list(trends.sentences(timeline(data)))}


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


def day_gaps(stack: str, history: History, sides: Mapping[str, Offered]) -> dict[str, str]:
    """Return the cells of the reference that a stack lacks or that failed there, and why."""
    state, side = history.sides[stack].state, sides[stack]
    out = {}
    for cell in history.cells[REFERENCE]:
        name = f"{cell.entrant} {cell.style}"
        if cell not in state.cells:
            library = side.environment.gaps.get(trends.distribution(cell.entrant))
            out[name] = library or side.gap(cell.entrant, cell.style) or "not offered"
        elif state.cells[cell].failure is not None:
            out[f"{name} {cell.workload}"] = str(state.cells[cell].failure)
    return out


def series_data(key: SeriesKey, found: Visits, history: History) -> Facts:
    """Return a series as `history.json` has it, its ratios to the last day that it has."""
    last = found.days[-1]
    logs = found.mean - found.mean[last]
    half = np.full(logs.size, np.nan)
    if found.df > 0:
        error = np.hypot(found.error(), found.error()[last])
        half = special.stdtrit(found.df, 0.975) * error
    half[last] = np.nan  # the others are relative to it
    cell = key.cell
    rows = [history.sides[day].state.cells.get(cell) for day in history.days]
    samples = [[] if row is None or row.failure else row.values(key.metric) for row in rows]
    return {
        **cell.facts,
        "metric": key.metric,
        "unit": key.unit,
        "ratio": [number(v) for v in np.exp(logs).tolist()],
        "low": [number(v) for v in np.exp(logs - half).tolist()],
        "high": [number(v) for v in np.exp(logs + half).tolist()],
        "visits": found.visits.astype(int).tolist(),
        "median": [float(np.median(values)) if values else None for values in samples],
        "sd_of_visit": number(found.sd),
        "df": found.df,
    }


def exact_series(history: History) -> list[Facts]:
    """Return the exact metrics that are not the same on all days, day by day."""
    out = []
    for cell in history.cells[REFERENCE]:
        rows = [history.sides[day].state.cells.get(cell) for day in history.days]
        for metric in EXACT:
            values = [row.exact.get(metric) if row is not None else None for row in rows]
            if len({value for value in values if value is not None}) > 1:
                out.append({**cell.facts, "metric": metric, "value": values})
    return out


def change_data(change: SeriesChange, stacks: Sequence[str]) -> Facts:
    """Return a change as `history.json` has it."""
    key, before, after, *_ = change
    found = {"metric": key.metric, "before": stacks[before], "after": stacks[after]}
    names = ("width", "ratio", "low", "high", "p")
    return {**key.cell.facts, **found, **{name: getattr(change, name) for name in names}}


def runs_of(history: History, made: Stacks, data: Facts, margin: float) -> dict[str, RunFile]:
    """Return the run of each stack as an ordinary run file has it, by name of side."""
    plan = PlanOfRun(margin=margin, seed=data["seed"], budget_seconds=history.options.budget)
    return {
        name: run_data(
            history.sides[name].state,
            {cell: set(history.metrics) for cell in history.cells[name]},
            made.sides[name].offer,
            plan=plan,
            arguments=data["arguments"],
            history={"stack": name, "reference": data["reference"]},
        )
        for name in (*history.days, REFERENCE)
    }


def timeline(data: Facts) -> Timeline:
    """Return the series of a history, as `history.json` has them."""
    stacks = data["stacks"]
    versions = {day["stack"]: day["versions"] for day in data["days"]}
    series = sorted(map(series_of, data["series"]), key=lambda each: order(each.key))
    return Timeline(
        name="",
        moments=tuple(Moment(day, f"{day}T12:00:00", versions.get(day, {})) for day in stacks),
        series=tuple(series),
        moves=moves(map(series_of, data["exact"])),
        changes=tuple(change_of(each, stacks) for each in data["changes"]),
        base="the newest day",
    )


def change_of(data: Facts, stacks: Sequence[str]) -> SeriesChange:
    """Return a change of `history.json`."""
    return SeriesChange(
        key_of(Cell.of(data), data["metric"]),
        before=stacks.index(data["before"]),
        after=stacks.index(data["after"]),
        **{name: data[name] for name in ("ratio", "low", "high", "p")},
        width=data.get("width", 1),
    )


def series_of(data: Facts) -> Series:
    """Return a series of `history.json`, of the days that have a value."""
    if "value" in data:
        points = [Point(value) for value in data["value"]]
    else:
        columns = [data[name] for name in ("median", "ratio", "low", "high")]
        points = [
            Point(*numbers) if numbers[1] else Point() for numbers in zip(*columns, strict=True)
        ]
    known = {at: point for at, point in enumerate(points) if point.known}
    return Series(key_of(Cell.of(data), data["metric"]), known)


def document(data: Facts, *, figures: bool = False) -> Document:
    """Return what a history says, given the content of `history.json`; with charts for a page."""
    found = timeline(data)
    count = len(list(trends.sentences(found)))
    spent = data["spent"]
    days = [(day["day"], day["versions"], lacks(day)) for day in data["days"]]
    lacking = trends.versions_table(days, "The days, and what they lack", folded=False)
    return Document(
        title=f"{data['since']} to {data['until']}: what became slower, and when",
        subtitle=(
            f"{len(data['stacks'])} stacks, every {data['every']}, measured {data['when'][:10]} on "
            f"{data['machine']} in turns with the stack of {data['reference']}"
        ),
        headline=headline(count, data["comparisons"]),
        warnings=tuple(data["warnings"]),
        sections=(
            *trends.sections(found, names="" if figures else None, folded=True),
            Section("Days", tables=(lacking,), folded=True),
        ),
        fine_print=(
            "A change is a difference between neighbouring days, or in a long history between the "
            "means of several days before and after, that remains after Holm's correction: the "
            f"odds of any false one are {percent(data['alpha'])}, as far as all days vary alike.",
            f"Days were visited in {data['sweeps']} sweeps, each in random order, in turns with a "
            "worker of the reference. Values are relative to the newest day.",
            f"It took {spent['wall_seconds']:.0f} s, {spent['sampling_seconds']:.0f} s of it for "
            f"samples, in {spent['processes']} processes; seed {data['seed']}.",
            f"To repeat it: `bakeoff {shlex.join(map(str, data['arguments']))}`",
        ),
    )


def headline(count: int, comparisons: int) -> str:
    """Return how many changes were found."""
    if not comparisons:
        return "Nothing could be tested: that takes two stacks, and two visits of each."
    found = trends.counted(count, "change") if count else "No change"
    return f"{found} found in {comparisons} comparisons."


def lacks(day: Facts) -> str:
    """Return what a day lacks, in words."""
    if day["missing"]:
        return f"could not be built: {day['missing']}"
    same: dict[str, list[str]] = {}
    for name, why in day["gaps"].items():
        same.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
