"""Two sides compared, however they were measured: one kind of row, judged by one gate.

`bakeoff compare` makes a comparison of run files, `bakeoff ab` one of both sides measured in turns.
Their JSON is these types. Ratios are new to base; all metrics are costs, so above 1 is slower.
"""

from __future__ import annotations

import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench.compare.conditions import ConditionChange
from bench.compare.gate import Accept
from bench.metrics import EXACT, METRICS
from bench.report import wording
from bench.report.findings import AGREE
from bench.runfile import CellName
from bench.runfile.section import number
from bench.stats.verdicts import Verdict, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.compare.gate import Gate
    from bench.stats.ratios import Estimate

type Key = tuple[Cell, str]
"""A cell and a metric."""

KIND, VERSION = "jax-bakeoff comparison", 1
LOSSES = ("final_loss", "final_loss_own")
"""Exact to within what is called the same loss: a compiler may change the last bits."""


class Status(IntEnum):
    """What a comparison comes to: the exit status."""

    NOT_WORSE = 0
    WORSE = 1
    CANNOT_SAY = 2


class CountOutcome(StrEnum):
    """What is said of an exact metric."""

    EQUAL = "equal"
    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"
    """Neither is better."""


class Origin(msgspec.Struct, frozen=True):
    """Where the numbers of one side come from."""

    name: str
    """Of a run file, or what was asked for."""
    versions: dict[str, str] = {}
    machine: str = ""
    commit: str = ""
    when: str = ""


class CellRow(CellName, kw_only=True):
    """A cell of one side or of both."""

    @property
    def arm(self) -> str:
        """Its entrant and style, in words."""
        return wording.name(self.cell)

    def __str__(self) -> str:
        return f"{self.arm} at {self.place}"


class ComparedRow(CellRow, kw_only=True):
    """What is said of a metric in one cell, or of a cell that failed."""

    metric: str = ""
    """Empty where a cell failed."""
    unit: str = ""
    base: float | str | None = None
    """The median or the exact number, in the metric's unit; of a cell that failed, why, or null."""
    new: float | str | None = None
    base_ratio: float | None = None
    """To the baseline of its own run, where those ratios are what is compared."""
    new_ratio: float | None = None
    absolute: bool = False
    """Times of different hours are compared."""
    ratio: float | None = None
    """New to base."""
    low: float | None = None
    """Ends of the 95 % interval; null where there is no bound."""
    high: float | None = None
    p: float | None = None
    """Of "no difference", corrected for all rows of its metric and workload."""
    verdict: Verdict | None = None
    """Of a metric that varies; null where the row is left out, or there is nothing to compare."""
    outcome: CountOutcome | None = None
    """Of an exact metric."""
    missing: str = ""
    """Why there is nothing to compare."""
    threshold: float | None = None
    """By how much it may be worse, as a fraction."""
    worse: bool = False
    accepted: Accept | None = None
    note: str = ""
    """Why it is worse, or is not though it is slower."""
    ignored: bool = False
    """The gate leaves it out."""

    @property
    def settled(self) -> bool:
        """Whether something is known: that it differs, or surely not by more than is allowed."""
        if self.verdict is Verdict.INCONCLUSIVE and self.threshold and self.high is not None:
            return self.high <= 1 + self.threshold
        return self.verdict not in (None, Verdict.INCONCLUSIVE)

    @property
    def more(self) -> bool:
        """Whether it is known to be slower, or a larger number."""
        return self.verdict is Verdict.SLOWER or self.outcome is CountOutcome.WORSE

    @property
    def changed(self) -> bool:
        """Whether it is known to be another than before."""
        if self.outcome is not None:
            return self.outcome is not CountOutcome.EQUAL and not self.ignored
        return self.verdict in (Verdict.SLOWER, Verdict.FASTER)


class Comparison(msgspec.Struct, frozen=True):
    """All that is found of a new side beside a base."""

    base: tuple[Origin, ...]
    """One, or several runs of the same code."""
    new: Origin
    margin: float
    """Inside of which, as a fraction, two times are equivalent."""
    rows: tuple[ComparedRow, ...]
    """Metrics that vary."""
    exact: tuple[ComparedRow, ...] = ()
    """Metrics that come out the same every time."""
    failures: tuple[ComparedRow, ...] = ()
    """Cells that failed on one side, or both."""
    only_base: tuple[CellRow, ...] = ()
    only_new: tuple[CellRow, ...] = ()
    differences: tuple[ConditionChange, ...] = ()
    """Conditions that differ, and may."""
    warnings: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    """How to read it, in sentences."""

    @property
    def judged(self) -> tuple[ComparedRow, ...]:
        """Rows that vary, are compared and not left out."""
        return tuple(row for row in self.rows if row.verdict is not None)

    @property
    def status(self) -> Status:
        """What it comes to.

        One settled row is enough to pass: a gate that failed whenever a row out of a hundred was
        inconclusive would fail every day. But where times were asked for and none is known, exact
        counts that are the same must not pass for "nothing is slower".
        """
        if any(row.worse for row in (*self.failures, *self.rows, *self.exact)):
            return Status.WORSE
        gated = [row for row in self.rows if not row.ignored]
        if any(row.settled for row in gated):
            return Status.NOT_WORSE
        counted = any(not row.ignored for row in self.exact)
        return Status.NOT_WORSE if counted and not gated else Status.CANNOT_SAY


class Evidence(NamedTuple):
    """What a side is, beside its times."""

    origin: Origin
    cells: Sequence[Cell]
    failed: Mapping[Cell, str | None]
    """Why cells failed; None where they did not."""
    exact: Mapping[Key, float]


def comparison_of(
    base: Evidence,
    new: Evidence,
    times: Iterable[ComparedRow],
    *,
    gate: Gate,
    margin: float,
    today: datetime.date | None = None,
    warnings: Sequence[str] = (),
    older: Sequence[Origin] = (),
    **about: Any,
) -> Comparison:
    """Return what a new side is beside a base.

    Args:
        base: One side.
        new: The other one.
        times: The rows that vary, as `varying` and `missing` make them.
        gate: What counts as worse.
        margin: Inside of which, as a fraction, two times are equivalent.
        today: Decides whether an accepted shift still is.
        warnings: Reasons to doubt it, in sentences.
        older: Further base runs, before the base.
        about: Conditions that differ and may, and how to read it, in sentences.
    """
    day = today or datetime.date.today()

    def judged(rows: Iterable[ComparedRow]) -> tuple[ComparedRow, ...]:
        return tuple(gate.judged(row, margin, day) for row in rows)

    rows, exact = judged(times), judged(counts(base.exact, new.exact))
    return Comparison(
        base=(*older, base.origin),
        new=new.origin,
        margin=margin,
        rows=rows,
        exact=exact,
        failures=judged(failures(base.failed, new.failed)),
        only_base=tuple(CellRow(**c.facts) for c in base.cells if c not in new.cells),
        only_new=tuple(CellRow(**c.facts) for c in new.cells if c not in base.cells),
        warnings=(*gate.unmatched((*rows, *exact)), *warnings),
        **about,
    )


def varying(key: Key, estimate: Estimate, margin: float, **shown: Any) -> ComparedRow:
    """Return a row of a metric that varies, `estimate` being new to base.

    Its verdict belongs to the interval shown. `shown` are the sides.
    """
    low, high = map(number, estimate.interval)
    return ComparedRow(
        **key[0].facts,
        metric=key[1],
        unit=METRICS[key[1]].unit,
        ratio=estimate.ratio,
        low=low,
        high=high,
        p=estimate.p,
        verdict=verdict(estimate, margin),
        **shown,
    )


def missing(key: Key, why: str) -> ComparedRow:
    """Return a row of a metric that cannot be compared."""
    cell, metric = key
    return ComparedRow(**cell.facts, metric=metric, unit=METRICS[metric].unit, missing=why)


def counts(base: Mapping[Key, float], new: Mapping[Key, float]) -> Iterator[ComparedRow]:
    """Yield the rows of exact metrics that both sides have."""
    for (cell, metric), before in base.items():
        if (cell, metric) in new:
            after = new[cell, metric]
            yield ComparedRow(
                **cell.facts,
                metric=metric,
                unit="nats" if metric in LOSSES else "count",
                base=before,
                new=after,
                ratio=after / before if before > 0 else None,
                outcome=outcome(metric, before, after),
            )


def failures(
    base: Mapping[Cell, str | None], new: Mapping[Cell, str | None]
) -> Iterator[ComparedRow]:
    """Yield the cells of both sides that failed on one of them."""
    for cell, why in base.items():
        if cell in new and (why is not None or new[cell] is not None):
            yield ComparedRow(**cell.facts, base=why, new=new[cell])


def outcome(metric: str, base: float, new: float) -> CountOutcome:
    """Return what is said of two exact numbers."""
    if abs(new - base) <= (AGREE if metric in LOSSES else 0):
        return CountOutcome.EQUAL
    if metric in EXACT and EXACT[metric].neutral:
        return CountOutcome.CHANGED
    return CountOutcome.WORSE if new > base else CountOutcome.BETTER


def comparison_data(comparison: Comparison, headline: str) -> dict[str, Any]:
    """Return a comparison as its JSON has it."""
    return {
        "kind": KIND,
        "version": VERSION,
        "status": int(comparison.status),
        "headline": headline,
        **msgspec.to_builtins(comparison),
    }
