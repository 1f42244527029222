"""How wide the intervals of a run are, in units of those that are narrow enough."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from bench.engine.planner.kinds import WEIGHTS
from bench.engine.task import find_programs
from bench.metrics import METRICS, STEP, Kind
from bench.stats.estimate import estimate
from bench.worker.protocol import KINDS

if TYPE_CHECKING:
    from bench.cells import Cell
    from bench.engine.planner.state import RunState, Work
    from bench.engine.task import Group
    from bench.estimates import Estimate
    from bench.samples import Sample

WIDEST = 8.0
"""Largest width of a row, in those that are narrow enough, and the width of an unknown number."""
TARGET_OF_MARGIN, TARGET_OF_DISTANCE = 1 / 4, 1 / 3
"""Half width of a ratio's interval that is narrow enough, as a fraction of the margin, and of the
distance of the ratio from the nearer end of the margin: the larger of both counts."""
COLD_TARGET = 0.05
"""Half width of a cold ratio that is narrow enough: such times differ by about as much between two
hours."""
STAGES_TARGETS = {"compile": 0.03, "lower": 0.05, "trace": 0.08}
"""Metric of stages → half width of its ratio that is narrow enough: about a standard deviation from
round to round."""
HOST_SECONDS, HOST_FRACTION = 3e-6, 0.02
"""Half width of a host cost that is narrow enough, in seconds and as a fraction of it: a step at
`seed` takes a thousand times these microseconds."""


class Widths:
    """Widths of all rows of a run; a family with more samples is estimated again."""

    def __init__(self, state: RunState) -> None:
        self.state, self.margin = state, state.options.margin
        self.families: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
        self.read = 0
        self.known: dict[tuple[str, str, str], dict[tuple[str, Cell], Estimate]] = {}

    def rows(self, metric: str, workload: str, backend: str) -> dict[tuple[str, Cell], Estimate]:
        """Return (environment, cell) → comparison, or else amount, of a family."""
        for sample in self.state.samples[self.read :]:
            family = sample.metric, sample.cell.workload, sample.cell.backend
            self.families[family].append(sample)
            self.known.pop(family, None)
        self.read = len(self.state.samples)
        family = metric, workload, backend
        if family not in self.known:
            programs = find_programs(self.state.rows)
            # an arm may have samples of other stages, and share the compilation of its program
            names = KINDS[METRICS[metric].turn] if METRICS[metric].of_program else [metric]
            samples = [s for n in names for s in self.families.get((n, workload, backend), [])]
            estimates = estimate(
                samples, self.state.base, margin=self.margin, programs=programs, least_cold=1
            )
            rows = self.known[family] = {}
            for row in sorted(estimates, key=lambda row: row.form == "amount"):
                if row.metric == metric:
                    rows.setdefault((row.environment, row.cell), row)
        return self.known[family]

    def measure_precision(self) -> float:
        """Return the median half width of steps at the size measured first; 0 if there are none."""
        for family in [*self.families]:  # in the order of their first samples
            rows = self.rows(*family).values() if family[0] == STEP else ()
            widths = [row.half_width for row in rows if row.form == "ratio" and row.df > 0]
            if finite := list(filter(math.isfinite, widths)):
                return statistics.median(finite)
        return 0.0

    def find_widest(self, work: Work, group: Group) -> float:
        """Return the largest weighted width of a group's rows that some work narrows."""
        environment, widest = self.state.find_compared_side(group).environment, 0.0
        for cell, metrics in self.state.find_metrics(group, work.workload, work.kind).items():
            for metric in metrics:
                row = self.rows(metric.name, work.workload, cell.backend).get((environment, cell))
                is_compared = metric.compared and not (cell.is_baseline and not self.state.base)
                if not is_compared or (row and row.form == "amount"):
                    continue
                width = (
                    min(WIDEST, row.half_width / find_target(row, self.margin)) if row else WIDEST
                )
                widest = max(widest, WEIGHTS[work.kind] * metric.weight * width)
        return widest


def find_target(row: Estimate, margin: float) -> float:
    """Return the half width of a comparison that is narrow enough."""
    if row.form == "added":
        return max(HOST_SECONDS, HOST_FRACTION * abs(row.value))
    distance = abs(abs(math.log(row.value)) - math.log1p(margin))
    usual = COLD_TARGET if row.kind is Kind.COLD else TARGET_OF_MARGIN * margin
    return max(STAGES_TARGETS.get(row.metric, usual), TARGET_OF_DISTANCE * distance)
