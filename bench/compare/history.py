"""A history: the stacks of many days, each visited in turns with the newest one.

Its data are `history.json`; a run file of each stack lies beside it.
"""

from __future__ import annotations

import datetime
import math
import os
import re
import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from bench.cells import Cell
from bench.compare import trends
from bench.compare.series import (
    ALPHA,
    Moment,
    Move,
    Numbers,
    Series,
    SeriesChange,
    SeriesKey,
    Timeline,
    changes,
    moves,
    order,
)
from bench.engine.sides_plan import REFERENCE
from bench.metrics import EXACT, METRICS, Kind
from bench.report.table import Document, Section, Table, percent
from bench.stats import windows
from bench.stats.visits import Visits, visits
from bench.summary import number
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.compare.experiment import Offered
    from bench.engine.sides_plan import History
    from bench.report.wording import Facts

SCHEMA = 1
NAME = "history.json"
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
    first = datetime.date(months // 12, months % 12 + 1, 1)
    following = (first + datetime.timedelta(32)).replace(day=1)
    return first.replace(day=min(day.day, (following - first).days))


def visited(history: History) -> dict[SeriesKey, Visits]:
    """Return what the visits of each cell and metric found, by index of day.

    Warm metrics are log-ratios to the reference's same cell, block by block; cold ones to the
    reference's baseline in the same visit, so that their level means nothing, but their changes do.
    """
    sweeps = max((sweep for sweep, _ in history.visits), default=0)
    beside = reference_cold(history)
    found: dict[SeriesKey, np.ndarray] = {}
    for index, day in enumerate(history.days):
        for cell in history.cells[day]:
            row = history.sides[day].state.cells[cell]
            if row.failure is not None:
                continue
            for metric in row.blocks:
                if metric not in history.metrics:
                    continue
                empty = np.full((len(history.days), sweeps), np.nan)
                logs = found.setdefault(key_of(cell, metric), empty)
                for sweep, values in logs_by_sweep(history, day, cell, metric, beside).items():
                    if sweep <= sweeps:
                        logs[index, sweep - 1] = np.mean(values)
    keys = sorted((k for k, logs in found.items() if not np.isnan(logs).all()), key=order)
    return {key: visits(found[key]) for key in keys}


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
) -> dict[int, list[float]]:
    """Return the log-ratios of a day's cell to the reference, by sweep."""
    from bench.compare.pairs import log_ratios

    reference = history.sides[REFERENCE].state
    blocks = history.sides[day].state.cells[cell].blocks[metric]
    found: dict[int, list[float]] = defaultdict(list)
    if METRICS[metric].kind is Kind.WARM:
        theirs = reference.cells.get(cell)
        data = log_ratios(theirs.blocks.get(metric, []) if theirs else [], blocks)
        for pair, value in data.values():
            found[history.visit_of[pair][0]].append(value)
        return found
    for block in blocks:
        sweep, _ = history.visit_of[block.number]
        base = beside.get((metric, cell.workload, sweep, day))
        if base is not None:
            found[sweep].append(math.log(block.values[0]) - base)
    return found


def reference_cold(history: History) -> dict[tuple[str, str, int, str], float]:
    """Return the reference's baseline in each visit: the mean logarithm of its cold processes."""
    values: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for cell, row in history.sides[REFERENCE].state.cells.items():
        for metric, blocks in row.blocks.items():
            if cell.is_baseline and METRICS[metric].kind is Kind.COLD:
                for block in blocks:
                    sweep, day = history.visit_of[block.number]
                    value = math.log(block.values[0])
                    values[metric, cell.workload, sweep, day].append(value)
    return {key: float(np.mean(each)) for key, each in values.items()}


def changed(found: Mapping[SeriesKey, Visits]) -> list[SeriesChange]:
    """Return the changes of all series, the largest first; any false one with odds `ALPHA`."""
    known = {key: (v.days, v.points()) for key, v in found.items() if v.tells_changes}
    return sorted(changes(known, floor=2), key=lambda change: -abs(math.log(change.ratio)))


def history_data(
    history: History,
    sides: Mapping[str, Offered],
    named: Mapping[str, str],
    gaps: Mapping[str, str],
    **about: Any,
) -> Facts:
    """Return the content of `history.json`.

    Args:
        history: The schedule, after its end.
        sides: By name of side.
        named: The side of each day, in the order of time: two days of one stack share theirs.
        gaps: Days that could not be built, and why.
        about: Further entries: options and conditions.
    """
    found = visited(history)
    stacks = list(history.days)
    versions = {stack: sides[stack].offer.versions for stack in stacks}
    sizes = [each.days.size for each in found.values() if each.tells_changes]
    data = {
        "kind": "history",
        "schema": SCHEMA,
        **about,
        "machine": this_machine(),
        "warnings": [*warnings(history, sides), *unlike(found, stacks)],
        "days": [
            {
                "day": day,
                "stack": stack,
                "versions": versions.get(stack, {}),
                "python": sides[stack].environment.python if stack in sides else None,
                "gaps": day_gaps(stack, history, sides) if stack in sides else {},
                "missing": gaps.get(day),
            }
            for day, stack in sorted({**named, **dict.fromkeys(gaps, "")}.items())
        ],
        "stacks": stacks,
        "sweeps": max((sweep for sweep, _ in history.visits), default=0),
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
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    from bench.runfile.reader import processor_model
    from bench.worker.settings import affinity

    name = processor_model(pytest_benchmark_generate_machine_info()) or "an unknown processor"
    return f"{name}, {len(affinity() or []) or os.cpu_count() or 1} cores"


def warnings(history: History, sides: Mapping[str, Offered]) -> list[str]:
    """Return reasons to doubt, in sentences."""
    from bench.watch import machine

    notes = [f"{name}: {note}" for name, side in history.sides.items() for note in side.state.notes]
    pythons = sorted({side.environment.python for side in sides.values()})
    if len(pythons) > 1:
        notes.append(f"Days run on different Pythons ({', '.join(pythons)}): no one fits all.")
    return [*notes, *filter(None, machine(history.spent, sides[REFERENCE].offer.conditions))]


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


def write_files(
    folder: Path,
    history: History,
    sides: Mapping[str, Offered],
    data: Facts,
    margin: float,
) -> None:
    """Write each stack's run and `history.json` into a new folder.

    Raises:
        BakeoffError: the folder, or a file, cannot be written.
    """
    from bench.runfile.writer import new_folder, run_data, write

    new_folder(folder, "output")
    for name in (*history.days, REFERENCE):
        run = run_data(
            history.sides[name].state,
            {cell: set(history.metrics) for cell in history.cells[name]},
            sides[name].offer,
            margin=margin,
            arguments=data["arguments"],
            plan={"seed": data["seed"], "budget_seconds": history.options.budget},
            history={"stack": name, "reference": data["reference"]},
        )
        write(folder / f"{name}.json", run)
    write(folder / NAME, data)


def timeline(data: Facts) -> Timeline:
    """Return the series of a history, as `history.json` has them."""
    stacks = data["stacks"]
    versions = {day["stack"]: day["versions"] for day in data["days"]}
    series = sorted(map(series_of, data["series"]), key=lambda each: order(each.key))
    exact = [series_of(each) for each in data["exact"]]
    return Timeline(
        name="",
        moments=tuple(Moment(day, f"{day}T12:00:00", versions.get(day, {})) for day in stacks),
        series=tuple(series),
        moves=moves_of(exact),
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
    exact = "value" in data
    names = ("value",) if exact else ("median", "ratio", "low", "high")
    columns = np.array([data[name] for name in names], float)
    have = np.flatnonzero(~np.isnan(columns[names.index("value" if exact else "ratio")]))
    numbers = np.full((have.size, len(Numbers._fields)), np.nan)
    numbers[:, : len(names)] = columns[:, have].T
    return Series(key_of(Cell.of(data), data["metric"]), have, numbers)


def moves_of(exact: Sequence[Series]) -> tuple[Move, ...]:
    """Return where exact metrics changed, the newest first."""
    found = [move for series in exact for move in moves(series)]
    return tuple(sorted(found, key=lambda move: -move.after))


def document(data: Facts, *, figures: bool = False) -> Document:
    """Return what a history says.

    Args:
        data: The content of `history.json`.
        figures: Whether it is for a page, which has charts.
    """
    found = timeline(data)
    count = len(list(trends.sentences(found)))
    spent = data["spent"]
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
            Section("Days", tables=(days_table(data),), folded=True),
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


def days_table(data: Facts) -> Table:
    """Return the versions of each day, and what it lacks."""
    rows = [(day["day"], day["versions"], lacks(day)) for day in data["days"]]
    return trends.versions_table(rows, "The days, and what they lack", folded=False)


def lacks(day: Facts) -> str:
    """Return what a day lacks, in words."""
    if day["missing"]:
        return f"could not be built: {day['missing']}"
    same: dict[str, list[str]] = {}
    for name, why in day["gaps"].items():
        same.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in same.items())
