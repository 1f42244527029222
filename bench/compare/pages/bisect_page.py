"""The page of a bisection, in the style of a run's page: the result, and every step."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair

from bench.compare.series import CALLED, times
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart
from bench.report.page.parts import filled, script

if TYPE_CHECKING:
    from bench.report.wording import Facts

HERE = Path(__file__).parent
COLOURS = {"like good": "#2a9d62", "like bad": "#d1495b", "differs": "#5b7db1"}
UNDECIDED = "#999999"


def page(found: Facts) -> str:
    """Return the HTML of a bisection."""
    return filled(
        "bisect.html.jinja",
        figures=[figure(found)] if found["steps"] else [],
        folders=[HERE],
        js=script("charts.js"),
        skip=("result", "To the result"),
        title=title(found),
        subtitle=f"{what(found)}, searched between {ends(found)}",
        sections=[("result", "Result"), ("steps", "Steps"), ("repeat", "Repeat")],
        found=found,
        said=found["said"],
        rows=[row(step) for step in found["steps"]],
        command=shlex.join(map(str, found["arguments"])),
    )


def what(found: Facts) -> str:
    """Return what was searched for."""
    cell = found["cell"]
    metric = CALLED.get(found["metric"], found["metric"])
    return f"{metric} of {wording.name(cell)} at {cell['workload']}"


def ends(found: Facts) -> str:
    """Return where the search began."""
    steps = found["steps"]
    return f"{steps[0]['base']} and {steps[0]['new']}" if steps else "two stacks"


def title(found: Facts) -> str:
    """Return the result in a line."""
    if found["stopped"] is not None:
        return f"{what(found)}: stopped before the end".capitalize()
    low, high = found["releases"]
    return f"{what(found)} changed with {found['package']} {low} → {high}".capitalize()


def moved(step: Facts) -> str:
    """Return what a step's new side has that its base has not; jaxlib goes with jax."""
    base, new = (step[name].split(",") for name in ("base", "new"))
    parts = [part for part in new if part not in base] or new
    return ", ".join(p for p in parts if f"jax=={p.removeprefix('jaxlib==')}" not in parts)


def row(step: Facts) -> Facts:
    """Return a step as the table has it."""
    return step | {
        "ratio": times(step["ratio"]),
        "interval": f"{times(step['low'])} to {times(step['high'])}",
        "seconds": f"{step['seconds']:.0f} s",
    }


def figure(found: Facts) -> Figure:
    """Return the chart of all steps: on which side of half of the whole each lies."""
    steps = found["steps"]
    data: list[dict[str, Any]] = [
        {
            "step": f"{number}. {step['phase']}: {moved(step)}",
            "ratio": step["ratio"],
            "low": max(step["low"], step["ratio"] / 10),
            "high": min(step["high"], step["ratio"] * 10),
            "conclusion": step["conclusion"],
        }
        for number, step in enumerate(steps, 1)
    ]
    x: dict[str, Any] = {
        "title": "new / base (log scale)",
        "scale": altair.Scale(type="log", nice=False, padding=12),
    }
    names = [*COLOURS, "undecided"]
    colour = altair.Color(
        "conclusion:N",
        title=None,
        scale=altair.Scale(domain=names, range=[*COLOURS.values(), UNDECIDED]),
        legend=altair.Legend(orient="bottom"),
    )
    base = chart(data).encode(
        y=altair.Y("step:N", title=None, sort=None, axis=altair.Axis(labelLimit=200)), color=colour
    )
    half = math.sqrt(steps[0]["ratio"])
    whole = altair.layer(
        chart([{"half": half}])
        .mark_rule(strokeDash=[4, 4], color="#888")
        .encode(x=altair.X("half:Q", **x)),
        base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", **x), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=altair.X("ratio:Q", **x)),
    ).properties(width="container", height=max(3, len(data)) * ROW)
    said = "; ".join(
        f"{step['phase']}, {moved(step)} {times(step['ratio'])} "
        f"({times(step['low'])} to {times(step['high'])}), {step['conclusion']}"
        for step in steps
    )
    text = (
        "Each step's ratio with the interval that decided it; the dashed rule is half of the whole "
        f"difference, {times(half)}: {said}."
    )
    return Figure("steps", f"{len(steps)} steps: {title(found)}", text, whole)
