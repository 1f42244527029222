"""Two sides compared, however they were measured: every row judged, and whether anything is worse.

`bakeoff compare` makes a comparison of run files, `bakeoff ab` one of both sides measured in turns.
Their JSON is these types.

    python -m bench.compare.comparison

prints its schema. Ratios are new to base; all metrics are costs, so above 1 is slower.
"""

from __future__ import annotations

import json
import math
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bench.cells import CELL, Cell
from bench.compare.conditions import ConditionChange
from bench.compare.gate import Accept, Decision
from bench.metrics import EXACT, METRICS
from bench.report.sentences import AGREE
from bench.stats.verdicts import Verdict, verdict
from bench.summary import number

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping, Sequence

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


class CellRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one cell."""

    entrant: str
    style: str
    workload: str
    backend: str
    devices: int = 0
    weak: bool = False

    @property
    def cell(self) -> Cell:
        """Its name."""
        return Cell.of({name: getattr(self, name) for name in CELL})


class MetricRow(CellRow, frozen=True, kw_only=True):
    """What is said of a metric in one cell."""

    metric: str
    threshold: float | None = None
    """By how much it may be worse, as a fraction."""
    worse: bool = False
    accepted: Accept | None = None
    note: str = ""
    """Why it is worse, or is not though it is slower."""
    ignored: bool = False
    """The gate leaves it out."""


class Medians(NamedTuple):
    """What is shown of a row beside its ratio."""

    base: float
    """Median, in the metric's unit."""
    new: float
    base_ratio: float | None = None
    """To the baseline of its own run, where those ratios are what is compared."""
    new_ratio: float | None = None
    absolute: bool = False
    """Times of different hours are compared."""


class Compared(MetricRow, frozen=True, kw_only=True):
    """A metric that varies."""

    unit: str
    base: float | None = None
    """As in `Medians`; null where there is nothing to compare."""
    new: float | None = None
    base_ratio: float | None = None
    new_ratio: float | None = None
    absolute: bool = False
    ratio: float | None = None
    low: float | None = None
    """Ends of the 95 % interval; null where there is no bound."""
    high: float | None = None
    p: float | None = None
    """Of "no difference", corrected for all rows of its metric and workload."""
    verdict: Verdict | None = None
    """Null where the row is left out, or there is nothing to compare."""
    missing: str = ""
    """Why there is nothing to compare."""

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


class ExactCount(MetricRow, frozen=True, kw_only=True):
    """A metric that comes out the same every time."""

    base: float
    new: float
    outcome: CountOutcome

    @property
    def changed(self) -> bool:
        """Whether it is another number."""
        return self.outcome is not CountOutcome.EQUAL and not self.ignored


class FailedCell(CellRow, frozen=True, kw_only=True):
    """A cell that failed on one side, or both."""

    base: str | None
    """Why; null where it did not."""
    new: str | None
    worse: bool
    """It fails now, and did not."""


class Shift(NamedTuple):
    """Something that differs between the sides."""

    row: Compared | ExactCount | FailedCell
    workloads: tuple[str, ...]
    """Where; several where the same count of a style changed in the same way."""


class Comparison(msgspec.Struct, frozen=True):
    """All that is found of a new side beside a base."""

    base: tuple[Origin, ...]
    """One, or several runs of the same code."""
    new: Origin
    margin: float
    """Inside of which, as a fraction, two times are equivalent."""
    rows: tuple[Compared, ...]
    exact: tuple[ExactCount, ...] = ()
    failures: tuple[FailedCell, ...] = ()
    only_base: tuple[CellRow, ...] = ()
    only_new: tuple[CellRow, ...] = ()
    differences: tuple[ConditionChange, ...] = ()
    """Conditions that differ, and may."""
    warnings: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    """How to read it, in sentences."""

    @property
    def judged(self) -> tuple[Compared, ...]:
        """Rows that are compared and not left out."""
        return tuple(row for row in self.rows if row.verdict is not None)

    @property
    def status(self) -> Status:
        """What it comes to.

        One settled row is enough to pass: a gate that failed whenever a row out of a hundred was
        inconclusive would fail every day. But where times were asked for and none is known, exact
        counts that are the same must not pass for "nothing is slower".
        """
        every: tuple[Compared | ExactCount | FailedCell, ...]
        every = (*self.failures, *self.rows, *self.exact)
        if any(row.worse for row in every):
            return Status.WORSE
        gated = [row for row in self.rows if not row.ignored]
        if any(row.settled for row in gated):
            return Status.NOT_WORSE
        counted = any(not row.ignored for row in self.exact)
        return Status.NOT_WORSE if counted and not gated else Status.CANNOT_SAY

    @property
    def shifts(self) -> list[Shift]:
        """What differs: first what is worse; failures, then the slowest, then counts."""
        times = sorted((r for r in self.rows if r.changed), key=lambda row: -(row.ratio or 0.0))
        counts: dict[tuple[Any, ...], list[ExactCount]] = {}
        for row in self.exact:
            if row.changed:
                same = (row.cell.arm, row.backend, row.metric, row.base, row.new)
                counts.setdefault((*same, row.note), []).append(row)
        found = [
            *(Shift(row, (row.workload,)) for row in self.failures),
            *(Shift(row, (row.workload,)) for row in times),
            *(Shift(rows[0], tuple(row.workload for row in rows)) for rows in counts.values()),
        ]
        return sorted(found, key=lambda shift: not shift.row.worse)


class Evidence(NamedTuple):
    """What a side is, beside its times."""

    origin: Origin
    cells: Sequence[Cell]
    failed: Mapping[Cell, str | None]
    """Why cells failed; None where they did not."""
    exact: Mapping[Key, float]


class Assessor(NamedTuple):
    """Judges every row by one gate."""

    gate: Gate
    margin: float
    """Inside of which, as a fraction, two times are equivalent."""
    today: datetime.date
    """Decides whether an accepted shift still is."""

    def comparison(
        self,
        base: Evidence,
        new: Evidence,
        times: Mapping[Key, tuple[Estimate, Medians]],
        missing: Mapping[Key, str],
        *,
        differences: Sequence[ConditionChange],
        warnings: Sequence[str],
        reading: Sequence[str],
        older: Sequence[Origin] = (),
    ) -> Comparison:
        """Return what a new side is beside a base.

        Args:
            base: One side.
            new: The other one.
            times: New to base, and what is shown of them.
            missing: Why other rows cannot be compared.
            differences: Conditions that differ, and may.
            warnings: Reasons to doubt it, in sentences.
            reading: How to read it, in sentences.
            older: Further base runs, before the base.
        """
        rows, counts = self.times(times, missing), self.counts(base.exact, new.exact)
        known = [(row.cell, row.metric) for row in (*rows, *counts)]
        return Comparison(
            base=(*older, base.origin),
            new=new.origin,
            margin=self.margin,
            rows=rows,
            exact=counts,
            failures=self.failures(base.failed, new.failed),
            only_base=tuple(CellRow(**c.facts) for c in base.cells if c not in new.cells),
            only_new=tuple(CellRow(**c.facts) for c in new.cells if c not in base.cells),
            differences=tuple(differences),
            warnings=(*self.gate.unmatched(known), *warnings),
            reading=tuple(reading),
        )

    def times(
        self, times: Mapping[Key, tuple[Estimate, Medians]], missing: Mapping[Key, str]
    ) -> tuple[Compared, ...]:
        """Return what is said of metrics that vary: verdicts belong to the intervals shown."""
        out = []
        for (cell, metric), (estimate, medians) in times.items():
            low, high = map(number, estimate.interval)
            found: dict[str, Any] = {"ratio": estimate.ratio, "low": low, "high": high}
            found |= medians._asdict()
            if self.gate.ignores(cell, metric):
                found["ignored"] = True
            else:
                said = verdict(estimate, self.margin)
                found |= {"p": estimate.p, "verdict": said}
                found |= self.decided(cell, metric, said is Verdict.SLOWER, estimate.ratio)
            out.append((cell, metric, found))
        for (cell, metric), why in missing.items():
            left_out = self.gate.ignores(cell, metric)
            out.append((cell, metric, {"missing": why, "ignored": left_out}))
        return tuple(
            Compared(**cell.facts, metric=metric, unit=METRICS[metric].unit, **found)
            for cell, metric, found in out
        )

    def counts(self, base: Mapping[Key, float], new: Mapping[Key, float]) -> tuple[ExactCount, ...]:
        """Return what is said of exact metrics that both sides have."""
        out = []
        for (cell, metric), before in base.items():
            if (cell, metric) not in new:
                continue
            after = new[cell, metric]
            found, ignored = outcome(metric, before, after), self.gate.ignores(cell, metric)
            ratio = after / before if before > 0 else math.inf
            decision = self.decided(
                cell, metric, found is CountOutcome.WORSE and not ignored, ratio
            )
            row = ExactCount(
                **cell.facts,
                metric=metric,
                base=before,
                new=after,
                outcome=found,
                ignored=ignored,
                **decision,
            )
            out.append(row)
        return tuple(out)

    def failures(
        self, base: Mapping[Cell, str | None], new: Mapping[Cell, str | None]
    ) -> tuple[FailedCell, ...]:
        """Return the cells of both sides that failed: worse, if only on the new one."""
        return tuple(
            FailedCell(
                **cell.facts,
                base=why,
                new=new[cell],
                worse=why is None and not self.gate.ignores(cell, None),
            )
            for cell, why in base.items()
            if cell in new and (why is not None or new[cell] is not None)
        )

    def decided(self, cell: Cell, metric: str, more: bool, ratio: float) -> dict[str, Any]:
        """Return what the gate says of a row, which may be known to be slower, or more."""
        if more:
            return self.gate.decide(cell, metric, ratio, self.margin, self.today)._asdict()
        return Decision(self.gate.limit(cell, metric, self.margin), worse=False)._asdict()


def outcome(metric: str, base: float, new: float) -> CountOutcome:
    """Return what is said of two exact numbers."""
    if abs(new - base) <= (AGREE if metric in LOSSES else 0):
        return CountOutcome.EQUAL
    if metric in EXACT and EXACT[metric].neutral:
        return CountOutcome.CHANGED
    return CountOutcome.WORSE if new > base else CountOutcome.BETTER


def as_json(comparison: Comparison, headline: str) -> str:
    """Return a comparison as a JSON text."""
    data = {
        "kind": KIND,
        "version": VERSION,
        "status": int(comparison.status),
        "headline": headline,
        **msgspec.to_builtins(comparison),
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON schema of such a text."""
    made = msgspec.json.schema(Comparison)
    whole = made["$defs"][Comparison.__name__]
    whole["properties"] |= {
        "kind": {"const": KIND},
        "version": {"const": VERSION},
        "status": {"enum": [int(status) for status in Status]},
        "headline": {"type": "string"},
    }
    whole["required"] += ["kind", "version", "status", "headline"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
