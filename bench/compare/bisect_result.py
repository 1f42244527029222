"""The result of a bisection: its data, as `-o FILE.json` has them, and what they say."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from bench.cells import Cell
from bench.compare.bisect import ALPHA, DIFFERS, LIKE_BAD, LIKE_GOOD, UNDECIDED
from bench.metrics import label
from bench.report import wording
from bench.report.table import RATIO, Column, Document, Row, Section, Table, Value, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.bisect import Search
    from bench.report.charts.figure import Figure

    type Facts = dict[str, Any]
    """What the file of a bisection holds."""

SCHEMA = 2


def bisect_data(
    found: Search, cell: Cell, metric: str, seconds: float, arguments: Sequence[str]
) -> Facts:
    """Return the result of a search, its steps included."""
    data = {
        "kind": "bisect",
        "schema": SCHEMA,
        "cell": cell.facts,
        "metric": metric,
        "good": str(found.good),
        "bad": str(found.bad),
        "package": found.package,
        "releases": list(found.releases),
        "moved_along": found.along,
        "stopped": found.stopped,
        "sure": found.sure,
        "seconds": seconds,
        "steps": [step._asdict() for step in found.steps],
        "arguments": list(arguments),
    }
    return data | {"said": [headline(data), *sentences(data)]}


def document(data: Facts, *, figures: bool = False) -> Document:
    """Return what a bisection says, as `bisect_data` has it; with a chart for a page."""
    steps = data["steps"]
    ends = f", searched between {steps[0]['base']} and {steps[0]['new']}" if steps else ""
    return Document(
        title=f"{subject(data)}: what changed it",
        subtitle=f"{subject(data)}{ends}",
        headline=headline(data),
        status="good" if data["stopped"] is None else "open",
        sections=(
            Section("Result", tuple(sentences(data))),
            Section(
                "Every step",
                tables=(steps_table(steps),) if steps else (),
                figures=(figure(data),) if steps and figures else (),
                folded=not figures,
            ),
        ),
        fine_print=(f"To repeat it: `bakeoff {shlex.join(map(str, data['arguments']))}`",),
    )


def subject(data: Facts) -> str:
    """Return what was searched for."""
    cell = data["cell"]
    return f"{label(data['metric'])} of {wording.name(Cell(**cell))} at {cell['workload']}"


def headline(data: Facts) -> str:
    """Return the result in a sentence."""
    if data["stopped"] is not None:
        return f"Stopped: {data['stopped']}."
    low, high = data["releases"]
    return f"{subject(data)} changed with {data['package']}: from {low} to {high}."


def sentences(data: Facts) -> Iterator[str]:
    """Yield what else there is to say of the result."""
    steps = data["steps"]
    if not steps:
        return
    last = steps[-1]
    if data["stopped"] is None:
        whole = f", of {value(steps[0])} in all" if last["phase"] == "confirm" else ""
        yield f"{data['bad']} relative to {data['good']}: {value(last)}{whole}."
        if data["moved_along"]:
            pairs = data["moved_along"].items()
            moved = ", ".join(f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs)
            yield f"These had to change with it: {moved}."
    elif len(steps) > 1:
        yield f"The change lies between {data['good']} and {data['bad']}."
    decided = any(step["conclusion"] != UNDECIDED for step in steps)
    sure = (
        f"all decisions are right with a probability of {percent(data['sure'])} or more "
        f"({percent(ALPHA)} is lost at each)"
        if decided
        else "none was decided"
    )
    plural = "" if len(steps) == 1 else "s"
    yield f"{len(steps)} step{plural} in {data['seconds']:.0f} s; {sure}."


def value(step: Facts) -> Value:
    """Return the ratio of a step, with the interval that decided it."""
    return Value(step["ratio"], RATIO, step["low"], step["high"])


def steps_table(steps: Sequence[Facts]) -> Table:
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
        about = step["phase"], difference(step), value(step), step["conclusion"]
        rows.append(Row((*about, str(step["pairs"]), f"{step['seconds']:.0f}")))
    base = f"New sides are relative to {steps[0]['base']}"
    last = steps[-1]
    confirmed = f"; the last one to {last['base']}" if last["phase"] == "confirm" else ""
    return Table(columns, tuple(rows), notes=(f"{base}{confirmed}.",))


def difference(step: Facts) -> str:
    """Return what a step's new side has that its base has not; jaxlib goes with jax."""
    base, new = (step[name].split(",") for name in ("base", "new"))
    parts = [part for part in new if part not in base] or new
    return ", ".join(p for p in parts if f"jax=={p.removeprefix('jaxlib==')}" not in parts)


def figure(data: Facts) -> Figure:
    """Return the chart of all steps: on which side of half of the whole difference each lies."""
    from bench.compare.comparison_charts import BLUE, GREEN, GREY, RED, intervals, ratios
    from bench.report.charts.figure import Figure, chart

    steps = data["steps"]
    rows: list[dict[str, Any]] = [
        {
            "name": f"{number}. {step['phase']}: {difference(step)}",
            "ratio": step["ratio"],
            "low": max(step["low"], step["ratio"] / 10),
            "high": min(step["high"], step["ratio"] * 10),
            "verdict": step["conclusion"],
            "said": str(value(step)),
        }
        for number, step in enumerate(steps, 1)
    ]
    title, half = "new relative to base", math.sqrt(steps[0]["ratio"])
    rule = chart([{"half": half}]).mark_rule(strokeDash=[4, 4], color=GREY)
    colours = {LIKE_GOOD: GREEN, LIKE_BAD: RED, DIFFERS: BLUE, UNDECIDED: GREY}
    said = "; ".join(
        f"{step['phase']}, {difference(step)} {value(step)}, {step['conclusion']}" for step in steps
    )
    text = (
        "The ratio of each step with the interval that decided it; the dashed rule is half of the "
        f"whole difference, {Value(half)}: {said}."
    )
    drawn = intervals(rows, title, colours, rule.encode(x=ratios("half", title)))
    return Figure("steps", f"{len(steps)} steps: {headline(data)}", text, drawn)
