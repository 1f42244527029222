"""Series over time: of the runs of one machine, or of the stacks of a history; and their changes.

A point of a series is a ratio to a baseline with its interval, or an amount where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from bench.cells import BASELINE, Cell
from bench.metrics import EXACT, METRICS
from bench.report import wording
from bench.report.table import RATIO, Value
from bench.runfile.reader import TIME
from bench.stats import windows
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Float, Int

ALPHA = 0.05
"""Odds of any false change among all series that are looked at together."""
VERDICTS = tuple(map(str, Verdict))
"""As points number them."""
FAILURE = "failure"
"""In place of a metric, where a cell failed and has none."""
ORDER = (TIME, *METRICS, *EXACT)
"""Of metrics."""


class SeriesKey(NamedTuple):
    """What the points of a series have in common."""

    machine: str
    """Empty in a history, which is of one machine."""
    entrant: str
    style: str
    workload: str
    backend: str
    metric: str
    unit: str
    exact: bool
    devices: int = 0
    weak: bool = False

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(self._asdict())

    @property
    def cell(self) -> Cell:
        """What is measured."""
        return Cell.of(self._asdict())


class Numbers(NamedTuple):
    """A point; NaN where a number is not known."""

    median: float
    ratio: float = math.nan
    low: float = math.nan
    """Ends of the 95 % interval of the ratio."""
    high: float = math.nan
    standard_error: float = math.nan
    """Of the ratio's logarithm."""
    df: float = math.nan
    p: float = math.nan
    verdict: float = math.nan
    """Its place in `VERDICTS`."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A run of a project, or a day of a history."""

    name: str
    at: str
    """Year to second, UTC."""
    versions: dict[str, str] = {}
    path: str = ""
    """Of the run's file."""
    revision: str = ""
    dirty: bool = False
    margin: float = 0.02
    """Inside of which, as a fraction, two times are equivalent."""


@dataclass(frozen=True, eq=False)
class Series:
    """A metric of a cell over time."""

    key: SeriesKey
    at: Int[np.ndarray, " points"]
    """Which of the moments the points are of, the oldest first."""
    numbers: Float[np.ndarray, "points numbers"]
    """The `Numbers` of each point."""
    gaps: Mapping[int, str] = field(default_factory=dict)
    """Moments that have no number, and why."""

    def column(self, name: str) -> Float[np.ndarray, " points"]:
        """Return one of the `Numbers` of all points."""
        return self.numbers[:, Numbers._fields.index(name)]

    @property
    def compared(self) -> bool:
        """Whether it has ratios to a baseline."""
        return bool(np.isfinite(self.column("ratio")).any())

    @property
    def values(self) -> Float[np.ndarray, " points"]:
        """The values that are shown: ratios where it has them, or else medians."""
        return self.column("ratio" if self.compared else "median")

    def value(self, point: int) -> Value:
        """Return a point as a table has it."""
        found = self.record(point)
        if not self.compared:
            return Value(found["median"], self.key.unit)
        return Value(found["ratio"], RATIO, found["low"], found["high"], found["verdict"] or "")

    def amount(self, value: float) -> Value:
        """Return one of `values`, without its interval."""
        return Value(float(value), RATIO if self.compared else self.key.unit)

    def record(self, point: int) -> dict[str, Any]:
        """Return all `Numbers` of a point, None for what is not known."""
        known = [None if math.isnan(number) else number for number in self.numbers[point].tolist()]
        found = dict(zip(Numbers._fields, known, strict=True))
        verdict = found["verdict"]
        return found | {"verdict": None if verdict is None else VERDICTS[int(verdict)]}


class Move(NamedTuple):
    """An exact metric that is another number at the next moment, which needs no test."""

    key: SeriesKey
    before: int
    """Of the moments."""
    after: int
    values: tuple[float, float]


class SeriesChange(NamedTuple):
    """A difference between neighbours of a series, or the means on either side, by a test."""

    key: SeriesKey
    before: int
    """The moment of the last point before the change."""
    after: int
    """The moment of the first point after it."""
    ratio: float
    """Of the later to the earlier."""
    low: float
    """Ends of the 95 % interval, not corrected for other comparisons."""
    high: float
    p: float
    """Of no change, corrected for the number of comparisons."""
    width: int = 1
    """Points on either side whose means were compared."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Series over the same moments."""

    name: str
    """Of the machine."""
    moments: tuple[Moment, ...]
    """The oldest first."""
    series: tuple[Series, ...]
    moves: tuple[Move, ...] = ()
    changes: tuple[SeriesChange, ...] = ()
    """In the order in which they are told."""
    base: str = BASELINE[0]
    """What ratios are relative to."""


def changes(
    series: Mapping[SeriesKey, tuple[Int[np.ndarray, " points"], windows.Points]], floor: int = 1
) -> list[SeriesChange]:
    """Return where series change, with any false one among all of them with odds `ALPHA`.

    Args:
        series: The moments of each series' points, and what is known of these.
        floor: The width from which on errors are at least what most differences come to.
    """
    found = windows.steps([points for _, points in series.values()], ALPHA, floor=floor)
    return [
        SeriesChange(
            key,
            before=int(at[step.first - 1]),
            after=int(at[step.first]),
            ratio=math.exp(step.log_ratio),
            low=math.exp(step.low),
            high=math.exp(step.high),
            p=step.p,
            width=step.width,
        )
        for (key, (at, _)), steps in zip(series.items(), found, strict=True)
        for step in steps
    ]


def moves(series: Series) -> Iterator[Move]:
    """Yield where an exact metric changed between neighbours."""
    known = np.flatnonzero(~np.isnan(series.column("median"))).tolist()
    for first, second in pairwise(known):
        old, new = series.numbers[[first, second], 0].tolist()
        if old != new:
            yield Move(series.key, int(series.at[first]), int(series.at[second]), (old, new))


def order(key: SeriesKey) -> tuple[Any, ...]:
    """Return what sorts series: by metric, backend and size, the baseline first."""
    return (
        *(ORDER.index(key.metric) if key.metric in ORDER else len(ORDER), key.metric),
        *(key.backend, wording.size(key.workload), key.workload),
        *(key.entrant != BASELINE[0], key.entrant, key.style != BASELINE[1], key.style),
        *(key.devices, key.weak),
    )
