"""Comparison of two sides: differences, and whether they are worse.

The sides are environments that alternated (`bakeoff ab`), or run files (`bakeoff compare`): the
results of both have the amounts of `base` and `new`, and rows of `new` against `base`.
"""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace
from packaging.version import InvalidVersion, Version

from bench.estimates import COUNT, Estimate, Verdict
from bench.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Cell
    from bench.runfile import Results

BASE, NEW = "base", "new"
"""Names of the two environments."""
ORDER = list(METRICS)
"""Names of metrics, the most important first."""
CHANGED_SUFFIX = ", changed since"
"""Text after a commit whose files were changed since, which no environment can be built of."""
SAME_LOSS = 0.01
"""Largest difference of two equal losses, in nats per character: a compiler may change the last
bits, and training makes these differences larger."""
SLACK = 1e-9
"""Tolerance for rounding, a fraction: added to a margin, and the least divisor."""


class Status(IntEnum):
    """Outcome of a comparison: the exit status."""

    NOT_WORSE = 0
    WORSE = 1
    CANNOT_SAY = 2


class Comparison:
    """Views of the results of two sides."""

    def __init__(self, results: Results) -> None:
        self.results, self.margin = results, results.options.margin
        self.sides = tuple(results.environments[name] for name in (BASE, NEW))
        rows = [row for row in results.estimates if not row.cell.is_control]
        self.times = [row for row in rows if row.against == BASE and row.form == "ratio"]
        """Comparisons of times, and of memory."""
        self.amounts = {(r.environment, r.cell, r.metric): r for r in rows if r.form == "amount"}
        self.exact_pairs = [
            [row, self.amounts[NEW, cell, metric]]
            for (name, cell, metric), row in self.amounts.items()
            if name == BASE and is_exact(row) and (NEW, cell, metric) in self.amounts
        ]
        """Exact numbers that both sides have, in pairs: base, new."""
        self.counts = find_exact_changes(self.exact_pairs)
        """Exact numbers that changed."""
        cells = (row for row in results.cells if not row.cell.is_control)
        self.cells = {(row.environment, row.cell): row for row in cells}
        self.common_cells = [
            (row, self.cells[NEW, cell])
            for (name, cell), row in self.cells.items()
            if name == BASE and (NEW, cell) in self.cells
        ]
        """Results of the cells that both sides have, in pairs: base, new."""
        self.failures = [
            new
            for base, new in self.common_cells
            if new.failure is not None and base.failure is None
        ]
        """New results of cells that fail now, but not before."""

    @property
    def costlier_counts(self) -> list[Estimate]:
        """Counts of costs that rose; empty if `--metric` names the metrics that decide."""
        return [] if self.results.metrics else [row for row in self.counts if is_costlier(row)]

    @property
    def is_measured(self) -> bool:
        """Whether one command measured both sides; if not, they are run files."""
        return self.results.spent.processes > 0

    def is_worse(self, row: Estimate) -> bool:
        """Tell whether a row is certainly slower, and by more than the margin."""
        return row.differs and row.value > 1 + self.margin + SLACK

    def is_faster(self, row: Estimate) -> bool:
        """Tell whether a row is certainly faster, and by more than the margin."""
        return row.differs and row.value < 1 - self.margin - SLACK

    def is_settled(self, row: Estimate) -> bool:
        """Tell whether it is known that a row differs, or that it does not by the margin."""
        return row.verdict not in (None, Verdict.INCONCLUSIVE)

    def find_gap(self, row: Estimate) -> str:
        """Return why a row cannot be compared, whatever its number of samples; or ""."""
        known = self.cells.get((NEW, row.cell))
        return known.missing.get(row.metric, "") if known else ""

    @cached_property
    def differing_times(self) -> list[Estimate]:
        """Times that certainly differ: what each step costs first, then the largest ratio."""
        rows = (row for row in self.rows if row.differs)
        return sorted(rows, key=lambda row: (-METRICS[row.metric].weight, -row.value))

    @property
    def other_times(self) -> list[Estimate]:
        """Times that are not known to differ, by metric, each with the baseline's first."""
        rows = (row for row in self.rows if not row.differs)
        return sorted(rows, key=lambda r: (ORDER.index(r.metric), not r.cell.is_baseline, r.cell))

    @property
    def rows(self) -> Iterable[Estimate]:
        """Times; those that all styles of a library share appear once."""
        return {find_key(row): row for row in reversed(self.times)}.values()

    @property
    def status(self) -> Status:
        """Outcome of the comparison.

        One settled row is enough to pass: otherwise one inconclusive row among a hundred would
        fail every day. Where times were compared and none is settled, counts alone do not pass.
        """
        if any(map(self.is_worse, self.times)) or self.costlier_counts or self.failures:
            return Status.WORSE
        if any(map(self.is_settled, self.times)):
            return Status.NOT_WORSE
        counts_alone = self.exact_pairs and not self.times and not self.results.metrics
        return Status.NOT_WORSE if counts_alone else Status.CANNOT_SAY


def is_exact(row: Estimate) -> bool:
    """Tell whether a row is a number that is the same every time: a count, or a loss."""
    counted = row.kind in (Kind.EXACT, Kind.ONCE) and METRICS[row.metric].compared
    return row.form == "amount" and counted


def find_exact_changes(series: Iterable[Sequence[Estimate]]) -> list[Estimate]:
    """Return the changes of exact numbers along series, each as the amount that is added."""
    rows = [
        replace(
            after,
            form="added",
            value=after.value - before.value,
            against=before.environment,
            standard_error=0.0,
            settled_by=COUNT,
        )
        for points in series
        for before, after in pairwise(points)
        if abs(after.value - before.value) > (SAME_LOSS if after.unit == "nats" else 0)
    ]
    return sorted(rows, key=lambda row: (not is_costlier(row), ORDER.index(row.metric)))


def is_costlier(row: Estimate) -> bool:
    """Tell whether a cost rose."""
    return row.value > row.no_difference and not METRICS[row.metric].neutral


def order_releases(
    releases: tuple[str | None, str | None], row: Estimate
) -> tuple[tuple[str | None, str | None], Estimate]:
    """Return two releases, the older one first, and the ratio of the newer one to it.

    A search that asks what became faster has its good end at the newer one.
    """
    good, bad = releases
    with suppress(InvalidVersion):
        if good and bad and Version(good) > Version(bad):
            low, high = (1 / end if end else None for end in (row.high, row.low))
            return (bad, good), replace(row, value=1 / row.value, low=low, high=high)
    return releases, row


def find_key(row: Estimate) -> tuple[Cell, str]:
    """Return a row's cell and metric, without the style if all styles of its library share it."""
    style = "" if METRICS[row.metric].of_library else row.cell.style
    return row.cell._replace(style=style), row.metric
