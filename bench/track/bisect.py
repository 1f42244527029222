"""What a bisection concludes from each step, and what it came to: a record, and a document."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

import msgspec
from scipy import special

from bench.cells import Cell
from bench.metrics import label
from bench.report.table import Column, Document, Row, Section, Table, change, percent
from bench.report.wording import counted, sentence
from bench.stats.changes import position
from bench.track.comparison import releases_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.estimates import Estimate
    from bench.runfile import Results

ALPHA = 0.01
"""Odds that a step is decided wrongly: a search takes some ten of them."""
LOOKS = (3, 4, 6, 8, 12, 18, 26)
"""Numbers of pairs at which the data are looked at: each costs its part of the odds (Bonferroni),
and one in about 1.4 times as many pairs loses little."""
DIFFERS, LIKE_GOOD, LIKE_BAD, UNDECIDED = "differs", "like good", "like bad", "undecided"


class SearchStep(msgspec.Struct, frozen=True):
    """What was concluded from one A/B, whose estimate has the same place among the results'."""

    phase: str
    """`whole`, `day`, `package`, `release` or `confirm`."""
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


class Looks:
    """Tells whether it is known on which side of a boundary a log-ratio lies: at looks only.

    Pairs of workers may come several at a time, so that a look is due from its number of them on.
    """

    def __init__(self, boundary: float) -> None:
        self.boundary, self.taken = boundary, 0

    def __call__(self, estimate: Estimate) -> bool:
        """Take a look if one is due."""
        due = sum(look <= estimate.workers for look in LOOKS)
        if due <= self.taken:
            return False
        self.taken = due
        low, high = interval(estimate)
        return low > self.boundary or high < self.boundary


def interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of a log-ratio with a look's part of the odds outside of it."""
    if estimate.standard_error is None or not estimate.df:
        return -math.inf, math.inf
    share = ALPHA / (len(LOOKS) + 1)  # the one more is the last, when the time is over
    half = float(special.stdtrit(estimate.df, 1 - share / 2)) * estimate.standard_error
    return position(estimate) - half, position(estimate) + half


def document(results: Results) -> Document:
    """Return what a bisection says."""
    record, rows = msgspec.convert(results.search, SearchRecord), results.estimates
    subject = f"{label(record.metric)} of {record.cell.arm.words} at {record.cell.workload}"
    headline = f"Stopped: {record.stopped}"
    if record.stopped is None:
        low, high = record.releases
        headline = f"{subject} changed with {record.package}: from {low} to {high}"
    sections = (
        Section("Result", tuple(sentences(record, rows))),
        Section("Every step", tables=(steps_table(record, rows),), folded=True),
    )
    return Document(
        title=f"{sentence(subject)[:-1]}: what changed it",
        subtitle=f"{rows[0].environment} beside {rows[0].against}" if rows else "",
        headline=sentence(headline),
        status="good" if record.stopped is None else "open",
        warnings=tuple(results.warnings),
        sections=sections if rows else (),
        fine_print=(f"To repeat it: `bakeoff {shlex.join(results.arguments)}`",),
    )


def sentences(record: SearchRecord, rows: list[Estimate]) -> Iterator[str]:
    """Yield what else there is to say of the result."""
    if record.stopped is None:
        whole = f", of {change(rows[0])} in all" if record.steps[-1].phase == "confirm" else ""
        yield f"{record.bad} relative to {record.good}: {change(rows[-1])}{whole}."
        if record.moved_along:
            along = ", ".join(releases_words(record.moved_along))
            yield f"These had to change with it: {along}."
    elif len(rows) > 1:
        yield f"The change lies between {record.good} and {record.bad}."
    decided = sum(step.conclusion != UNDECIDED for step in record.steps)
    odds = f"all are right with a probability of {percent(max(0.0, 1 - ALPHA * decided))} or more"
    steps = f"{counted(len(rows), 'step')} in {record.seconds:.0f} s"
    yield f"{steps}, {decided} decided{f': {odds}' if decided else ''}."


def steps_table(record: SearchRecord, rows: list[Estimate]) -> Table:
    """Return every step: what was measured, and what was concluded."""
    columns = (
        Column("phase"),
        Column("base", needed=False),
        Column("new"),
        Column("new / base"),
        Column("conclusion"),
        Column("pairs", number=True, needed=False),
        Column("seconds", number=True, needed=False),
    )
    table = []
    for step, row in zip(record.steps, rows, strict=True):
        sides, counts = (row.against, row.environment), (str(row.workers), f"{step.seconds:.0f}")
        table.append(Row((step.phase, *sides, row, step.conclusion, *counts)))
    return Table(columns, tuple(table))
