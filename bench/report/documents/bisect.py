"""The document of a bisection: the change that was found, or how far the search came."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.metrics import label
from bench.numbers import percent, words
from bench.report.table import Column, Document, Row, Section, Table
from bench.runfile import DIFFERS, LIKE_BAD, LIKE_GOOD, UNDECIDED
from bench.track.comparison import is_costlier, order_releases
from bench.track.steps import ALPHA
from bench.wording import MOST_NAMED, describe_releases, name_workload, pluralise, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.estimates import Estimate
    from bench.runfile import Results


def describe_search(results: Results) -> Document:
    """Return the document of a bisection."""
    record = results.search
    rows = [step.row for step in record.steps]
    subject = (
        f"{label(record.metric)} of {record.cell.arm} at {name_workload(record.cell.workload)}"
    )
    known = describe_known(results)
    headline = f"{f'{subject}: {known}. ' if known else ''}Stopped: {record.stopped}"
    status = "open"
    if record.stopped is None:
        (old, new), row = order_releases(record.releases, rows[-1])
        headline = f"{subject}: {words(row)} from {record.package} {old} to {new}"
        status = "bad" if is_costlier(row) else "good"
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
        (
            *(step.phase, step.row.against, step.row.environment, step.row, step.conclusion),
            *(str(step.row.workers), f"{step.seconds:.0f}"),
        )
        for step in record.steps
    ]
    sections = (
        Section("Result", tuple(describe_result(results))),
        Section("Every step", tables=(Table(columns, tuple(map(Row, steps))),), folded=True),
    )
    return Document(
        title=f"{sentence(subject)[:-1]}: what changed it",
        subtitle=f"{rows[0].environment} compared with {rows[0].against}" if rows else "",
        headline=sentence(headline),
        status=status,
        warnings=tuple(results.warnings),
        sections=sections if rows else (),
        fine_print=tuple(explain_repetition(results)),
    )


def find_whole(results: Results) -> Estimate | None:
    """Return the difference of both ends; None if it is not decided."""
    decided = "whole", DIFFERS
    steps = results.search.steps
    rows = [step.row for step in steps if (step.phase, step.conclusion) == decided]
    return rows[-1] if rows else None


def describe_known(results: Results) -> str:
    """Return what a stopped search had decided: the difference, and where most of it lies."""
    record, row = results.search, find_whole(results)
    if row is None:
        return ""
    if record.package is None:
        is_part = (record.good, record.bad) != (row.against, row.environment)
        return f"{words(row)}{', most of it' * is_part} between {record.good} and {record.bad}"
    (old, new), row = order_releases(record.releases, row)
    return f"{words(row)}, most of it from {record.package} {old} to {new}"


def list_further_changes(results: Results) -> Iterator[str]:
    """Yield the certain changes that steps show on either side of the one that was searched."""
    whole = find_whole(results)
    for step in results.search.steps:
        row = step.row
        if step.conclusion == LIKE_GOOD and row.differs:
            yield f"{row.environment} relative to {row.against}: {words(row)}"
        elif step.conclusion == LIKE_BAD and whole and are_apart(row, whole):
            rest = f"{whole.environment} {words(whole)}, both relative to {row.against}"
            yield f"{row.environment} {words(row)}, {rest}"


def are_apart(row: Estimate, other: Estimate) -> bool:
    """Tell whether the intervals of two ratios have nothing in common."""
    (low, high), (least, most) = row.limits, other.limits
    return (low or 0.0) > (most or math.inf) or (high or math.inf) < (least or 0.0)


def explain_repetition(results: Results) -> Iterator[str]:
    """Yield how to repeat a search, and how to go on if more time would take it further."""
    yield f"To repeat it: `{results.make_command()}`"
    if seconds := results.search.missing_seconds:
        yield (
            f"To go on, repeat the command with a `--budget` of about {seconds:.0f} s or more. If "
            "this search wrote a JSON file, `--resume FILE` keeps its decided steps."
        )


def describe_result(results: Results) -> Iterator[str]:
    """Yield sentences on the result: the change, and how sure its steps are."""
    record = results.search
    rows = [step.row for step in record.steps]
    if record.stopped is None:
        ends = [step.row for step in record.steps if step.phase == "whole"]
        is_part = record.steps[-1].phase == "confirm"
        whole = f"; the whole difference is {words(ends[-1])}" if is_part else ""
        yield f"{record.bad} relative to {record.good}: {words(rows[-1])}{whole}."
        if record.moved_along:
            along = ", ".join(describe_releases(record.moved_along))
            yield f"These packages had to change with it: {along}."
    elif any(step.phase != "whole" for step in record.steps):
        yield f"The change lies between {record.good} and {record.bad}."
    if further := list(list_further_changes(results)):
        yield f"Not all of the difference lies in this change: {'; '.join(further[:MOST_NAMED])}."
    decided = sum(step.conclusion != UNDECIDED for step in record.steps)
    # An undecided step could have been decided wrongly, too, and once more where it was repeated
    right = percent(max(0.0, 1 - ALPHA * len(rows)))
    certainty = f"; the probability that all are right is at least {right}"
    steps = f"{pluralise(len(rows), 'step')} in {record.seconds:.0f} s"
    yield f"{steps}, {decided} decided{certainty if decided else ''}."
