"""Estimates along time, and where they change: of days measured now, or of runs that were kept.

Both are results whose environments are moments: days, each compared with the reference that it took
turns with, or runs, each compared with its own baseline. One rule finds changes in both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.report.wording import ordered
from bench.stats.changes import NO_SPREAD, is_change, neighbours
from bench.track import between_runs
from bench.track.moves import ORDER, is_exact, moves

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Cell
    from bench.estimates import Estimate
    from bench.runfile import Results
    from bench.stats.changes import Spread
    from bench.track.moves import Move

    type Row = tuple[Cell, str]
    """A cell and a metric."""

REFERENCE = "reference"
"""Environment that days are compared with: the stack of the last one."""
DAY, MINUTE = 10, 16
"""Characters of a time that are its day, and its minute."""


class Timeline:
    """Views of the results of a history."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.measured = bool(results.base)
        """Whether its days took turns with a reference; or else it is made of runs."""
        self.against = results.base or str(BASELINE)
        self.levels: dict[tuple[str, Row], float] = {}
        """Of runs, the seconds of the baseline's call."""
        compared: dict[Row, dict[str, Estimate]] = defaultdict(dict)
        counted: dict[Row, dict[str, Estimate]] = defaultdict(dict)
        for row in results.estimates:
            if row.cell.is_control or row.environment == results.base:
                continue
            if row.against == self.against:
                compared[row.cell, row.metric][row.environment] = row
            elif is_exact(row):
                counted[row.cell, row.metric][row.environment] = row
            elif row.cell.is_baseline:
                self.levels[row.environment, (row.cell, row.metric)] = row.value
        at = [row for series in (compared, counted) for rows in series.values() for row in rows]
        self.moments = [name for name in results.environments if name in {*at}]
        self.series = self.in_order(compared)
        """Comparisons of each cell and metric, by moment."""
        self.counts = self.in_order(counted)
        """Exact numbers, by moment."""

    def in_order(self, series: dict[Row, dict[str, Estimate]]) -> dict[Row, list[Estimate]]:
        """Return series by metric, then by the size of the model, each in the order of time."""
        place = {name: i for i, name in enumerate(self.moments)}
        sizes = ordered(cell.workload for cell, _ in series)

        def rank(row: Row) -> tuple[object, ...]:
            cell, metric = row
            where = cell.backend, sizes.index(cell.workload)
            return ORDER.index(metric), *where, not cell.is_baseline, cell.entrant, cell.style

        return {
            row: sorted(series[row].values(), key=lambda point: place[point.environment])
            for row in sorted(series, key=rank)
        }

    @cached_property
    def times(self) -> dict[str, str]:
        """When each moment was: the day, and the minute where a day has several."""
        days = Counter(moment[:DAY] for moment in self.moments)
        return {
            moment: moment[:DAY] if days[moment[:DAY]] == 1 else moment[:MINUTE].replace("T", " ")
            for moment in self.moments
        }

    @cached_property
    def neighbours(self) -> list[Estimate]:
        """The differences of all neighbours, with p corrected for all of them together."""
        margin = self.results.options.margin
        series = [self.at_one_speed(points) for points in self.series.values()]
        return neighbours(series, self.spread, pooled=self.measured, margin=margin)

    def at_one_speed(self, points: Sequence[Estimate]) -> list[Estimate]:
        """Return a series of runs as it would be at the speed of the last one."""
        levels = [self.level(row) for row in points]
        return [
            between_runs.at_speed(row, level, levels[-1])
            for row, level in zip(points, levels, strict=True)
        ]

    def level(self, row: Estimate) -> float:
        """Return the seconds of the baseline's call at a row's moment; 0 if it is not known."""
        return self.levels.get((row.environment, (row.cell.baseline, row.metric)), 0.0)

    def spread(self, row: Estimate) -> Spread:
        """Return what a row varies by from moment to moment, beyond what it knows."""
        if self.measured:
            return NO_SPREAD
        return between_runs.spread(row, self.level(row))

    @cached_property
    def changes(self) -> list[list[Estimate]]:
        """Changes, those together that are alike: of one metric and place, at one time, one way.

        The largest come first; of runs, the newest.
        """
        groups: dict[tuple[object, ...], list[Estimate]] = defaultdict(list)
        for row in self.neighbours:
            if is_change(row):
                where = row.metric, row.cell.workload, row.cell.backend
                groups[*where, row.against, row.environment, is_rise(row)].append(row)
        if self.measured:
            return sorted(groups.values(), key=lambda rows: -max(map(size, rows)))
        place = {name: i for i, name in enumerate(self.moments)}
        return sorted(groups.values(), key=lambda rows: -place[rows[0].environment])

    @cached_property
    def moves(self) -> list[Move]:
        """Exact numbers that are others than at the moment before."""
        return moves(self.counts.values())

    def versions(self, moment: str) -> dict[str, str]:
        """Return the releases of a moment."""
        return self.results.environments[moment].versions

    def entrants(self) -> Iterable[str]:
        """Return the entrants that have a series."""
        return dict.fromkeys(cell.entrant for cell, _ in (*self.series, *self.counts))


def is_rise(row: Estimate) -> bool:
    """Tell whether a cost became larger."""
    return row.value > (1 if row.form == "ratio" else 0)


def size(row: Estimate) -> float:
    """Return how large a change is: as a factor, or in standard errors where it is in seconds."""
    if row.form == "ratio":
        return max(row.value, 1 / row.value)
    return abs(row.value) / row.standard_error if row.standard_error else 0.0
