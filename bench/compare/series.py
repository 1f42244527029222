"""Series over time: of the runs of one machine, or of the stacks of a history; and their changes.

A point of a series is a ratio to a baseline with its interval, or an amount where there is none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from bench.cells import BASELINE, Cell
from bench.metrics import EXACT, METRICS
from bench.report import wording
from bench.report.table import RATIO, Value
from bench.runfile import MARGIN
from bench.runfile.reader import TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jaxtyping import Float, Int

FAILURE = "failure"
"""In place of a metric, where a cell failed and has none."""
DAY, MINUTE = 10, 16
"""Characters of a time that is a day, or a minute."""
ORDER = (TIME, *METRICS, *EXACT)
"""Of metrics."""
UNITS = {name: metric.unit for name, metric in (METRICS | EXACT).items()}


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

    @classmethod
    @cache  # thousands of runs have the same few series
    def of(
        cls, cell: Cell, metric: str, machine: str = "", unit: str = "", *, exact: bool = False
    ) -> Self:
        """Return the key of a metric of a cell, in its usual unit unless another one is given."""
        unit = unit or UNITS.get(metric, "")
        return cls(machine, **vars(cell), metric=metric, unit=unit, exact=exact)

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(self.cell)

    @property
    def cell(self) -> Cell:
        """What is measured."""
        return Cell.of(self._asdict())


class Point(NamedTuple):
    """A metric of a cell at one moment, as a run file has it; None for what is not known."""

    median: float | None = None
    """Or the exact number."""
    ratio: float | None = None
    low: float | None = None
    """Ends of the 95 % interval of the ratio."""
    high: float | None = None
    standard_error: float | None = None
    """Of the ratio's logarithm."""
    df: float | None = None
    p: float | None = None
    verdict: str | None = None
    missing: str | None = None
    """Why there is no number."""

    @property
    def known(self) -> bool:
        """Whether it has a number."""
        return self.median is not None or self.ratio is not None


@dataclass(frozen=True)
class Moment:
    """A run of a project, or a day of a history."""

    name: str
    at: str
    """Year to second, UTC."""
    versions: dict[str, str]
    path: str = ""
    """Of the run's file."""
    revision: str = ""
    dirty: bool = False
    margin: float = MARGIN
    """Inside of which, as a fraction, two times are equivalent."""
    points: Mapping[SeriesKey, Point] = field(default_factory=dict)
    """All that a run found; a history has its series alone."""


@dataclass(frozen=True, eq=False)
class Series:
    """A metric of a cell over time."""

    key: SeriesKey
    found: Mapping[int, Point]
    """By number of the moment, the oldest first."""

    @cached_property
    def points(self) -> list[Point]:
        """The points that have a number."""
        return [point for point in self.found.values() if point.known]

    @cached_property
    def at(self) -> Int[np.ndarray, " points"]:
        """Which of the moments these points are of."""
        return np.array([at for at, point in self.found.items() if point.known], int)

    def column(self, name: str) -> Float[np.ndarray, " points"]:
        """Return one of the numbers of all points, NaN for what is not known."""
        return np.array([getattr(point, name) for point in self.points], float)

    @cached_property
    def compared(self) -> bool:
        """Whether it has ratios to a baseline."""
        return any(point.ratio is not None for point in self.points)

    @cached_property
    def values(self) -> Float[np.ndarray, " points"]:
        """The values that are shown: ratios where it has them, or else medians."""
        return self.column("ratio" if self.compared else "median")

    def value(self, point: int) -> Value:
        """Return a point as a table has it."""
        found = self.points[point]
        if not self.compared:
            return Value(found.median, self.key.unit)
        return Value(found.ratio, RATIO, found.low, found.high, found.verdict or "")

    def amount(self, value: float) -> Value:
        """Return one of `values`, without its interval."""
        return Value(float(value), RATIO if self.compared else self.key.unit)


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

    @cached_property
    def times(self) -> list[str]:
        """When each moment was: the day, and the minute where a day has several."""
        days = Counter(moment.at[:DAY] for moment in self.moments)
        return [
            m.at[:DAY] if days[m.at[:DAY]] == 1 else m.at[:MINUTE].replace("T", " ")
            for m in self.moments
        ]

    @cached_property
    def releases(self) -> list[tuple[int, dict[str, tuple[str, str]]]]:
        """The moments at which versions changed, and which did."""
        having = [(i, moment.versions) for i, moment in enumerate(self.moments) if moment.versions]
        steps = [(i, version_changes(old, new)) for (_, old), (i, new) in pairwise(having)]
        return [(i, changed) for i, changed in steps if changed]


def version_changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the libraries of which both have another version; jaxlib goes with jax."""
    moved = {n: (old[n], new[n]) for n in new if n in old and old[n] != new[n]}
    if moved.get("jaxlib") == moved.get("jax"):
        moved.pop("jaxlib", None)
    return moved


def moves(several: Iterable[Series]) -> tuple[Move, ...]:
    """Return where exact metrics changed between neighbours, the newest first."""
    found = [
        Move(each.key, first, second, (old, new))
        for each in several
        for (first, old), (second, new) in pairwise(zip(each.at.tolist(), each.values, strict=True))
        if old != new
    ]
    return tuple(sorted(found, key=lambda move: -move.after))


def order(key: SeriesKey) -> tuple[Any, ...]:
    """Return what sorts series: by metric, backend and size, the baseline first."""
    return (
        *(ORDER.index(key.metric) if key.metric in ORDER else len(ORDER), key.metric),
        *(key.backend, wording.size(key.workload), key.workload),
        *(key.entrant != BASELINE[0], key.entrant, key.style != BASELINE[1], key.style),
        *(key.devices, key.weak),
    )
