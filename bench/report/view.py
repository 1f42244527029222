"""The results of a run on one backend, by arm and workload, as sentences and charts use them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.estimates import Estimate, EstimateTable
from bench.metrics import HOST, STARTUP, STEP, TINY
from bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Arm, Cell
    from bench.runfile import CellResult, Proof, Results


def views(results: Results) -> list[View]:
    """Return a view of each backend."""
    backends = list(dict.fromkeys(result.cell.backend for result in results.good))
    table = results.table
    return [View(results, table, name, several=len(backends) > 1) for name in backends]


def startup(table: EstimateTable, cell: Cell) -> Estimate | None:
    """Return the seconds from a fresh process to the end of its first step; None if not known.

    They are the sum of all stages; the ends of its interval are the sums of theirs, which is wide
    enough however stages vary together.
    """
    stages = [stage for metric in STARTUP if (stage := table.amount(cell, metric))]
    if len(stages) < len(STARTUP):
        return None
    lows = [stage.low for stage in stages if stage.low is not None]
    highs = [stage.high for stage in stages if stage.high is not None]
    return Estimate(
        cell=cell,
        metric="startup",
        form="amount",
        unit="s",
        value=sum(stage.value for stage in stages),
        low=sum(lows) if len(lows) == len(stages) else None,
        high=sum(highs) if len(highs) == len(stages) else None,
    )


@dataclass(frozen=True)
class View:
    """What was measured on one backend."""

    results: Results
    table: EstimateTable
    backend: str
    several: bool = False
    """Whether there are other backends, so that this one has to be named."""

    @cached_property
    def cells(self) -> Mapping[Cell, CellResult]:
        """The cells without a failure, the control left out."""
        return {
            result.cell: result
            for result in self.results.good
            if result.cell.backend == self.backend and not result.cell.is_control
        }

    @cached_property
    def arms(self) -> list[Arm]:
        """All arms but the baseline."""
        return [a for a in dict.fromkeys(cell.arm for cell in self.cells) if a != BASELINE]

    @cached_property
    def workloads(self) -> list[str]:
        """The smallest model's first."""
        return wording.ordered(cell.workload for cell in self.cells)

    @cached_property
    def compared(self) -> list[str]:
        """Workloads at which steps have a ratio; tiny ones only if there are no others."""
        places = [w for w in self.workloads if self.comparisons(w, STEP)]
        return [w for w in places if w not in TINY] or places

    @cached_property
    def main(self) -> str:
        """The workload that is spoken about first, among those with ratios of steps."""
        return wording.main_workload(self.compared)

    @property
    def margin(self) -> float:
        """Fraction within which two times are equivalent."""
        return self.results.options.margin

    @property
    def on(self) -> str:
        """The backend in words, as in ` on gpu`; nothing if there is no other."""
        return f" on {self.backend}" if self.several else ""

    def at(self, workload: str) -> str:
        """Return a workload in words, with the backend if there are several."""
        return f"{wording.place(workload)}{self.on}"

    def amount(self, arm: Arm, workload: str, metric: str) -> Estimate | None:
        """Return an arm's time, size or count; None if it has none, or has failed."""
        cell = arm.at(workload, self.backend)
        return self.table.amount(cell, metric) if cell in self.cells else None

    def comparisons(self, workload: str, metric: str) -> dict[Arm, Estimate]:
        """Return the arms' ratios to the baseline, or what they add to it."""
        cells = {arm: arm.at(workload, self.backend) for arm in self.arms}
        return {
            arm: estimate
            for arm, cell in cells.items()
            if cell in self.cells and (estimate := self.table.comparison(cell, metric))
        }

    def hosts(self) -> dict[Arm, Estimate]:
        """Return what arms add to a call, at the smallest workload where that is known."""
        hosts: dict[Arm, Estimate] = {}
        for workload in reversed(self.workloads):
            hosts |= self.comparisons(workload, HOST)
        return hosts

    def startups(self, workload: str) -> dict[Arm, Estimate]:
        """Return the seconds from a fresh process to the end of its first step, by arm."""
        cells = {arm: arm.at(workload, self.backend) for arm in (BASELINE, *self.arms)}
        return {
            arm: total
            for arm, cell in cells.items()
            if cell in self.cells and (total := startup(self.table, cell))
        }

    def proof(self, arm: Arm, workload: str) -> Proof | None:
        """Return how an arm was shown to be equal."""
        result = self.cells.get(arm.at(workload, self.backend))
        return result.proof if result else None
