"""What comes before the second step, and after how many steps it no longer matters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import altair
import numpy as np

from bench.measure.cells import BASELINE
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart, coloured, dashed, few, row_axis, way
from bench.report.choose import BEFORE, sums
from bench.report.palette import PALETTE
from bench.report.tied import intervals
from bench.report.wording import Facts, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.runs import Run


MOST_STEPS = 1_000_000


def before(cell: Facts) -> dict[str, float] | None:
    """Return the medians of all that comes before the second step, if all are there."""
    found = {metric: measured(cell, metric) for metric in BEFORE}
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
    stages = [stage.replace("_", " ") for stage in BEFORE]
    made = (
        chart(rows)
        .mark_bar()
        .encode(
            x=altair.X("sum(seconds):Q", title="seconds, medians of fresh processes, stacked"),
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
        f"{wording.seconds(total[most])} with {most}; imports are {wording.percent(imports)}"
    )
    text = "; ".join(f"{name} {wording.seconds(seconds)}" for name, seconds in total.items())
    return Figure(
        "ledger", title, f"Sums of the stages at {wording.sized(workload)}: {text}.", made
    )


def totals(run: Run, cells: Sequence[Facts]) -> Figure | None:
    """Return total time against the number of steps, and where lines cross."""
    lines: dict[str, tuple[float, float, str]] = {}
    for cell in cells:
        start, step = before(cell), measured(cell, "step")
        if start is not None and step is not None:
            name = wording.name(cell)
            lines[name] = (sum(start.values()), step["median"], cell["entrant"])
    if len(lines) < 2:
        return None
    counts = np.unique(np.logspace(0, math.log10(MOST_STEPS), 61).astype(int)).tolist()
    rows = [
        {
            "style": name,
            "entrant": entrant,
            "way": way(name, entrant),
            "steps": n,
            "seconds": start + n * step,
        }
        for name, (start, step, entrant) in lines.items()
        for n in counts
    ]
    crossed = break_evens(run, cells, lines)
    made = (
        chart(rows)
        .mark_line()
        .encode(
            x=altair.X(
                "steps:Q",
                title="training steps",
                scale=altair.Scale(type="log"),
                axis=altair.Axis(values=[10**n for n in range(7)], format="~s"),
            ),
            y=altair.Y(
                "seconds:Q",
                title="seconds in all",
                scale=altair.Scale(type="log"),
                axis=altair.Axis(values=[10**n for n in range(-1, 6)], format="~g"),
            ),
            color=coloured(cells),
            strokeDash=dashed(rows),
            detail="style:N",
            tooltip=["style:N", "steps:Q", altair.Tooltip("seconds:Q", format=".3s")],
        )
        .properties(width="container", height=320)
    )
    said = [
        f"{name} meets {BASELINE[0]} at {rounded(even.at)} steps "
        f"({rounded(even.low)} to {rounded(even.high)})"
        for name, even in crossed.items()
    ]
    even = [start / step for start, step, _ in lines.values()]
    title = (
        f"Up to about {rounded(float(np.median(even)))} steps, starting takes longer than training"
    )
    if said:
        title += f"; {few(said, '')}"
    text = "; ".join(
        f"{name}: {wording.seconds(start)} and {wording.seconds(step)} a step"
        for name, (start, step, _) in lines.items()
    )
    cross = f" Break-even points: {'; '.join(said)}." if said else " No sure break-even point."
    return Figure("totals", title, f"Start and step of each line: {text}.{cross}", made)


class Even(NamedTuple):
    """Where two lines cross, and the ends of where they may."""

    at: float
    low: float
    high: float


def break_evens(
    run: Run, cells: Sequence[Facts], lines: dict[str, tuple[float, float, str]]
) -> dict[str, Even]:
    """Return where a style's line crosses the baseline's, where both of its differences are sure.

    Sure is what an interval as wide as all comparisons ask for puts on one side of 1. The crossing
    is between the ones that the intervals' ends give.
    """
    base = lines.get(BASELINE[0])
    if base is None:
        return {}
    place = cells[0]["workload"], cells[0]["backend"]
    starts, _ = sums(run, BEFORE, *place)
    paces = intervals(run.section, cells, "step")
    out = {}
    for name in lines:
        if name == BASELINE[0] or name not in starts or name not in paces:
            continue
        start, pace = starts[name], paces[name]
        later, slower = start[1] > 1, pace[1] > 1
        if not ((later and pace[2] < 1) or (slower and start[2] < 1)):
            continue
        ends = [
            base[0] * abs(start[i] - 1) / (base[1] * abs(pace[k] - 1))
            for i in (1, 2)
            for k in (1, 2)
        ]
        at = base[0] * abs(start[0] - 1) / (base[1] * abs(pace[0] - 1))
        if at > 1:
            out[name] = Even(at, min(ends), max(ends))
    return out


def rounded(value: float) -> str:
    """Return a count with two digits that mean something."""
    scale = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return f"{round(value / scale) * scale:,}".replace(",", " ")
