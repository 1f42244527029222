"""What is measured in a cell, how, and in which unit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.cells import TOGETHER

if TYPE_CHECKING:
    from bench.cells import Cell


class Kind(StrEnum):
    """How samples of a metric are taken."""

    WARM = "warm"
    """In blocks of interleaved rounds, in workers that measure many blocks."""
    COLD = "cold"
    """Once in each fresh process."""
    ONCE = "once"
    """Once a run: it comes out the same every time."""


@dataclass(frozen=True)
class Metric:
    """One thing measured. All are costs: less is better."""

    name: str
    kind: Kind
    unit: str = "s"
    turn: str = ""
    """Name of the turn whose samples it gets; a turn can serve several metrics."""
    added: bool = False
    """What people read is the time that it adds to the baseline's, not their ratio."""
    of_library: bool = False
    """It belongs to the library: all styles of an entrant share their samples."""
    of_program: bool = False
    """It belongs to the program: all arms that lower to the same one share their samples."""
    pure_only: bool = False
    """Only the step that all entrants share has it: it can be called within a larger program."""
    also: tuple[tuple[str, str], ...] = ()
    """Entrants and styles that have it too."""
    tiny_only: bool = False
    """It is the host's time, which shows where the device has next to nothing to do."""
    weight: float = 1.0
    """Share of the warm time that its turn gets, beside the others'."""

    def applies(self, cell: Cell) -> bool:
        """Tell whether `cell` has this metric."""
        fits_style = not self.pure_only or cell.style == "pure" or cell[:2] in self.also
        return fits_style and (not self.tiny_only or cell.workload in TINY)

    def usual(self, cell: Cell) -> bool:
        """Tell whether it is measured where no metric is named: of a sweep, that is the step."""
        return self.name == "step" or cell.workload not in TOGETHER["sweep"]


TUNED = (("pure_jax", "tuned"),)
TINY = ("toy",)
"""Workloads whose device work is negligible."""
HOST = "host_cost"

METRICS = {
    metric.name: metric
    for metric in (
        Metric("step", Kind.WARM, turn="step", weight=3),
        Metric(HOST, Kind.WARM, turn=HOST, tiny_only=True, added=True),
        Metric("host_cost_pipelined", Kind.WARM, turn=HOST, tiny_only=True, added=True),
        Metric("sample", Kind.WARM, turn="sample", pure_only=True, weight=0.3),
        Metric("epoch_by_chunk", Kind.WARM, turn="epoch", pure_only=True, also=TUNED, weight=0.3),
        Metric("epoch_by_scan", Kind.WARM, turn="epoch", pure_only=True, also=TUNED, weight=0.3),
        Metric("import", Kind.COLD, of_library=True),
        Metric("init", Kind.COLD, of_library=True),
        Metric("trace", Kind.COLD),
        Metric("lower", Kind.COLD),
        Metric("compile", Kind.COLD, of_program=True),
        Metric("first_step", Kind.COLD),
        Metric("peak_rss", Kind.COLD, unit="B"),
        Metric("final_loss", Kind.ONCE),
    )
}
COLD = tuple(m.name for m in METRICS.values() if m.kind is Kind.COLD)
WARM = tuple(m.name for m in METRICS.values() if m.kind is Kind.WARM)
