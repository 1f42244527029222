"""The one table of metrics: what each is called, its unit, how it is sampled and compared.

A new metric is a row here, the code that samples it (`bench.worker`), and the `test_*.py` in which
pytest sees it; tables, pages, exports and gates take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.cells import TOGETHER

if TYPE_CHECKING:
    from bench.cells import Cell


class Kind(StrEnum):
    """How a metric is sampled."""

    WARM = "warm"
    """In blocks of interleaved rounds, in workers that measure many blocks."""
    COLD = "cold"
    """Once in each fresh process."""
    ONCE = "once"
    """Once a run: it comes out the same every time, but for the last bits."""
    EXACT = "exact"
    """Counted: it comes out the same every time."""


@dataclass(frozen=True)
class Metric:
    """One thing measured. All are costs, less is better, unless it says otherwise."""

    name: str
    label: str
    """In a table's head; a line break where a narrow column has one."""
    help: str
    """What it is, in a few words."""
    kind: Kind = Kind.EXACT
    unit: str = ""
    """`s`, `B`, `nats`, or nothing for a number."""
    turn: str = ""
    """Name of the turn whose samples it gets; a turn can serve several metrics."""
    added: bool = False
    """What people read is the time that it adds to the baseline's, not their ratio. It is the
    host's time, which shows at `TINY` workloads."""
    of_library: bool = False
    """It belongs to the library: all styles of an entrant share their samples."""
    of_program: bool = False
    """It belongs to the program: all arms that lower to the same one share their samples."""
    styles: tuple[str, ...] = ()
    """That have it, without a mesh: they can be called within a larger program. None: all styles
    have it."""
    weight: float = 1.0
    """Share of the warm time that its turn gets, beside the others'."""
    neutral: bool = False
    """Less is not better."""
    named: bool = False
    """It is measured only where it is asked for by name."""
    shown: bool = False
    """Whether a page shows it before its reader picks columns."""

    def applies(self, cell: Cell) -> bool:
        """Tell whether `cell` has this metric."""
        fits_style = not self.styles or (cell.style in self.styles and not cell.devices)
        return fits_style and (not self.added or cell.workload in TINY)

    def usual(self, cell: Cell) -> bool:
        """Tell whether it is measured where no metric is named.

        At the widths, that is the step; at the depths, what the host and a fresh process pay.
        """
        if self.named:
            return False
        if cell.workload in TOGETHER["sweep"]:
            return self.name == "step"
        if cell.workload in TOGETHER["depth"]:
            return self.kind is Kind.COLD or self.turn == HOST
        return True


TINY = ("toy", *TOGETHER["depth"])
"""Workloads where the device has next to nothing to do."""
HOST = "host_cost"

TABLE = (
    Metric(
        "step",
        "step",
        "one synchronised training step",
        Kind.WARM,
        "s",
        turn="step",
        weight=3,
        shown=True,
    ),
    Metric(
        "step_pipelined",
        "step,\npipelined",
        "the same, of 50 in a row of which only the last is waited for; measured if named",
        Kind.WARM,
        "s",
        turn="pipelined",
        named=True,
    ),
    Metric(
        HOST,
        "host\ncost",
        "what a style adds to a call at a tiny size, each call waited for",
        Kind.WARM,
        "s",
        turn=HOST,
        added=True,
        shown=True,
    ),
    Metric(
        "host_cost_pipelined",
        "host cost,\npipelined",
        "the same, when only the last of several calls is waited for",
        Kind.WARM,
        "s",
        turn=HOST,
        added=True,
    ),
    Metric(
        "epoch_by_chunk",
        "epoch\nby chunk",
        "an epoch, one call a chunk",
        Kind.WARM,
        "s",
        turn="epoch",
        styles=("pure", "tuned"),
        weight=0.3,
    ),
    Metric(
        "epoch_by_scan",
        "epoch\nby scan",
        "an epoch as one compiled scan",
        Kind.WARM,
        "s",
        turn="epoch",
        styles=("pure", "tuned"),
        weight=0.3,
    ),
    Metric(
        "sample",
        "500\ncharacters",
        "500 characters written",
        Kind.WARM,
        "s",
        turn="sample",
        styles=("pure",),
        weight=0.3,
    ),
    Metric(
        "import",
        "import",
        "importing the library in a fresh process",
        Kind.COLD,
        "s",
        of_library=True,
        shown=True,
    ),
    Metric("init", "init", "the library's own initialiser", Kind.COLD, "s", of_library=True),
    Metric("trace", "trace", "Python to jaxpr", Kind.COLD, "s"),
    Metric("lower", "lower", "jaxpr to StableHLO", Kind.COLD, "s"),
    Metric(
        "compile",
        "compile",
        "StableHLO to a program, by XLA",
        Kind.COLD,
        "s",
        of_program=True,
        shown=True,
    ),
    Metric("first_step", "first\nstep", "the first call after compiling", Kind.COLD, "s"),
    Metric(
        "peak_rss",
        "peak\nmemory",
        "largest resident memory of a fresh process",
        Kind.COLD,
        "B",
        shown=True,
    ),
    Metric(
        "final_loss",
        "loss,\nsame weights",
        "after a short training, from the same weights",
        Kind.ONCE,
        "nats",
    ),
    Metric(
        "final_loss_own",
        "loss,\nown weights",
        "the same from the library's own initialiser",
        unit="nats",
    ),
    Metric("python_calls", "Python\ncalls", "calls of one warm step", shown=True),
    Metric("python_starts", "Python\nstarts", "functions that a warm step starts"),
    Metric("jaxpr_equations", "jaxpr\nequations", "of the step, nested ones included"),
    Metric("hlo_instructions", "HLO\ninstr.", "of the optimised program"),
    Metric("flops", "flops", "of the compiled program, by XLA's count"),
    Metric(
        "bytes_accessed", "bytes\naccessed", "by the compiled program, by XLA's count", unit="B"
    ),
    Metric("temp_bytes", "temp\nbytes", "that the program needs beside its arguments", unit="B"),
    Metric("argument_bytes", "argument\nbytes", "of the program", unit="B"),
    Metric(
        "alias_bytes",
        "aliased\nbytes",
        "of outputs that take the place of donated arguments",
        unit="B",
        neutral=True,
    ),
    Metric(
        "live_bytes",
        "live\nbytes",
        "of arrays that a step keeps between calls: parameters, Adam's moments, any second copy",
        unit="B",
    ),
    Metric("compilations_first", "compiled\nat first", "programs in the first call"),
    Metric("compilations_warm", "compiled\nwarm", "programs in later calls"),
    Metric("parameters", "parameters", "numbers that are trained", neutral=True),
    Metric("code_lines", "lines", "of the entrant's file", neutral=True),
)
"""All metrics, in the order of tables."""
METRICS = {metric.name: metric for metric in TABLE if metric.kind is not Kind.EXACT}
"""What is sampled, by name."""
EXACT = {metric.name: metric for metric in TABLE if metric.kind is Kind.EXACT}
"""What is counted, by name."""
COLD = tuple(m.name for m in TABLE if m.kind is Kind.COLD)
STARTUP = tuple(m.name for m in TABLE if m.kind is Kind.COLD and m.unit == "s")
"""What a process pays for before its second step."""


def label(name: str, between: str = " ") -> str:
    """Return what a metric is called in a table; a line break there is `between`."""
    metric = METRICS.get(name) or EXACT.get(name)
    return metric.label.replace("\n", between) if metric else name.replace("_", " ")
