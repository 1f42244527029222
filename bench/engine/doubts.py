"""How far each number is from being decided: what a plan spends its seconds on."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from bench.metrics import Kind
from bench.stats.estimate import estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cells import Cell
    from bench.engine.state import SideState
    from bench.estimates import Estimate
    from bench.samples import Sample

WIDEST = 8.0
"""Largest doubt, in what it takes to decide, and that of a number of which nothing is known: a
first answer goes before a better one, but not before ten."""
TARGET_OF_MARGIN, TARGET_OF_DISTANCE = 1 / 4, 1 / 3
"""Half width of a ratio's interval that is narrow enough, as a fraction of the margin, and of the
distance of the ratio from the nearer end of the margin: the larger of both counts."""
COLD_TARGET = 0.05
"""Half width of a cold ratio that is narrow enough: such times differ by about as much between two
hours."""
STAGES_TARGETS = {"compile": 0.03, "lower": 0.05, "trace": 0.08}
"""The same of stages in turns: about a standard deviation from round to round."""
HOST_SECONDS, HOST_FRACTION = 3e-6, 0.02
"""Half width of a host cost that is narrow enough, in seconds and as a fraction of it: a step at
`seed` takes a thousand times these microseconds."""


class Doubts:
    """The doubts of all numbers of a run; a family is looked at again when it has more samples.

    Args:
        samples: All so far; it grows.
        sides: Whose cells they are of.
        base: Environment that others are compared with; empty where arms are compared.
        margin: Below which a difference does not matter.
    """

    def __init__(
        self, samples: Sequence[Sample], sides: Sequence[SideState], base: str, margin: float
    ) -> None:
        self.samples, self.sides, self.base, self.margin = samples, sides, base, margin
        self.families: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
        self.read = 0
        self.known: dict[tuple[str, str, str], dict[tuple[str, Cell], Estimate]] = {}

    def of(self, metric: str, cell: Cell, environment: str) -> tuple[float, int]:
        """Return a number's doubt, and the workers that it rests on."""
        for sample in self.samples[self.read :]:
            family = sample.metric, sample.cell.workload, sample.cell.backend
            self.families[family].append(sample)
            self.known.pop(family, None)
        self.read = len(self.samples)
        family = metric, cell.workload, cell.backend
        if family not in self.known:
            self.known[family] = self.rows(self.families[family])
        row = self.known[family].get((environment, cell))
        return (WIDEST, 0) if row is None else (doubt(row, self.margin), row.workers)

    def rows(self, samples: Sequence[Sample]) -> dict[tuple[str, Cell], Estimate]:
        """Return a family's comparisons, or else amounts, by environment and cell."""
        programs = {c: r.program for s in self.sides for c, r in s.cells.items() if r.program}
        rows: dict[tuple[str, Cell], Estimate] = {}
        estimates = estimate(
            samples, self.base, margin=self.margin, programs=programs, least_cold=1
        )
        for row in sorted(estimates, key=lambda row: row.form == "amount"):
            rows.setdefault((row.environment, row.cell), row)
        return rows


def doubt(row: Estimate, margin: float) -> float:
    """Return half an interval's width in units of what it takes to decide; `WIDEST` at most."""
    if row.form == "added":
        target = max(HOST_SECONDS, HOST_FRACTION * abs(row.value))
    elif row.form == "ratio":
        distance = abs(abs(math.log(row.value)) - math.log1p(margin))
        usual = COLD_TARGET if row.kind is Kind.COLD else TARGET_OF_MARGIN * margin
        target = max(STAGES_TARGETS.get(row.metric, usual), TARGET_OF_DISTANCE * distance)
    else:
        return 1.0  # the baseline's own, an exact number, or one that is not compared
    return min(WIDEST, row.half_width / target)


def narrowed(have: float, more: float) -> float:
    """Return by which fraction further workers narrow an interval of a mean of `have`."""
    return 1 - math.sqrt(have / (have + more)) if have else 1.0
