"""Questions: the numbers that were asked for, and how far each is from being settled.

More workers narrow an interval with the square root of their number.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from bench.engine.task import find_programs
from bench.metrics import METRICS, STEP, Kind
from bench.stats.estimate import estimate
from bench.worker.protocol import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.cells import Cell
    from bench.engine.state import RunState
    from bench.engine.task import GroupCell
    from bench.estimates import Estimate
    from bench.metrics import Metric
    from bench.samples import Sample

WIDEST = 8.0
"""Largest doubt, in half widths that are narrow enough, and the doubt of an unknown number: a first
answer goes before a better one, but not before ten."""
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


class Question(NamedTuple):
    """A number that was asked for, and how far it is from being settled."""

    weight: float
    doubt: float
    """Half width of its interval, in units of one that is narrow enough; at most `WIDEST`."""
    excess: float
    """Half width relative to one that settles the verdict: above 1, it is open; 0 if unknown."""
    workers: int
    """Workers, or cold samples, that it rests on."""
    workers_needed: int
    """Workers, or cold samples, below which it is preliminary."""

    @property
    def is_open(self) -> bool:
        """Whether it is not settled yet."""
        return self.workers < self.workers_needed or self.excess > 1

    def gain(self, more: float) -> float:
        """Return the weighted doubt that further workers remove."""
        have, rest = self.workers, self.workers / (self.workers + more)
        return (
            self.weight
            * self.doubt
            * (1 - (rest if have < self.workers_needed else math.sqrt(rest)))
        )


class Questions:
    """Questions about all numbers of a run; a family with more samples is estimated again."""

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

    def ask(
        self,
        pairs: Sequence[GroupCell],
        workload: str,
        kind: str,
        weight: float,
        rounds: float = 1.0,
    ) -> Iterator[Question]:
        """Yield the questions about some cells that a kind of work with a weight answers.

        A worker has so many `rounds`. Without samples, the excess is foreseen.
        """
        asked = {group: self.state.find_metrics(group, workload, kind) for group in dict(pairs)}
        workers_needed = self.state.find_workers_needed(kind)
        for group, cell in pairs:
            environment = self.state.find_compared_side(group).environment
            for metric in asked[group].get(cell, ()):
                row = self.rows(metric.name, workload, cell.backend).get((environment, cell))
                have, doubt, excess = row.workers if row else 0, WIDEST, 0.0
                alone = not metric.compared or (cell.is_baseline and not self.state.base)
                if alone or (row and row.form == "amount"):
                    doubt, excess = 1.0, 0.0 if row else math.inf
                elif row is None:
                    excess = self.foresee_excess(metric, cell, rounds)
                elif have >= workers_needed:
                    enough, settling = find_target_widths(row, self.margin)
                    doubt, excess = min(WIDEST, row.half_width / enough), row.half_width / settling
                yield Question(metric.weight * weight, doubt, excess, have, workers_needed)

    def foresee_excess(self, metric: Metric, cell: Cell, rounds: float) -> float:
        """Return the excess that so many rounds will leave of ratios near 1; 0 if unknown.

        A round counts as noisy as it was at other workloads.
        """
        cold, worst = metric.kind is Kind.COLD, 0.0
        for name, workload, backend in list(self.families):
            if (name, backend) == (metric.name, cell.backend) and workload != cell.workload:
                per_block = 1.0
                if not cold:
                    series = KINDS[metric.turn][metric.name]
                    calls = statistics.mean(s.calls for s in self.families[name, workload, backend])
                    per_block = calls if series.in_a_row else calls / series.calls
                spreads = [
                    row.half_width * math.sqrt(row.blocks * per_block / rounds)
                    for row in self.rows(name, workload, backend).values()
                    if row.form == "ratio" and row.workers > 1 and not row.is_noiseless
                ]
                worst = max(worst, statistics.median(spreads or [0.0]))
        return worst / max(COLD_TARGET if cold else 0.0, math.log1p(self.margin))


def find_target_widths(row: Estimate, margin: float) -> tuple[float, float]:
    """Return the half widths of a comparison that are narrow enough, and that settle it.

    A ratio is settled where its interval is on one side of the margin's nearer end.
    """
    if row.form == "added":
        target = max(HOST_SECONDS, HOST_FRACTION * abs(row.value))
        return target, target
    distance = abs(abs(math.log(row.value)) - math.log1p(margin))
    usual = COLD_TARGET if row.kind is Kind.COLD else TARGET_OF_MARGIN * margin
    usual = STAGES_TARGETS.get(row.metric, usual)
    return max(usual, TARGET_OF_DISTANCE * distance), max(usual, distance)
