"""Estimates: the one table of numbers with their intervals, in memory and on disk.

Terminal, page, Markdown, CSV, charts, comparisons and histories show rows of it. They are made from
samples by `bench.stats.estimate` alone.
"""

from __future__ import annotations

import math
import statistics
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import msgspec

from bench.cells import Cell
from bench.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

type Form = Literal["ratio", "added", "amount"]

MARGIN = 0.02
"""Fraction within which two times are equivalent, unless another one is given: on shared machines
two runs of one program differ by about as much in a bad hour."""
ALPHA = 0.05
"""Odds of any false difference among all that are compared together: the usual level."""
POWER = 0.8
"""Odds with which a detectable difference is found: the usual choice for minimum detectable
effects."""
MIN_WORKERS = 3
"""Workers with fewer of which a warm estimate is preliminary: what a process adds to an arm is then
a guess."""
MIN_COLD = 3
"""Cold samples of a cell with fewer of which nothing is said of it: two gave intervals such as
1 (0 to 9), five of each library took a sixth of a default run for ±3 %."""
PROGRAM, COUNT = "same program", "count"
"""How a verdict was reached, if not by timing: by a proof and a known host cost; by a number
without noise."""


class Verdict(StrEnum):
    """What is said about a value beside its reference: a property of the interval that is shown."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """The interval is inside the margin, even where it leaves out no difference."""
    INCONCLUSIVE = "inconclusive"


class Estimate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A number with its interval, its cell, and what it is compared with: one row of the table."""

    cell: Cell
    metric: str
    form: Form
    """`ratio` to what it is compared with; seconds `added` to that; or an `amount` by itself."""
    value: float
    unit: str = ""
    """Unit of an amount or of what is added: `s`, `B`, `nats`, or nothing for a number."""
    environment: str = ""
    """That it was measured in; empty for the shared one of a run."""
    against: str = ""
    """Reference of a comparison: an arm (`pure_jax/pure`), an environment, a file or a day; empty
    for an amount."""
    low: float | None = None
    """Lower end of the 95 % interval, corrected for its family; None where there is no bound."""
    high: float | None = None
    """Upper end."""
    standard_error: float | None = None
    """A ratio's is that of its logarithm; others are in `unit`. None where nothing is known, 0
    where the value is exact."""
    df: float = 0.0
    """Degrees of freedom of the standard error; 0 where nothing is known, or the value is exact."""
    p: float | None = None
    """Probability of no difference, corrected in the same way."""
    verdict: Verdict | None = None
    workers: int = 0
    """Processes, or pairs of them, that it rests on."""
    blocks: int = 0
    """Blocks that it rests on; a cold metric has one sample in each."""
    settled_by: str = ""
    """`PROGRAM` or `COUNT`; empty where timing alone says what is known."""
    level: float | None = None
    """Seconds of the reference's call that what is added was measured as a fraction of."""
    bound: float | None = None
    """Fraction by which a step of the baseline's program can differ, by its host cost."""

    @property
    def kind(self) -> Kind:
        """How its metric is sampled."""
        return METRICS[self.metric].kind

    @property
    def place(self) -> tuple[str, str]:
        """Its workload and backend."""
        return self.cell.workload, self.cell.backend

    @property
    def exact(self) -> bool:
        """Whether there is no doubt about it."""
        return self.standard_error == 0

    @property
    def no_difference(self) -> float:
        """The value that is no difference."""
        return 1.0 if self.form == "ratio" else 0.0

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out no difference."""
        above = self.low is not None and self.low > self.no_difference
        return above or (self.high is not None and self.high < self.no_difference)

    @property
    def preliminary(self) -> bool:
        """Whether too few workers have measured it."""
        return self.kind is Kind.WARM and self.workers < MIN_WORKERS

    @property
    def half_width(self) -> float:
        """Half the width of the interval: of a ratio, of its logarithm; infinite if unknown."""
        if self.low is None or self.high is None:
            return math.inf
        if self.form == "ratio":
            return math.log(self.high / self.value)
        return (self.high - self.low) / 2

    def within(self, margin: float) -> bool:
        """Tell whether a ratio is shown to be as good as 1: its whole interval is in the margin."""
        if self.verdict is Verdict.EQUIVALENT:
            return True
        if self.form != "ratio" or self.low is None or self.high is None:
            return False
        return 1 / (1 + margin) <= self.low and self.high <= 1 + margin  # as verdicts have it


class EstimateTable:
    """Estimates, by what they are of."""

    def __init__(self, rows: Iterable[Estimate] = ()) -> None:
        self.rows = list(rows)
        self._amounts: dict[tuple[Cell, str], Estimate] = {}
        self._compared: dict[tuple[Cell, str], Estimate] = {}
        for row in self.rows:
            where = self._amounts if row.form == "amount" else self._compared
            where.setdefault((row.cell, row.metric), row)

    def amount(self, cell: Cell, metric: str) -> Estimate | None:
        """Return a cell's time, size or count; of several environments, the first one's."""
        return self._amounts.get((cell, metric))

    def comparison(self, cell: Cell, metric: str) -> Estimate | None:
        """Return a cell's comparison with its reference: a ratio, or what is added."""
        return self._compared.get((cell, metric))

    def detectable(self, metric: str, workload: str, backend: str) -> float:
        """Return the smallest difference that a family of a run finds; see there."""
        family = metric, (workload, backend)
        return detectable(row for row in self.rows if (row.metric, row.place) == family)


def grouped[K, V](pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return the values that go with each key, in their order."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def detectable(rows: Iterable[Estimate]) -> float:
    """Return the smallest difference that a family of ratios calls in four runs of five.

    The median over cells of half a corrected interval plus t(`POWER`) standard errors, as a
    fraction: the minimum detectable effect (Bloom 1995, "Minimum detectable effects"). Infinite
    where nothing is known.
    """
    from scipy import special  # takes a third of a second to import

    needed = [
        row.half_width + float(special.stdtrit(row.df, POWER)) * row.standard_error
        for row in rows
        if row.form == "ratio" and row.standard_error and row.df > 0
        if not row.cell.is_control and math.isfinite(row.half_width)
    ]
    middle = statistics.median(needed) if needed else math.inf
    return math.expm1(middle) if middle < 700 else math.inf
