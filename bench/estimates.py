"""Estimates: the one table of numbers with their intervals, in memory and on disk.

Terminal, page, Markdown, CSV, charts, comparisons and histories show rows of it. They are made in
`bench.stats` alone: `bench.stats.estimate` makes them from samples.
"""

from __future__ import annotations

import math
import statistics
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from bench.cells import Cell
from bench.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

type Form = Literal["ratio", "added", "amount"]
LARGEST = 1e18
"""Largest amount and sample in any unit, and inverse of the smallest time: bytes and operations of
the largest models are below. Ends of intervals may be any number."""
type Positive = Annotated[float, msgspec.Meta(ge=1 / LARGEST, le=LARGEST)]
type NotNegative = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
type Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
type Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

MARGIN = 0.02
"""Fraction within which two times are equivalent, unless another one is given: on shared machines
two runs of one program differ by about as much in a bad hour."""
ALPHA = 0.05
"""Probability of any false difference in a family of comparisons: the usual level."""
POWER = 0.8
"""Probability that a detectable difference is found: the usual choice for minimum detectable
effects."""
MIN_WORKERS = 3
"""Workers below which a warm estimate is preliminary: the effect of a process on an arm is then a
guess."""
MIN_COLD = 3
"""Cold samples below which a cell has no cold estimate: two gave intervals such as 1 (0 to 9), five
of each library took a sixth of a default run for ±3 %."""
WIDEST_ANSWER = 2.0
"""Largest ratio of an interval's ends that is an answer where no difference is shown: beyond, a
time may have doubled or halved, and no choice between two styles would be safe."""
PROGRAM, COUNT = "same program", "count"
"""Ways to settle a verdict without timing: a proof with a known host cost; a number without
noise."""


class Verdict(StrEnum):
    """Comparison of a value with its reference: a property of the interval that is shown."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """The interval is inside the margin, even where it excludes equality."""
    INCONCLUSIVE = "inconclusive"


class Estimate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A number, its interval, its cell and its reference: one row of the table."""

    cell: Cell
    metric: str
    form: Form
    """Kind of number: a `ratio` to the reference, seconds `added` to it, or an `amount` by
    itself."""
    value: float
    unit: str = ""
    """Unit of an amount or of added time: `s`, `B`, `nats`, or nothing for a number."""
    environment: str = ""
    """Environment of the measurement; empty: the shared one of a run."""
    against: str = ""
    """Reference of a comparison: an arm (`pure_jax/pure`), an environment, a file or a day; empty
    for an amount."""
    low: float | None = None
    """Lower end of the 95 % interval, corrected for its family; None where there is no bound."""
    high: float | None = None
    """Upper end of the same interval."""
    standard_error: NotNegative | None = None
    """Standard error in `unit`; for a ratio, that of its logarithm. None if unknown, 0 if exact."""
    df: NotNegative = 0.0
    """Degrees of freedom of the standard error; 0 if unknown or exact."""
    p: Probability | None = None
    """p-value of no difference, corrected in the same way."""
    verdict: Verdict | None = None
    workers: Count = 0
    """Processes, or pairs of them, that it rests on."""
    blocks: Count = 0
    """Number of blocks measured; a cold metric has one sample in each."""
    settled_by: str = ""
    """`PROGRAM` or `COUNT`; empty where timing settled it."""
    level: Positive | None = None
    """Seconds of the reference's call; the added time was measured as a fraction of it."""
    bound: NotNegative | None = None
    """Largest fraction by which host cost can change a step that has the baseline's program."""

    @property
    def kind(self) -> Kind:
        """Kind of its metric."""
        return METRICS[self.metric].kind

    @property
    def place(self) -> tuple[str, str]:
        """Its workload and backend."""
        return self.cell.workload, self.cell.backend

    @property
    def is_noiseless(self) -> bool:
        """Whether its standard error is 0."""
        return self.standard_error == 0

    @property
    def ends(self) -> list[float]:
        """Lower end, value and upper end, as far as they are known."""
        return [end for end in (self.low, self.value, self.high) if end is not None]

    @property
    def proven_bound(self) -> float | None:
        """Fraction within which its program proves a step equal to the baseline's; None if not."""
        return self.bound if self.settled_by == PROGRAM else None

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Ends between which a comparison lies: those that its program proves, or its interval."""
        if self.proven_bound is not None:
            return 1 - self.proven_bound, 1 + self.proven_bound
        return (self.value, self.value) if self.is_noiseless else (self.low, self.high)

    @property
    def no_difference(self) -> float:
        """Value that means no difference."""
        return 1.0 if self.form == "ratio" else 0.0

    @property
    def differs(self) -> bool:
        """Whether the interval excludes `no_difference`."""
        above = self.low is not None and self.low > self.no_difference
        return above or (self.high is not None and self.high < self.no_difference)

    @property
    def is_unknown(self) -> bool:
        """Whether it is no answer yet: it may be no difference, or one of `WIDEST_ANSWER`.

        Added time is judged by the whole call's. What certainly differs is an answer, and so are
        amounts.
        """
        settled = self.verdict not in (None, Verdict.INCONCLUSIVE)
        if self.form == "amount" or settled or self.differs:
            return False
        (low, high), level = self.limits, 0.0 if self.form == "ratio" else self.level
        if level is None:  # the difference of two counts
            return False
        return low is None or high is None or high + level > WIDEST_ANSWER * (low + level)

    @property
    def is_preliminary(self) -> bool:
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


class EstimateTable:
    """Estimates by cell and metric: amounts and comparisons."""

    def __init__(self, rows: Iterable[Estimate]) -> None:
        self._amounts: dict[tuple[Cell, str], Estimate] = {}
        self._compared: dict[tuple[Cell, str], Estimate] = {}
        for row in rows:
            where = self._amounts if row.form == "amount" else self._compared
            where.setdefault((row.cell, row.metric), row)

    def amount(self, cell: Cell, metric: str) -> Estimate | None:
        """Return a cell's time, size or count; of several environments, the first one's."""
        return self._amounts.get((cell, metric))

    def comparison(self, cell: Cell, metric: str) -> Estimate | None:
        """Return a cell's comparison with its reference: a ratio or an added time."""
        return self._compared.get((cell, metric))


def group_by_key[K, V](pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return key → its values, in their order."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def find_detectable_difference(rows: Iterable[Estimate]) -> float:
    """Return the smallest difference that a family of ratios finds in four runs of five.

    It is the median over cells of half a corrected interval plus t(`POWER`) standard errors, as a
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
