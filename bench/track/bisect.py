"""The run file of a bisection: read, for another one to go on with, and shown as a document."""

from __future__ import annotations

import hashlib
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace
from packaging.version import InvalidVersion, Version

from bench.engine.journal import FOLDER
from bench.metrics import label
from bench.report.table import Column, Document, Row, Section, Table, change, percent
from bench.report.wording import MOST_NAMED, place, pluralise, sentence
from bench.runfile import DIFFERS, LIKE_BAD, LIKE_GOOD, UNDECIDED, Results
from bench.runfile.reader import read
from bench.track.comparison import describe_releases, is_costlier
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.estimates import Estimate
    from bench.runfile import SearchPhase, SearchStep
    from bench.samples import Sample

ALPHA = 0.01
"""Probability that a step is decided wrongly: a search takes about ten steps."""
QUESTION = "good", "bad", "cell", "metric"
"""Parts of a search's setup that are words; the others are digests."""


def steps_path(*arguments: object) -> Path:
    """Return the file in which a search with these arguments keeps its steps."""
    return FOLDER / f"{hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]}-bisect.json"


@dataclass(frozen=True)
class Earlier:
    """An earlier search; by default, an empty one."""

    path: Path | None = None
    is_resumed: bool = False
    """Whether it was cut off: its undecided steps stay so, and its time counts in this budget."""
    results: Results = field(default_factory=Results)
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, *, resume: bool) -> Earlier:
        """Read the run file of a search.

        Raises:
            BakeoffError: there is none to resume, the file cannot be read, or is no bisection's.
        """
        if resume and not path.exists():
            raise BakeoffError(
                f"there is nothing to resume: {FOLDER}/ has no step of it; run without --resume"
            )
        run = read(path)
        results, spent = run.results, run.results.spent
        if results.kind != "bisect":
            raise BakeoffError(
                f"{path} is of kind {results.kind!r}; give what `bakeoff bisect -o FILE.json` wrote"
            )
        if not resume:
            results.spent = replace(spent, earlier_seconds=spent.wall_seconds)
        return cls(path, resume, results, run.samples)

    def require_same(self, setup: Mapping[str, str]) -> None:
        """Raise BakeoffError if it is a search with another setup."""
        from bench.engine.session import SETUP_PARTS, describe_differences  # takes half a second

        if self.path is None:
            return
        before = self.results.setup
        words = {name: f"its {name} is {before.get(name)}" for name in QUESTION}
        differing = describe_differences(before, setup, words) or describe_differences(
            before, setup, SETUP_PARTS
        )
        if differing:
            raise BakeoffError(
                f"{self.path} is of another search ({differing if before else 'an older version'}"
                "); give one of the same, or leave --more and --resume out"
            )

    def list_attempts(
        self, phase: SearchPhase, base: str, new: str
    ) -> list[tuple[Estimate, SearchStep]]:
        """Return the attempts at a step between two SPECs, each with its estimate."""
        question, pairs = (phase, base, new), zip_steps(self.results)
        return [(r, s) for r, s in pairs if (s.phase, r.against, r.environment) == question]


def zip_steps(results: Results) -> Iterator[tuple[Estimate, SearchStep]]:
    """Return the steps of a search, each after its estimate."""
    return zip(results.estimates, results.search.steps, strict=True)


def document(results: Results) -> Document:
    """Return the document of a bisection."""
    record, rows = results.search, results.estimates
    subject = f"{label(record.metric)} of {record.cell.arm} at {place(record.cell.workload)}"
    known = describe_known(results)
    headline = f"{f'{subject}: {known}. ' if known else ''}Stopped: {record.stopped}"
    status = "open"
    if record.stopped is None:
        (old, new), row = order_releases(record.releases, rows[-1])
        headline = f"{subject}: {change(row)} from {record.package} {old} to {new}"
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
        (s.phase, r.against, r.environment, r, s.conclusion, str(r.workers), f"{s.seconds:.0f}")
        for r, s in zip_steps(results)
    ]
    sections = (
        Section("Result", tuple(describe_result(results))),
        Section("Every step", tables=(Table(columns, tuple(map(Row, steps))),), folded=True),
    )
    return Document(
        title=f"{sentence(subject)[:-1]}: what changed it",
        subtitle=f"{rows[0].environment} beside {rows[0].against}" if rows else "",
        headline=sentence(headline),
        status=status,
        warnings=tuple(results.warnings),
        sections=sections if rows else (),
        fine_print=tuple(explain_repetition(results)),
    )


def find_whole(results: Results) -> Estimate | None:
    """Return the difference of both ends; None if it is not decided."""
    decided = "whole", DIFFERS
    rows = [r for r, step in zip_steps(results) if (step.phase, step.conclusion) == decided]
    return rows[-1] if rows else None


def describe_known(results: Results) -> str:
    """Return what a search had decided when it stopped: the difference, and where most of it is."""
    record, row = results.search, find_whole(results)
    if row is None:
        return ""
    if record.package is None:
        is_part = (record.good, record.bad) != (row.against, row.environment)
        return f"{change(row)}{', most of it' * is_part} between {record.good} and {record.bad}"
    (old, new), row = order_releases(record.releases, row)
    return f"{change(row)}, most of it from {record.package} {old} to {new}"


def list_further_changes(results: Results) -> Iterator[str]:
    """Yield the certain changes that steps show on either side of the one that was searched."""
    whole = find_whole(results)
    for row, step in zip_steps(results):
        if step.conclusion == LIKE_GOOD and row.differs:
            yield f"{row.environment} relative to {row.against}: {change(row)}"
        elif step.conclusion == LIKE_BAD and whole and are_apart(row, whole):
            rest = f"{whole.environment} {change(whole)}, both relative to {row.against}"
            yield f"{row.environment} {change(row)}, {rest}"


def are_apart(row: Estimate, other: Estimate) -> bool:
    """Tell whether the intervals of two ratios have nothing in common."""
    (low, high), (least, most) = row.limits, other.limits
    return (low or 0.0) > (most or math.inf) or (high or math.inf) < (least or 0.0)


def order_releases(
    releases: tuple[str | None, str | None], row: Estimate
) -> tuple[tuple[str | None, str | None], Estimate]:
    """Return two releases, the older one first, and the ratio of the newer one to it.

    A search that asks what became faster has its good end at the newer one.
    """
    good, bad = releases
    with suppress(InvalidVersion):
        if good and bad and Version(good) > Version(bad):
            low, high = (1 / end if end else None for end in (row.high, row.low))
            return (bad, good), replace(row, value=1 / row.value, low=low, high=high)
    return releases, row


def explain_repetition(results: Results) -> Iterator[str]:
    """Yield how to repeat a search, and how to go on if more time would take it further."""
    yield f"To repeat it: `{results.make_command()}`"
    if seconds := results.search.missing_seconds:
        yield (
            f"To go on: the same command with a `--budget` of about {seconds:.0f} s or more; "
            "`--more` with this search's JSON file, if one was written, keeps the steps that are "
            "decided."
        )


def describe_result(results: Results) -> Iterator[str]:
    """Yield sentences on the result: the change, and how sure its steps are."""
    record, rows = results.search, results.estimates
    if record.stopped is None:
        ends = [row for row, step in zip_steps(results) if step.phase == "whole"]
        whole = f", of {change(ends[-1])} in all" if record.steps[-1].phase == "confirm" else ""
        yield f"{record.bad} relative to {record.good}: {change(rows[-1])}{whole}."
        if record.moved_along:
            along = ", ".join(describe_releases(record.moved_along))
            yield f"These had to change with it: {along}."
    elif any(step.phase != "whole" for step in record.steps):
        yield f"The change lies between {record.good} and {record.bad}."
    if further := list(list_further_changes(results)):
        yield f"Not all of the difference lies there: {'; '.join(further[:MOST_NAMED])}."
    decided = sum(step.conclusion != UNDECIDED for step in record.steps)
    # An undecided step could have been decided wrongly, too, and once more where it was repeated
    right = percent(max(0.0, 1 - ALPHA * len(rows)))
    words = f"all are right with a probability of {right} or more"
    steps = f"{pluralise(len(rows), 'step')} in {record.seconds:.0f} s"
    yield f"{steps}, {decided} decided{f': {words}' if decided else ''}."
