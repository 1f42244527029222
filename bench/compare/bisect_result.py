"""The result of a bisection: its data, as `-o FILE.json` has them, and what they say."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import Cell
from bench.compare.trends import counted
from bench.metrics import label
from bench.report import wording
from bench.report.table import Column, Document, Row, Section, Table, Value, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.charts.figure import Figure

SCHEMA = 2
ALPHA = 0.01
"""Odds that a step is decided wrongly."""
DIFFERS, LIKE_GOOD, LIKE_BAD, UNDECIDED = "differs", "like good", "like bad", "undecided"

type Moved = dict[str, tuple[str | None, str | None]]
"""Releases of packages that differ between two stacks; None where a stack has none."""


class SearchStep(msgspec.Struct, frozen=True):
    """One A/B, and what was concluded."""

    phase: str
    """`whole`, `day`, `package`, `release` or `confirm`."""
    base: str
    new: str
    ratio: float
    low: float
    """Ends of the interval at the last look: that of its part of the odds."""
    high: float
    pairs: int
    conclusion: str
    """`differs`, `like good`, `like bad` or `undecided`."""
    seconds: float

    @property
    def value(self) -> Value:
        """The ratio, with the interval that decided it."""
        return Value(self.ratio, low=self.low, high=self.high)

    def __str__(self) -> str:
        return f"{self.value} in {self.pairs} pairs"


class BisectResult(msgspec.Struct, kw_only=True, tag_field="kind", tag="bisect"):
    """What a bisection has found by now, as its file has it."""

    schema: int = SCHEMA
    cell: dict[str, Any]
    """As `Cell.facts` has it."""
    metric: str
    good: str
    """The side that is still like the good one."""
    bad: str
    package: str | None = None
    releases: tuple[str | None, str | None] = (None, None)
    """Of the package: the last good one, and the first bad one."""
    moved_along: Moved = {}
    """What had to change together with the package."""
    stopped: str | None = None
    """Why the search went no further; null where it came to its end."""
    sure: float = 1.0
    """Odds that every step was decided rightly, at least."""
    seconds: float = 0.0
    steps: list[SearchStep] = []
    arguments: list[str]
    said: list[str] = []
    """The result in sentences."""
    runs: Any = msgspec.field(default_factory=list)
    """Both sides of each step, as run files have them."""

    @property
    def subject(self) -> str:
        """What was searched for."""
        cell = Cell.of(self.cell)
        return f"{label(self.metric)} of {wording.name(cell)} at {cell.workload}"

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        if self.stopped is not None:
            return f"Stopped: {self.stopped}."
        low, high = self.releases
        return f"{self.subject} changed with {self.package}: from {low} to {high}."

    def finish(self, seconds: float) -> None:
        """Work out what is said of it as a whole; it took so many seconds."""
        decided = [step for step in self.steps if step.conclusion != UNDECIDED]
        self.sure, self.seconds = max(0.0, 1 - ALPHA * len(decided)), seconds
        self.said = [self.headline, *sentences(self)]


def document(result: BisectResult, *, figures: bool = False) -> Document:
    """Return what a bisection says; with a chart for a page."""
    subject, steps = result.subject, result.steps
    ends = f", searched between {steps[0].base} and {steps[0].new}" if steps else ""
    return Document(
        title=f"{subject}: what changed it",
        subtitle=f"{subject}{ends}",
        headline=result.headline,
        status="good" if result.stopped is None else "open",
        sections=(
            Section("Result", tuple(sentences(result))),
            Section(
                "Every step",
                tables=(steps_table(steps),) if steps else (),
                figures=(figure(result),) if steps and figures else (),
                folded=not figures,
            ),
        ),
        fine_print=(f"To repeat it: `bakeoff {shlex.join(result.arguments)}`",),
    )


def sentences(result: BisectResult) -> Iterator[str]:
    """Yield what else there is to say of the result."""
    steps = result.steps
    if not steps:
        return
    last = steps[-1]
    if result.stopped is None:
        whole = f", of {steps[0].value} in all" if last.phase == "confirm" else ""
        yield f"{result.bad} relative to {result.good}: {last.value}{whole}."
        if result.moved_along:
            pairs = result.moved_along.items()
            moved = ", ".join(f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs)
            yield f"These had to change with it: {moved}."
    elif len(steps) > 1:
        yield f"The change lies between {result.good} and {result.bad}."
    sure = (
        f"all decisions are right with a probability of {percent(result.sure)} or more "
        f"({percent(ALPHA)} is lost at each)"
        if any(step.conclusion != UNDECIDED for step in steps)
        else "none was decided"
    )
    yield f"{counted(len(steps), 'step')} in {result.seconds:.0f} s; {sure}."


def steps_table(steps: Sequence[SearchStep]) -> Table:
    """Return every step: what was measured, and what was concluded."""
    columns = (
        Column("phase"),
        Column("new"),
        Column("ratio", number=True, help="of the new side to the base"),
        Column("conclusion"),
        Column("pairs", number=True, needed=False),
        Column("seconds", number=True, needed=False),
    )
    rows = []
    for step in steps:
        about = step.phase, difference(step), step.value, step.conclusion
        rows.append(Row((*about, str(step.pairs), f"{step.seconds:.0f}")))
    base, last = f"New sides are relative to {steps[0].base}", steps[-1]
    confirmed = f"; the last one to {last.base}" if last.phase == "confirm" else ""
    return Table(columns, tuple(rows), notes=(f"{base}{confirmed}.",))


def difference(step: SearchStep) -> str:
    """Return what a step's new side has that its base has not; jaxlib goes with jax."""
    base, new = step.base.split(","), step.new.split(",")
    parts = [part for part in new if part not in base] or new
    return ", ".join(p for p in parts if f"jax=={p.removeprefix('jaxlib==')}" not in parts)


def figure(result: BisectResult) -> Figure:
    """Return the chart of all steps: on which side of half of the whole difference each lies."""
    from bench.compare.comparison_charts import BLUE, GREEN, GREY, RED, intervals, ratios
    from bench.report.charts.figure import Figure, chart

    steps = result.steps
    rows = [
        (f"{number}. {step.phase}: {difference(step)}", step.conclusion, step.value)
        for number, step in enumerate(steps, 1)
    ]
    title, half = "new relative to base", math.sqrt(steps[0].ratio)
    rule = chart([{"half": half}]).mark_rule(strokeDash=[4, 4], color=GREY)
    colours = {LIKE_GOOD: GREEN, LIKE_BAD: RED, DIFFERS: BLUE, UNDECIDED: GREY}
    said = "; ".join(f"{s.phase}, {difference(s)} {s.value}, {s.conclusion}" for s in steps)
    text = (
        "The ratio of each step with the interval that decided it; the dashed rule is half of the "
        f"whole difference, {Value(half)}: {said}."
    )
    drawn = intervals(rows, title, colours, rule.encode(x=ratios("half", title)))
    return Figure("steps", f"{len(steps)} steps: {result.headline}", text, drawn)
