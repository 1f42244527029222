"""Result of a bisection: its record in a run file, and its document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import label
from bench.report.table import Column, Document, Row, Section, Table, change, percent
from bench.report.wording import pluralise, sentence
from bench.runfile import UNDECIDED
from bench.track.comparison import describe_releases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.estimates import Estimate
    from bench.runfile import Results, SearchRecord

ALPHA = 0.01
"""Probability that a step is decided wrongly: a search takes about ten steps."""


def document(results: Results) -> Document:
    """Return the document of a bisection."""
    record, rows = results.search, results.estimates
    subject = f"{label(record.metric)} of {record.cell.arm} at {record.cell.workload}"
    headline = f"Stopped: {record.stopped}"
    if record.stopped is None:
        low, high = record.releases
        headline = f"{subject} changed with {record.package}: from {low} to {high}"
    columns = (
        Column("phase"),
        Column("base", needed=False),
        Column("new"),
        Column("new / base"),
        Column("conclusion"),
        Column("pairs", number=True, needed=False),
        Column("seconds", number=True, needed=False),
    )
    steps = [
        (s.phase, r.against, r.environment, r, s.conclusion, str(r.workers), f"{s.seconds:.0f}")
        for s, r in zip(record.steps, rows, strict=True)
    ]
    sections = (
        Section("Result", tuple(describe_result(record, rows))),
        Section("Every step", tables=(Table(columns, tuple(map(Row, steps))),), folded=True),
    )
    return Document(
        title=f"{sentence(subject)[:-1]}: what changed it",
        subtitle=f"{rows[0].environment} beside {rows[0].against}" if rows else "",
        headline=sentence(headline),
        status="good" if record.stopped is None else "open",
        warnings=tuple(results.warnings),
        sections=sections if rows else (),
        fine_print=(
            f"To repeat it: `{results.make_command()}`",
            *suggest_more(record),
        ),
    )


def suggest_more(record: SearchRecord) -> Iterator[str]:
    """Yield how to go on, if more time would take the search further."""
    if record.missing_seconds:
        yield (
            f"To go on: the same command with a `--budget` of about {record.missing_seconds:.0f} s "
            "or more; `--more` with this search's JSON file, if one was written, keeps the steps "
            "that are decided."
        )


def describe_result(record: SearchRecord, rows: list[Estimate]) -> Iterator[str]:
    """Yield sentences on the result: the change, and how sure its steps are."""
    if record.stopped is None:
        ends = [row for row, step in zip(rows, record.steps, strict=True) if step.phase == "whole"]
        whole = f", of {change(ends[-1])} in all" if record.steps[-1].phase == "confirm" else ""
        yield f"{record.bad} relative to {record.good}: {change(rows[-1])}{whole}."
        if record.moved_along:
            along = ", ".join(describe_releases(record.moved_along))
            yield f"These had to change with it: {along}."
    elif any(step.phase != "whole" for step in record.steps):
        yield f"The change lies between {record.good} and {record.bad}."
    decided = sum(step.conclusion != UNDECIDED for step in record.steps)
    # An undecided step could have been decided wrongly, too, and once more where it was repeated
    right = percent(max(0.0, 1 - ALPHA * len(rows)))
    words = f"all are right with a probability of {right} or more"
    steps = f"{pluralise(len(rows), 'step')} in {record.seconds:.0f} s"
    yield f"{steps}, {decided} decided{f': {words}' if decided else ''}."
