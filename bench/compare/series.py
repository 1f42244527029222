"""The series of a history over its days, their changes, and sentences about these."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from bench.cells import BASELINE, Cell
from bench.compare.pairs import log_ratios
from bench.engine.sides_plan import REFERENCE
from bench.metrics import METRICS, Kind
from bench.stats.changes import Points, changes, points
from bench.summary import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.engine.sides_plan import History
    from bench.engine.state import State
    from bench.stats.changes import Change as LogChange

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
SHARED = ("python", "jax", "jaxlib", "numpy", "optax")
"""Distributions that are in every entrant's times."""


class Key(NamedTuple):
    """The cell and metric of a series."""

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

    def as_data(self) -> dict[str, Any]:
        """Return the change as `history.json` has it."""
        data = self._asdict()
        key = data.pop("key")
        return {**key.cell._asdict(), "metric": key.metric, **data}


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
        Change(key, days[c.before], days[c.after], c.width, *ratios(c), c.p)
        for key, each in zip(found, changes(list(found.values()), ALPHA), strict=True)
        for c in each
    ]
    return sorted(out, key=lambda c: -abs(math.log(c.ratio)))


def ratios(change: LogChange) -> tuple[float, float, float]:
    """Return the ratio of a change, with the ends of its interval."""
    return math.exp(change.log_ratio), math.exp(change.low), math.exp(change.high)


def as_data(key: Key, points: Points, medians: Sequence[float | None]) -> dict[str, Any]:
    """Return a series as `history.json` has it, its ratios to the last day that it has.

    Args:
        key: Its cell and metric.
        points: By index of day.
        medians: Of all samples of each day, in the metric's unit.
    """
    have = np.flatnonzero(~np.isnan(points.mean))
    logs = points.mean - points.mean[have[-1]]
    half = np.full(logs.size, np.nan)
    if points.df > 0:
        error = np.hypot(points.error(), points.error()[have[-1]])
        half = special.stdtrit(points.df, 0.975) * error
    half[have[-1]] = np.nan  # the others are relative to it
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
    """Return the changes as sentences, one for all entrants that changed alike.

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
    for (metric, workload, before, after, width, _), several in groups.items():
        names = [f"{c.key.cell.entrant} {c.key.cell.style}" for c in several]
        interval = (several[0].low, several[0].high) if len(several) == 1 else None
        libraries = dict.fromkeys([*SHARED, *(library[c.key.cell.entrant] for c in several)])
        old, new = versions[before], versions[after]
        both = [name for name in libraries if name in old and name in new]
        moved = [f"{name} {old[name]} → {new[name]}" for name in both if old[name] != new[name]]
        causes = ", ".join(moved) or "none of these libraries changed"
        if width > 1:
            causes += f"; by the means of {width} days before and after"
        out.append(
            f"{CALLED.get(metric, metric).capitalize()} of {workload} "
            f"{growth([c.ratio for c in several], interval)} between {before} and {after} "
            f"({causes}): {', '.join(names)}."
        )
    return out


def growth(ratios: Sequence[float], interval: tuple[float, float] | None = None) -> str:
    """Return by how much a cost rose or fell.

    Examples: `rose by 30 % (20–41 %)`, `rose to 2.1–2.4 times`, `fell by 99.3 %`.

    Args:
        ratios: Of the later to the earlier cost, all above 1 or all below.
        interval: Of the only ratio.
    """
    low, high = min(ratios), max(ratios)
    verb, unit, amount = "rose by", " %", percent
    if low >= 2:
        verb, unit, amount = "rose to", " times", "{:.3g}".format
    elif low < 1:
        verb = "fell by"

    def span(ends: tuple[float, float]) -> str:
        ordered = reversed(ends) if low < 1 else ends
        return "–".join(dict.fromkeys(map(amount, ordered))) + unit

    return f"{verb} {span((low, high))}" + (f" ({span(interval)})" if interval else "")


def percent(ratio: float) -> str:
    """Return the difference of a ratio from 1 in per cent; two digits of it, or of what is left."""
    value = 100 * abs(ratio - 1)
    least = min(value, 100 - value) if ratio < 1 else value
    digits = 1 - math.floor(math.log10(least)) if least > 0 else 0
    return f"{value:.{max(0, digits)}f}"


def times(ratio: float) -> str:
    """Return a ratio as it is read: two digits at least."""
    return f"{ratio:.{3 if ratio < 0.1 else 2 if ratio < 10 else 1}f}×"
