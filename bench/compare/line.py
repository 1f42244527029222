"""The data of a time line: runs, series of points, and the changes along them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.compare.summaries import FAILURE, VERDICTS, Key, Numbers
from bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from bench.compare.summaries import Summary
    from bench.report.wording import Facts


@dataclass(frozen=True, eq=False)
class Series:
    """A metric of a cell along a time line; arrays have an element for each point."""

    key: Key
    at: Int[np.ndarray, " points"]
    """Which runs of the line they are from, the oldest first."""
    median: Float[np.ndarray, " points"]
    ratio: Float[np.ndarray, " points"]
    """To the baseline of the same run; NaN where there is none, as in what follows."""
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    standard_error: Float[np.ndarray, " points"]
    """Of the ratio's logarithm."""
    df: Float[np.ndarray, " points"]
    p: Float[np.ndarray, " points"]
    verdict: Float[np.ndarray, " points"]
    """Places in `VERDICTS`."""
    gaps: Mapping[int, str] = field(default_factory=dict)
    """Runs that have no number, and why."""

    @property
    def cell(self) -> Facts:
        """The cell, as run files name it."""
        key = self.key
        return {"entrant": key.entrant, "style": key.style, "workload": key.workload}

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(self.cell)

    def filled(self) -> bool:
        """Tell whether there is anything in it."""
        return bool(self.at.size or self.gaps)

    @property
    def compared(self) -> bool:
        """Whether it has ratios to a baseline."""
        return bool(np.isfinite(self.ratio).any())

    @property
    def values(self) -> Float[np.ndarray, " points"]:
        """The values that are shown: ratios where it has them, or else medians."""
        return self.ratio if self.compared else self.median

    def said(self, point: int) -> Facts:
        """Return a point as a metric of a run file."""
        names = Numbers._fields[:-1]
        values = {name: known(getattr(self, name)[point]) for name in names}
        return {"unit": self.key.unit, **values, "verdict": verdict(self.verdict[point])}


def known(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if math.isnan(value) else float(value)


def verdict(code: float) -> str | None:
    """Return the verdict that a number stands for."""
    return None if math.isnan(code) else VERDICTS[int(code)]


class Release(NamedTuple):
    """Where versions changed between neighbouring runs."""

    run: int
    """The later one."""
    changed: Mapping[str, tuple[str, str]]
    """Version before and after, by library."""


class Moved(NamedTuple):
    """An exact metric that changed between neighbours, which needs no test."""

    key: Key
    before: int
    """Of the line's runs."""
    after: int
    values: tuple[float, float]


class Change(NamedTuple):
    """A metric that differs between neighbours, or groups of runs on either side, by a test."""

    key: Key
    before: int
    """Point of the series: the last one before the change."""
    after: int
    """The first one after it."""
    ratio: float
    """Of the later to the earlier."""
    low: float
    high: float
    p: float
    """Corrected for the number of comparisons."""
    width: int = 1
    """Runs on either side whose means were compared."""


@dataclass(frozen=True, eq=False)
class Line:
    """The runs of one machine."""

    machine: str
    runs: tuple[Summary, ...]
    """The oldest first."""
    series: tuple[Series, ...]
    moved: tuple[Moved, ...] = ()
    """Changes of the exact metrics that are asked for; of all where none is asked for."""
    changes: tuple[Change, ...] = ()
    """Of ratios to the baseline, in the order of time."""

    @property
    def releases(self) -> list[Release]:
        """Return where versions changed between neighbours; a run without versions is none."""
        having = [(i, run.versions) for i, run in enumerate(self.runs) if run.versions]
        found = []
        for (_, old), (number, new) in pairwise(having):
            changed = {n: (old[n], new[n]) for n in new if n in old and old[n] != new[n]}
            if changed:
                found.append(Release(number, changed))
        return found

    @property
    def failing(self) -> list[Series]:
        """Return the cells that failed in the newest run they took part in."""
        numbers: dict[tuple[str, ...], int] = {}
        for series in self.series:
            if series.at.size:
                cell = series.key[1:5]
                numbers[cell] = max(numbers.get(cell, -1), int(series.at[-1]))
        failures = [s for s in self.series if s.key.metric == FAILURE]
        return [s for s in failures if max(s.gaps) > numbers.get(s.key[1:5], -1)]


@dataclass(frozen=True, eq=False)
class TimeLine:
    """The lines of all machines, and the files that were left out."""

    lines: tuple[Line, ...]
    """The line with the newest run first."""
    problems: tuple[str, ...] = ()
    """Files that cannot be read, in sentences that name them."""
    notes: tuple[str, ...] = ()
    """Other remarks, in sentences."""

    @property
    def status(self) -> int:
        """The exit status: 1 where a file was skipped that may be a run."""
        return 1 if self.problems else 0
