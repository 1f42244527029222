"""The one table of metrics: what each is called, its unit, how it is sampled and compared.

A new metric is a row here, the code that samples it (`bench.worker`), and the `test_*.py` in which
pytest sees it; tables, pages, exports and gates take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bench.cells import TOGETHER, Arm

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
    kind: Kind
    label: str
    """In a table's head; a line break where a narrow column has one."""
    help: str
    """What it is, in a few words."""
    unit: str = "s"
    """`s`, `B`, `nats`, or nothing for a number."""
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
    also: tuple[Arm, ...] = ()
    """That have it too."""
    tiny_only: bool = False
    """It is the host's time, which shows where the device has next to nothing to do."""
    weight: float = 1.0
    """Share of the warm time that its turn gets, beside the others'."""
    neutral: bool = False
    """Less is not better."""
    shown: bool = False
    """Whether a page shows it before its reader picks columns."""

    def applies(self, cell: Cell) -> bool:
        """Tell whether `cell` has this metric."""
        fits_style = not self.pure_only or cell.is_pure or cell.arm in self.also
        return fits_style and (not self.tiny_only or cell.workload in TINY)

    def usual(self, cell: Cell) -> bool:
        """Tell whether it is measured where no metric is named: of a sweep, that is the step."""
        return self.name == "step" or cell.workload not in TOGETHER["sweep"]


TUNED = (Arm("pure_jax", "tuned"),)
TINY = ("toy",)
"""Workloads whose device work is negligible."""
HOST = "host_cost"

TABLE = (
    Metric(
        "step",
        Kind.WARM,
        "step",
        "one synchronised training step",
        turn="step",
        weight=3,
        shown=True,
    ),
    Metric(
        HOST,
        Kind.WARM,
        "host\ncost",
        "what a style adds to a call at a tiny size, each call waited for",
        turn=HOST,
        tiny_only=True,
        added=True,
        shown=True,
    ),
    Metric(
        "host_cost_pipelined",
        Kind.WARM,
        "host cost,\npipelined",
        "the same, when only the last of several calls is waited for",
        turn=HOST,
        tiny_only=True,
        added=True,
    ),
    Metric(
        "epoch_by_chunk",
        Kind.WARM,
        "epoch\nby chunk",
        "an epoch, one call a chunk",
        turn="epoch",
        pure_only=True,
        also=TUNED,
        weight=0.3,
    ),
    Metric(
        "epoch_by_scan",
        Kind.WARM,
        "epoch\nby scan",
        "an epoch as one compiled scan",
        turn="epoch",
        pure_only=True,
        also=TUNED,
        weight=0.3,
    ),
    Metric(
        "sample",
        Kind.WARM,
        "500\ncharacters",
        "500 characters written",
        turn="sample",
        pure_only=True,
        weight=0.3,
    ),
    Metric(
        "import",
        Kind.COLD,
        "import",
        "importing the library in a fresh process",
        of_library=True,
        shown=True,
    ),
    Metric("init", Kind.COLD, "init", "the library's own initialiser", of_library=True),
    Metric("trace", Kind.COLD, "trace", "Python to jaxpr"),
    Metric("lower", Kind.COLD, "lower", "jaxpr to StableHLO"),
    Metric(
        "compile",
        Kind.COLD,
        "compile",
        "StableHLO to a program, by XLA",
        of_program=True,
        shown=True,
    ),
    Metric("first_step", Kind.COLD, "first\nstep", "the first call after compiling"),
    Metric(
        "peak_rss",
        Kind.COLD,
        "peak\nmemory",
        "largest resident memory of a fresh process",
        unit="B",
        shown=True,
    ),
    Metric(
        "final_loss",
        Kind.ONCE,
        "loss,\nsame weights",
        "after a short training, from the same weights",
        unit="nats",
    ),
    Metric(
        "final_loss_own",
        Kind.EXACT,
        "loss,\nown weights",
        "the same from the library's own initialiser",
        unit="nats",
    ),
    Metric(
        "python_calls", Kind.EXACT, "Python\ncalls", "calls of one warm step", unit="", shown=True
    ),
    Metric(
        "python_starts", Kind.EXACT, "Python\nstarts", "functions that a warm step starts", unit=""
    ),
    Metric(
        "jaxpr_equations",
        Kind.EXACT,
        "jaxpr\nequations",
        "of the step, nested ones included",
        unit="",
    ),
    Metric("hlo_instructions", Kind.EXACT, "HLO\ninstr.", "of the optimised program", unit=""),
    Metric("flops", Kind.EXACT, "flops", "of the compiled program, by XLA's count", unit=""),
    Metric(
        "bytes_accessed",
        Kind.EXACT,
        "bytes\naccessed",
        "by the compiled program, by XLA's count",
        unit="B",
    ),
    Metric(
        "temp_bytes",
        Kind.EXACT,
        "temp\nbytes",
        "that the program needs beside its arguments",
        unit="B",
    ),
    Metric("argument_bytes", Kind.EXACT, "argument\nbytes", "of the program", unit="B"),
    Metric(
        "compilations_first",
        Kind.EXACT,
        "compiled\nat first",
        "programs in the first call",
        unit="",
    ),
    Metric("compilations_warm", Kind.EXACT, "compiled\nwarm", "programs in later calls", unit=""),
    Metric(
        "parameters", Kind.EXACT, "parameters", "numbers that are trained", unit="", neutral=True
    ),
    Metric("code_lines", Kind.EXACT, "lines", "of the entrant's file", unit="", neutral=True),
)
"""All metrics, in the order of tables."""
METRICS = {metric.name: metric for metric in TABLE if metric.kind is not Kind.EXACT}
"""What is sampled, by name."""
EXACT = {metric.name: metric for metric in TABLE if metric.kind is Kind.EXACT}
"""What is counted, by name."""
COLD = tuple(m.name for m in TABLE if m.kind is Kind.COLD)
STARTUP = tuple(m.name for m in TABLE if m.kind is Kind.COLD and m.unit == "s")
"""What a process pays for before its second step."""
WARM = tuple(m.name for m in TABLE if m.kind is Kind.WARM)


def label(name: str, between: str = " ") -> str:
    """Return what a metric is called in a table; a line break there is `between`."""
    metric = METRICS.get(name) or EXACT.get(name)
    return metric.label.replace("\n", between) if metric else name.replace("_", " ")
