"""What a bisection came to, as its run file has it under `search`, and as a document."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from bench.cells import Cell
from bench.metrics import label
from bench.report.charts import intervals
from bench.report.table import Column, Document, Row, Section, Table, change, percent
from bench.report.wording import sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.estimates import Estimate
    from bench.report.charts import Figure
    from bench.runfile import Results

ALPHA = 0.01
"""Odds that a step is decided wrongly: a search takes some ten of them."""
DIFFERS, LIKE_GOOD, LIKE_BAD, UNDECIDED = "differs", "like good", "like bad", "undecided"


class SearchStep(msgspec.Struct, frozen=True):
    """One A/B, and what was concluded; its estimate is among those of the results."""

    phase: str
    """`whole`, `day`, `package`, `release` or `confirm`."""
    base: str
    new: str
    conclusion: str
    """`differs`, `like good`, `like bad` or `undecided`."""
    seconds: float


class SearchRecord(msgspec.Struct, kw_only=True):
    """What is known of a search."""

    cell: Cell
    metric: str
    good: str
    """The side that is still like the good one."""
    bad: str
    package: str | None = None
    releases: tuple[str | None, str | None] = (None, None)
    """Of the package: the last good one, and the first bad one."""
    moved_along: dict[str, tuple[str | None, str | None]] = {}
    """What had to change together with the package."""
    stopped: str | None = None
    """Why the search went no further; None where it came to its end."""
    seconds: float = 0.0
    steps: list[SearchStep] = []

    @property
    def subject(self) -> str:
        """What was searched for."""
        return f"{label(self.metric)} of {self.cell.arm.words} at {self.cell.workload}"

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        if self.stopped is not None:
            return sentence(f"Stopped: {self.stopped}")
        low, high = self.releases
        return f"{sentence(self.subject)[:-1]} changed with {self.package}: from {low} to {high}."


def step_estimates(results: Results) -> list[Estimate]:
    """Return the estimate of each step."""
    return [row for row in results.estimates if row.form == "ratio"]


def document(results: Results) -> Document:
    """Return what a bisection says."""
    record = msgspec.convert(results.search, SearchRecord)
    rows, steps = step_estimates(results), record.steps
    ends = f", searched between {steps[0].base} and {steps[0].new}" if steps else ""
    sections = [
        Section("Result", tuple(sentences(record, rows))),
        Section(
            "Every step",
            tables=(steps_table(record, rows),) if steps else (),
            figures=(figure(record, rows),) if steps else (),
            folded=True,
        ),
    ]
    return Document(
        title=f"{sentence(record.subject)[:-1]}: what changed it",
        subtitle=f"{record.subject}{ends}",
        headline=record.headline,
        status="good" if record.stopped is None else "open",
        warnings=tuple(results.warnings),
        sections=tuple(section for section in sections if not section.empty),
        fine_print=(f"To repeat it: `bakeoff {shlex.join(results.arguments)}`",),
    )


def sentences(record: SearchRecord, rows: list[Estimate]) -> Iterator[str]:
    """Yield what else there is to say of the result."""
    if not rows:
        return
    if record.stopped is None:
        whole = f", of {change(rows[0])} in all" if record.steps[-1].phase == "confirm" else ""
        yield f"{record.bad} relative to {record.good}: {change(rows[-1])}{whole}."
        if record.moved_along:
            pairs = record.moved_along.items()
            moved = ", ".join(f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs)
            yield f"These had to change with it: {moved}."
    elif len(rows) > 1:
        yield f"The change lies between {record.good} and {record.bad}."
    decided = sum(step.conclusion != UNDECIDED for step in record.steps)
    count = f"{len(rows)} step{'' if len(rows) == 1 else 's'} in {record.seconds:.0f} s"
    if decided:
        yield (
            f"{count}; all decisions are right with a probability of "
            f"{percent(max(0.0, 1 - ALPHA * decided))} or more ({percent(ALPHA)} is lost at each)."
        )
    else:
        yield f"{count}; none was decided."


def steps_table(record: SearchRecord, rows: list[Estimate]) -> Table:
    """Return every step: what was measured, and what was concluded."""
    columns = (
        Column("phase"),
        Column("new"),
        Column("new / base"),
        Column("conclusion"),
        Column("pairs", number=True, needed=False),
        Column("seconds", number=True, needed=False),
    )
    table = []
    for step, row in zip(record.steps, rows, strict=True):
        about = step.phase, difference(step), row, step.conclusion
        table.append(Row((*about, str(row.workers), f"{step.seconds:.0f}")))
    base, last = f"New sides are relative to {record.steps[0].base}", record.steps[-1]
    confirmed = f"; the last one to {last.base}" if last.phase == "confirm" else ""
    return Table(columns, tuple(table), notes=(f"{base}{confirmed}.",))


def difference(step: SearchStep) -> str:
    """Return what a step's new side has that its base has not; jaxlib goes with jax."""
    base, new = step.base.split(","), step.new.split(",")
    parts = [part for part in new if part not in base] or new
    return ", ".join(p for p in parts if f"jax=={p.removeprefix('jaxlib==')}" not in parts)


def figure(record: SearchRecord, rows: list[Estimate]) -> Figure:
    """Return the chart of all steps with the intervals that decided them."""
    named = {
        f"{number}. {step.phase}: {difference(step)}, {step.conclusion}": row
        for number, (step, row) in enumerate(zip(record.steps, rows, strict=True), 1)
    }
    return intervals("steps", f"{len(rows)} steps: {record.headline}", named)
