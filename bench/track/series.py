"""From what a history measured to series over its days, their changes, and words for these."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from bench.cells import BASELINE, Cell
from bench.engine.sides_plan import REFERENCE
from bench.metrics import METRICS, Kind
from bench.stats.changes import Points, changes, points
from bench.summary import number
from bench.track.paired import log_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.engine.sides_plan import History
    from bench.engine.state import State

ALPHA = 0.05
"""Odds of any false change in a history."""
CALLED = {
    "step": "a step",
    "host_cost": "a call at a tiny size",
    "host_cost_pipelined": "a call in a row of calls",
    "import": "import time",
    "init": "initialisation",
    "trace": "tracing",
    "lower": "lowering",
    "compile": "compile time",
    "first_step": "the first step",
    "peak_rss": "peak memory",
}
SLOWER, FASTER = "rose", "fell to"
SHARED = ("python", "jax", "jaxlib", "numpy", "optax")
"""Distributions that are in every entrant's times."""


class Key(NamedTuple):
    """What a series is about."""

    cell: Cell
    metric: str


class Change(NamedTuple):
    """A change between two days that follow each other, or between those before and after."""

    key: Key
    before: str
    after: str
    width: int
    """Days on either side whose means were compared."""
    ratio: float
    low: float
    high: float
    p: float


def measured(history: History) -> dict[Key, Points]:
    """Return the points of each cell and metric, by index of day.

    Warm metrics are log-ratios to the reference's same cell, block by block; cold ones to the
    reference's baseline in the same visit, so that their level means nothing, but their changes do.
    """
    reference = history.sides[REFERENCE].state
    sweeps = max((sweep for sweep, _ in history.visits), default=0)
    beside = reference_cold(history, reference)
    found: dict[Key, np.ndarray] = {}
    for index, day in enumerate(history.days):
        for cell in history.cells[day]:
            row = history.sides[day].state.cells[cell]
            if row.failure is not None:
                continue
            for metric, blocks in row.blocks.items():
                if metric not in history.metrics:
                    continue
                by_sweep: dict[int, list[float]] = defaultdict(list)
                if METRICS[metric].kind is Kind.WARM:
                    theirs = reference.cells.get(cell)
                    data = log_ratios(theirs.blocks.get(metric, []) if theirs else [], blocks)
                    for pair, value in data.values():
                        by_sweep[history.visit_of[pair][0]].append(value)
                else:
                    for block in blocks:
                        sweep, _ = history.visit_of[block.number]
                        base = beside.get((metric, cell.workload, sweep, day))
                        if base is not None:
                            by_sweep[sweep].append(math.log(block.values[0]) - base)
                empty = np.full((len(history.days), sweeps), np.nan)
                logs = found.setdefault(Key(cell, metric), empty)
                for sweep, values in by_sweep.items():
                    if sweep <= sweeps:
                        logs[index, sweep - 1] = np.mean(values)
    order = {name: i for i, name in enumerate(METRICS)}
    keys = sorted(found, key=lambda key: (order[key.metric], key.cell.workload, key.cell))
    return {key: points(found[key]) for key in keys if not np.isnan(found[key]).all()}


def reference_cold(history: History, reference: State) -> dict[tuple[str, str, int, str], float]:
    """Return the reference's baseline in each visit: the mean logarithm of its cold processes."""
    values: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for cell, row in reference.cells.items():
        for metric, blocks in row.blocks.items():
            if cell[:2] == BASELINE and METRICS[metric].kind is Kind.COLD:
                for block in blocks:
                    sweep, day = history.visit_of[block.number]
                    value = math.log(block.values[0])
                    values[metric, cell.workload, sweep, day].append(value)
    return {key: float(np.mean(each)) for key, each in values.items()}


def changed(found: Mapping[Key, Points], days: Sequence[str]) -> list[Change]:
    """Return the changes of all series, the largest first; any false one with odds `ALPHA`."""
    out = [
        Change(
            key,
            days[c.before],
            days[c.after],
            c.width,
            math.exp(c.log_ratio),
            math.exp(c.low),
            math.exp(c.high),
            c.p,
        )
        for key, each in zip(found, changes(list(found.values()), ALPHA), strict=True)
        for c in each
    ]
    return sorted(out, key=lambda c: -abs(math.log(c.ratio)))


def as_data(key: Key, points: Points, medians: Sequence[float | None]) -> dict[str, Any]:
    """Return a series as JSON has it, its ratios to the last day that it has.

    Args:
        key: What it is about.
        points: By index of day.
        medians: Of all samples of a day, in the metric's unit: as the machine was at that time.
    """
    have = np.flatnonzero(~np.isnan(points.mean))
    logs = points.mean - points.mean[have[-1]]
    half = np.full(logs.size, np.nan)
    if points.df > 0:
        error = np.hypot(points.error(), points.error()[have[-1]])
        half = special.stdtrit(points.df, 0.975) * error
    half[have[-1]] = np.nan  # it is what the others are relative to
    return {
        **key.cell._asdict(),
        "metric": key.metric,
        "unit": METRICS[key.metric].unit,
        "ratio": [number(v) for v in np.exp(logs).tolist()],
        "low": [number(v) for v in np.exp(logs - half).tolist()],
        "high": [number(v) for v in np.exp(logs + half).tolist()],
        "visits": points.visits.astype(int).tolist(),
        "median": list(medians),
        "sd_of_visit": number(points.sd),
        "df": points.df,
    }


def sentences(
    found: Sequence[Change], versions: Mapping[str, Mapping[str, str]], library: Mapping[str, str]
) -> list[str]:
    """Return what changed, in words: entrants that changed alike in one sentence.

    Args:
        found: The changes, the largest first.
        versions: Of each day.
        library: The distribution of each entrant.
    """
    groups: dict[tuple[str, str, str, str, int, bool], list[Change]] = defaultdict(list)
    for change in found:
        where = (change.key.metric, change.key.cell.workload, change.before, change.after)
        groups[*where, change.width, change.ratio > 1].append(change)
    out = []
    for (metric, workload, before, after, width, slower), several in groups.items():
        names = [f"{c.key.cell.entrant} {c.key.cell.style}" for c in several]
        low, high = min(c.ratio for c in several), max(c.ratio for c in several)
        span = times(low) if times(low) == times(high) else f"{times(low)} to {times(high)}"
        if len(several) == 1:
            span += f" ({times(several[0].low)} to {times(several[0].high)})"
        libraries = dict.fromkeys([*SHARED, *(library[c.key.cell.entrant] for c in several)])
        moved = [
            f"{name} {versions[before][name]} → {versions[after][name]}"
            for name in libraries
            if name in versions[before]
            and name in versions[after]
            and versions[before][name] != versions[after][name]
        ]
        between = ", ".join(moved) or "nothing that is known to matter has moved"
        if width > 1:
            between += f"; by the means of {width} days before and after"
        out.append(
            f"{CALLED.get(metric, metric).capitalize()} of {workload} "
            f"{SLOWER if slower else FASTER} {span} between {before} and {after} "
            f"({between}): {', '.join(names)}."
        )
    return out


def times(ratio: float) -> str:
    """Return a ratio as it is read: two digits at least."""
    return f"{ratio:.{3 if ratio < 0.1 else 2 if ratio < 10 else 1}f}×"
