"""Two sides compared: what differs, whether that is worse, and what would not show.

The sides are environments that took turns (`bakeoff ab`), or run files (`bakeoff compare`): the
results of both have the amounts of `base` and `new`, and rows of `new` against `base`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from bench.estimates import POWER, detectable
from bench.metrics import METRICS, Kind, label
from bench.report.table import amount, percent
from bench.report.wording import main_workload
from bench.stats.verdicts import Verdict
from bench.track.moves import ORDER, is_exact, moves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.estimates import Estimate
    from bench.runfile import CellResult, Results
    from bench.track.moves import Move

BASE, NEW = "base", "new"
"""Names of the two environments."""
SLACK = 1e-9
"""Added to a margin, for rounding."""


class Status(IntEnum):
    """What a comparison comes to: the exit status."""

    NOT_WORSE = 0
    WORSE = 1
    CANNOT_SAY = 2


class Comparison:
    """Views of the results of two sides."""

    def __init__(self, results: Results) -> None:
        self.results, self.margin = results, results.options.margin
        self.sides = tuple(results.environments[name] for name in (BASE, NEW))
        rows = [row for row in results.estimates if not row.cell.is_control]
        self.times = [row for row in rows if row.against == BASE]
        self.amounts = {(r.environment, r.cell, r.metric): r for r in rows if r.form == "amount"}
        self.cells = {
            (row.environment, row.cell): row for row in results.cells if not row.cell.is_control
        }

    @property
    def measured(self) -> bool:
        """Whether one command measured both sides, in turns; or else they are run files."""
        return self.results.spent.processes > 0

    @property
    def both(self) -> list[tuple[CellResult, CellResult]]:
        """The cells that both sides have."""
        return [
            (row, self.cells[NEW, cell])
            for (name, cell), row in self.cells.items()
            if name == BASE and (NEW, cell) in self.cells
        ]

    @cached_property
    def moves(self) -> list[Move]:
        """Exact numbers that changed."""
        return moves(self.exact)

    @property
    def exact(self) -> list[list[Estimate]]:
        """Exact numbers that both sides have."""
        return [
            [row, self.amounts[NEW, cell, metric]]
            for (name, cell, metric), row in self.amounts.items()
            if name == BASE and is_exact(row) and (NEW, cell, metric) in self.amounts
        ]

    @property
    def failures(self) -> list[CellResult]:
        """Cells that fail now, and did not."""
        return [new for base, new in self.both if new.failure is not None and base.failure is None]

    def fraction(self, row: Estimate, value: float | None) -> float:
        """Return a row's value, or an end of its interval, as a fraction of the base's time."""
        if value is None:
            return math.inf
        if row.form == "ratio":
            return value - 1
        base = self.amounts.get((BASE, row.cell, row.metric))
        return value / base.value if base else math.copysign(math.inf, value)

    def worse(self, row: Estimate) -> bool:
        """Tell whether a row is certainly slower, and by more than the margin."""
        return row.differs and self.fraction(row, row.value) > self.margin + SLACK

    def faster(self, row: Estimate) -> bool:
        """Tell whether a row is certainly faster, and by more than the margin."""
        return row.differs and self.fraction(row, row.value) < -self.margin - SLACK

    def settled(self, row: Estimate) -> bool:
        """Tell whether it is known that a row differs, or that it is not worse by the margin."""
        known = row.verdict not in (None, Verdict.INCONCLUSIVE)
        return known or self.fraction(row, row.high) <= self.margin

    @property
    def differing(self) -> list[Estimate]:
        """Rows that certainly differ: worse, then within the margin, then faster; largest first.

        What all styles of a library share is there once.
        """
        rows = {shared(row): row for row in reversed(self.times) if row.differs}
        return sorted(rows.values(), key=lambda row: -self.fraction(row, row.value))

    @property
    def status(self) -> Status:
        """The exit status.

        One settled row is enough to pass: otherwise one inconclusive row among a hundred would
        fail every day. Where times were compared and none is settled, counts alone do not pass.
        """
        worse = any(map(self.worse, self.times)) or any(move.worse for move in self.moves)
        if worse or self.failures:
            return Status.WORSE
        if any(map(self.settled, self.times)):
            return Status.NOT_WORSE
        return Status.NOT_WORSE if self.exact and not self.times else Status.CANNOT_SAY

    def reason(self, base: CellResult, new: CellResult, metric: str) -> str:
        """Return why a metric of a cell is not compared; empty where nobody would expect it."""
        for name, row in ((BASE, base), (NEW, new)):
            if metric in row.missing:
                return f"not measured on the {name} side: {row.missing[metric]}"
        about = METRICS[metric]
        absolute = new.cell.is_baseline and not self.measured
        if absolute or not about.compared or about.kind not in (Kind.WARM, Kind.COLD):
            return ""
        having = [name for name in (BASE, NEW) if (name, new.cell, metric) in self.amounts]
        if len(having) == 1:
            return f"measured on the {having[0]} side alone"
        return "too few samples" if having else ""

    @cached_property
    def limits(self) -> dict[str, str]:
        """By metric, the difference that would have shown in four cases of five, and where.

        At the workload that is spoken about first; metrics of which nothing is known are left out.
        """
        limits = {}
        for metric in sorted({row.metric for row in self.times}, key=ORDER.index):
            rows = [row for row in self.times if row.metric == metric]
            workload = main_workload(row.cell.workload for row in rows)
            limit = smallest([row for row in rows if row.cell.workload == workload])
            if limit:
                limits[metric] = f"{limit} ({label(metric)} at {workload})"
        return limits


def shared(row: Estimate) -> tuple[str, ...]:
    """Return what a row is of: all styles of a library share what it does once."""
    cell = row.cell
    style = "" if METRICS[row.metric].of_library else cell.style
    return cell.entrant, style, cell.workload, cell.backend, row.metric


def smallest(rows: Sequence[Estimate]) -> str:
    """Return the difference of a metric that would have shown in four cases of five.

    Empty where nothing is known.
    """
    if rows[0].form == "ratio":
        fraction = detectable(rows)
        return percent(fraction) if math.isfinite(fraction) else ""
    seconds = [
        row.half_width + float(special.stdtrit(row.df, POWER)) * row.standard_error
        for row in rows
        if row.standard_error and row.df > 0 and math.isfinite(row.half_width)
    ]
    return amount(float(np.median(seconds)), rows[0].unit) if seconds else ""
