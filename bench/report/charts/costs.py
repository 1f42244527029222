"""What comes before the second step, and after how many steps it no longer matters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import altair
import numpy as np

from bench.cells import BASELINE
from bench.metrics import STARTUP
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart, coloured, dashed, few, row_axis, way
from bench.report.choose import sums
from bench.report.palette import PALETTE
from bench.report.tied import intervals
from bench.report.wording import Facts, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.runs import Run


MOST_STEPS = 1_000_000


def before(cell: Facts) -> dict[str, float] | None:
    """Return the medians of all that comes before the second step, if all are there."""
    found = {metric: measured(cell, metric) for metric in STARTUP}
    if any(f is None for f in found.values()):
        return None
    return {metric: f["median"] for metric, f in found.items() if f is not None}


def ledger(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return what a process pays for before its second step, stacked."""
    costs = {id(cell): medians for cell in cells if (medians := before(cell)) is not None}
    kept = [cell for cell in cells if id(cell) in costs]
    if not kept:
        return None
    rows = [
        {"style": wording.name(cell), "stage": stage.replace("_", " "), "seconds": seconds, "i": i}
        for cell in kept
        for i, (stage, seconds) in enumerate(costs[id(cell)].items())
    ]
    total = {wording.name(cell): sum(costs[id(cell)].values()) for cell in kept}
    least, most = min(total, key=total.__getitem__), max(total, key=total.__getitem__)
    imports = sum(c["import"] for c in costs.values()) / sum(total.values())
    stages = [stage.replace("_", " ") for stage in STARTUP]
    made = (
        chart(rows)
        .mark_bar()
        .encode(
            x=altair.X("sum(seconds):Q", title="seconds (medians), stacked"),
            y=row_axis(kept),
            color=altair.Color(
                "stage:N",
                title=None,
                scale=altair.Scale(domain=stages, range=list(PALETTE[: len(stages)])),
                legend=altair.Legend(orient="bottom"),
            ),
            order=altair.Order("i:Q"),
            tooltip=["style:N", "stage:N", altair.Tooltip("seconds:Q", format=".3f")],
        )
        .properties(width="container", height=ROW * len(kept))
    )
    title = (
        f"From a fresh process to the first step: {wording.seconds(total[least])} with {least}, "
        f"{wording.seconds(total[most])} with {most}; on average, imports are "
        f"{wording.percent(imports)} of it"
    )
    text = "; ".join(f"{name} {wording.seconds(seconds)}" for name, seconds in total.items())
    return Figure(
        "ledger", title, f"Sums of the stages at {wording.sized(workload)}: {text}.", made
    )


def totals(run: Run, cells: Sequence[Facts]) -> Figure | None:
    """Return total time beside the baseline's against the number of steps, and where lines cross.

    Without a baseline, there is nothing to be beside of, and no chart.
    """
    lines: dict[str, Line] = {}
    for cell in cells:
        start, step = before(cell), measured(cell, "step")
        if start is not None and step is not None:
            lines[wording.name(cell)] = Line(sum(start.values()), step["median"], cell["entrant"])
    base = lines.get(BASELINE[0])
    if base is None or len(lines) < 2:
        return None
    counts = np.unique(np.logspace(0, math.log10(MOST_STEPS), 61).astype(int)).tolist()
    rows = [
        {
            "style": name,
            "entrant": line.entrant,
            "way": way(name, line.entrant),
            "steps": n,
            "seconds": line.after(n),
            "ratio": line.after(n) / base.after(n),
        }
        for name, line in lines.items()
        for n in counts
    ]
    crossed = break_evens(run, cells, lines)
    marks = [
        {
            "style": name,
            "entrant": lines[name].entrant,
            "ratio": 1,
            "steps": even.at,
            "low": even.low,
            "high": even.high,
        }
        for name, even in crossed.items()
    ]
    x = altair.X(
        "steps:Q",
        title="training steps",
        scale=altair.Scale(type="log"),
        axis=altair.Axis(values=[10**n for n in range(7)], format="~s"),
    )
    y = altair.Y(
        "ratio:Q",
        title=f"time in all, ratio to {BASELINE[0]}'s",
        scale=altair.Scale(type="log", nice=False, padding=10),
    )
    layers = [
        chart(rows)
        .mark_line()
        .encode(
            x=x,
            y=y,
            color=coloured(cells),
            strokeDash=dashed(rows),
            detail="style:N",
            tooltip=[
                "style:N",
                "steps:Q",
                altair.Tooltip("seconds:Q", format=".3s"),
                altair.Tooltip("ratio:Q", format=".3f"),
            ],
        )
    ]
    if marks:
        even_at = chart(marks).encode(y=y, color=coloured(cells), tooltip=["style:N", "steps:Q"])
        layers += [
            even_at.mark_rule(strokeWidth=3).encode(x=altair.X("low:Q"), x2="high:Q"),
            even_at.mark_point(filled=True, size=90, opacity=1).encode(x=x),
        ]
    made = altair.layer(*layers).properties(width="container", height=320)
    said = [
        f"{name} meets {BASELINE[0]} at {rounded(even.at)} steps "
        f"({rounded(even.low)} to {rounded(even.high)})"
        for name, even in crossed.items()
    ]
    even = {name: line.start / line.step for name, line in lines.items()}
    first, last = min(even, key=even.__getitem__), max(even, key=even.__getitem__)
    title = (
        f"Up to {rounded(even[first])} steps ({first}) or {rounded(even[last])} ({last}), starting "
        "takes longer than training"
    )
    if said:
        title += f"; {few(said, '')}"
    text = "; ".join(
        f"{name}: {wording.seconds(line.start)} and {wording.seconds(line.step)} a step"
        for name, line in lines.items()
    )
    cross = f" Break-even points: {'; '.join(said)}." if said else " No sure break-even point."
    return Figure("totals", title, f"Start and step of each line: {text}.{cross}", made)


class Line(NamedTuple):
    """What a style's time is made of, in seconds."""

    start: float
    step: float
    entrant: str

    def after(self, steps: int) -> float:
        """Return the seconds from a fresh process to the end of so many steps."""
        return self.start + steps * self.step


class Even(NamedTuple):
    """Where two lines cross, and the ends of where they may."""

    at: float
    low: float
    high: float


def break_evens(run: Run, cells: Sequence[Facts], lines: dict[str, Line]) -> dict[str, Even]:
    """Return where a style's line crosses the baseline's, where both of its differences are sure.

    Sure is what an interval as wide as all comparisons ask for puts on one side of 1. The crossing
    is between the ones that the intervals' ends give.
    """
    base = lines.get(BASELINE[0])
    if base is None:
        return {}
    place = cells[0]["workload"], cells[0]["backend"]
    starts, _ = sums(run, STARTUP, *place, {(c["entrant"], c["style"]) for c in cells})
    paces = intervals(cells, "step")
    out = {}
    for name in lines:
        if name == BASELINE[0] or name not in starts or name not in paces:
            continue
        start, pace = starts[name], paces[name]
        later, slower = start[1] > 1, pace[1] > 1
        if not ((later and pace[2] < 1) or (slower and start[2] < 1)):
            continue
        ends = [
            base.start * abs(start[i] - 1) / (base.step * abs(pace[k] - 1))
            for i in (1, 2)
            for k in (1, 2)
        ]
        at = base.start * abs(start[0] - 1) / (base.step * abs(pace[0] - 1))
        if at > 1:
            out[name] = Even(at, min(ends), max(ends))
    return out


def rounded(value: float) -> str:
    """Return a count with two digits that mean something."""
    scale = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return f"{round(value / scale) * scale:,}".replace(",", " ")
