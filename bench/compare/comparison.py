"""Two sides compared, however they were measured: every row judged, and whether anything is worse.

`bakeoff compare` makes a comparison of run files, `bakeoff ab` one of both sides measured in turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import Cell
from bench.compare.gate import Decision
from bench.metrics import EXACT, METRICS
from bench.report.sentences import AGREE
from bench.stats.verdicts import Verdict, verdict
from bench.summary import number

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping, Sequence

    from bench.compare.conditions import Difference
    from bench.compare.gate import Accept, Gate
    from bench.stats.ratios import Estimate

type Key = tuple[Cell, str]
"""A cell and a metric."""

LOSSES = ("final_loss", "final_loss_own")
"""Exact to within what is called the same loss: a compiler may change the last bits."""


class Status(IntEnum):
    """What a comparison comes to: the exit status."""

    NOT_WORSE = 0
    WORSE = 1
    CANNOT_SAY = 2


class Outcome(StrEnum):
    """What is said of an exact metric."""

    EQUAL = "equal"
    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"
    """Neither is better."""


@dataclass(frozen=True)
class Side:
    """What one side is."""

    name: str
    """Of a run file, or what was asked for."""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    commit: str = ""
    when: str = ""


class Values(NamedTuple):
    """What is shown of a row beside its ratio."""

    base: float
    """Median, in the metric's unit."""
    new: float
    base_ratio: float | None = None
    """To the baseline of its own run, where those ratios are what is compared."""
    new_ratio: float | None = None
    absolute: bool = False
    """What is compared are times of different hours."""


@dataclass(frozen=True)
class Row:
    """A metric that varies, in one cell."""

    cell: Cell
    metric: str
    values: Values | None = None
    """None where there is nothing to compare."""
    ratio: float | None = None
    """New to base; above one: slower."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval; None where there is no bound."""
    p: float | None = None
    """Of "no difference", corrected for all rows of its metric and workload."""
    verdict: Verdict | None = None
    """None where the row is left out, or there is nothing to compare."""
    threshold: float | None = None
    """By how much it may be slower, as a fraction."""
    worse: bool = False
    accepted: Accept | None = None
    note: str = ""
    """Why it is worse, or is not though it is slower."""
    missing: str = ""
    """Why there is nothing to compare."""
    ignored: bool = False
    """The gate leaves it out."""

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return METRICS[self.metric].unit

    @property
    def settled(self) -> bool:
        """Whether something is known: that it differs, or surely not by more than is allowed."""
        if self.verdict is Verdict.INCONCLUSIVE and self.threshold and self.high is not None:
            return self.high <= 1 + self.threshold
        return self.verdict not in (None, Verdict.INCONCLUSIVE)

    @property
    def changed(self) -> bool:
        """Whether it is slower or faster."""
        return self.verdict in (Verdict.SLOWER, Verdict.FASTER)


@dataclass(frozen=True)
class ExactRow:
    """A metric that comes out the same every time, in one cell."""

    cell: Cell
    metric: str
    base: float
    new: float
    outcome: Outcome
    threshold: float = 0.0
    worse: bool = False
    accepted: Accept | None = None
    note: str = ""
    ignored: bool = False

    @property
    def changed(self) -> bool:
        """Whether it is another number."""
        return self.outcome is not Outcome.EQUAL and not self.ignored


@dataclass(frozen=True)
class Failure:
    """A cell that failed on one side, or both."""

    cell: Cell
    base: str | None
    """Why; None where it did not."""
    new: str | None
    worse: bool


@dataclass(frozen=True)
class Comparison:
    """All that is found of a new side beside a base."""

    bases: tuple[Side, ...]
    new: Side
    margin: float
    """Inside of which, as a fraction, two times are equivalent."""
    rows: tuple[Row, ...]
    exact: tuple[ExactRow, ...] = ()
    failures: tuple[Failure, ...] = ()
    only_base: tuple[Cell, ...] = ()
    only_new: tuple[Cell, ...] = ()
    differences: tuple[Difference, ...] = ()
    """Conditions that differ, and may."""
    warnings: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    """How to read it, in sentences."""

    @property
    def base(self) -> Side:
        """The base, or the last of several."""
        return self.bases[-1]

    @property
    def worse(self) -> tuple[Row | ExactRow | Failure, ...]:
        """All that is worse."""
        every: tuple[Row | ExactRow | Failure, ...] = (*self.failures, *self.rows, *self.exact)
        return tuple(each for each in every if each.worse)

    @property
    def judged(self) -> tuple[Row, ...]:
        """Rows that are compared and not left out."""
        return tuple(row for row in self.rows if row.verdict is not None)

    @property
    def status(self) -> Status:
        """What it comes to.

        One settled row is enough to pass: a gate that failed whenever a row out of a hundred was
        not told apart would fail every day. But where times were asked for and none is known,
        exact counts that are the same must not pass for "nothing is slower".
        """
        if self.worse:
            return Status.WORSE
        gated = [row for row in self.rows if not row.ignored]
        if any(row.settled for row in gated):
            return Status.NOT_WORSE
        counted = any(not row.ignored for row in self.exact)
        return Status.NOT_WORSE if counted and not gated else Status.CANNOT_SAY


def time_rows(
    estimates: Mapping[Key, Estimate],
    values: Mapping[Key, Values],
    gate: Gate,
    margin: float,
    today: datetime.date,
    missing: Mapping[Key, str] | None = None,
) -> tuple[Row, ...]:
    """Return what is said of metrics that vary; verdicts are properties of the intervals shown.

    Args:
        estimates: New to base.
        values: What is shown of them; the same keys.
        gate: What counts as worse.
        margin: Inside of which two times are equivalent.
        today: Decides whether an accepted shift still is.
        missing: Why there is no estimate, by key.
    """
    out = []
    for key, estimate in estimates.items():
        low, high = map(number, estimate.interval)
        if gate.ignores(*key):
            row = Row(*key, values[key], estimate.ratio, low, high, ignored=True)
            out.append(row)
            continue
        decision = Decision(gate.limit(*key, margin), worse=False)
        said = verdict(estimate, margin)
        if said is Verdict.SLOWER:
            decision = gate.decide(*key, estimate.ratio, margin, today)
        out.append(
            Row(
                *key,
                values[key],
                estimate.ratio,
                low,
                high,
                p=estimate.p,
                verdict=said,
                **decision._asdict(),
            )
        )
    lacking = (missing or {}).items()
    return (*out, *(Row(*key, missing=why, ignored=gate.ignores(*key)) for key, why in lacking))


def exact_rows(
    base: Mapping[Key, float],
    new: Mapping[Key, float],
    gate: Gate,
    margin: float,
    today: datetime.date,
) -> tuple[ExactRow, ...]:
    """Return what is said of metrics that are the same every time, of what both sides have."""
    out = []
    for key, value in base.items():
        if key not in new:
            continue
        found = outcome(key[1], value, new[key])
        decision = Decision(gate.limit(*key, margin), worse=False)
        ignored = gate.ignores(*key)
        if found is Outcome.WORSE and not ignored:
            ratio = new[key] / value if value > 0 else math.inf
            decision = gate.decide(*key, ratio, margin, today)
        out.append(
            ExactRow(*key, value, new[key], found, **decision._asdict(), ignored=ignored),
        )
    return tuple(out)


def outcome(metric: str, base: float, new: float) -> Outcome:
    """Return what is said of two exact numbers."""
    if abs(new - base) <= (AGREE if metric in LOSSES else 0):
        return Outcome.EQUAL
    if metric in EXACT and EXACT[metric].neutral:
        return Outcome.CHANGED
    return Outcome.WORSE if new > base else Outcome.BETTER


def failures(
    base: Mapping[Cell, str | None], new: Mapping[Cell, str | None], gate: Gate
) -> tuple[Failure, ...]:
    """Return the cells of both sides that failed on one of them: worse, if only on the new one.

    Args:
        base: Why a cell failed; None where it did not.
        new: The same.
        gate: What is left out.
    """
    return tuple(
        Failure(cell, why, new[cell], worse=why is None and not gate.ignores(cell, None))
        for cell, why in base.items()
        if cell in new and (why is not None or new[cell] is not None)
    )


def only(cells: Sequence[Cell], others: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the cells that are not among others."""
    return tuple(cell for cell in cells if cell not in others)
