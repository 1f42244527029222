"""Overhead against the width of the model, and from which width on it stops mattering."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair

from bench.cells import BASELINE, TOGETHER
from bench.report import wording
from bench.report.charts.drawn import Figure, chart, coloured, dashed, few, way
from bench.report.table import percent
from bench.report.tied import estimate_of
from bench.report.wording import Facts, measured
from bench.stats.crossing import Crossing, crossing
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runfile.reader import Run


THROUGHOUT = "at every width"


def swept(cells: Sequence[Facts]) -> bool:
    """Tell whether steps of a sweep were measured."""
    return any(c["workload"] in TOGETHER["sweep"] and measured(c, "step") for c in cells)


def by_width(cells: Sequence[Facts]) -> dict[str, dict[int, Facts]]:
    """Return the steps of a sweep that have a ratio, by style and width."""
    at: dict[str, dict[int, Facts]] = {}
    for cell in cells:
        found = measured(cell, "step")
        if cell["workload"] in TOGETHER["sweep"] and found and found.get("ratio") is not None:
            at.setdefault(wording.name(cell), {})[WORKLOADS[cell["workload"]].width] = found
    return {name: dict(sorted(found.items())) for name, found in at.items()}


def widths(run: Run, cells: Sequence[Facts]) -> Figure | None:
    """Return the overhead of a step against the width of the model, of a sweep.

    Other workloads differ in more than their width.
    """
    at = by_width([cell for cell in cells if not wording.is_baseline(cell)])
    if not any(len(found) > 1 for found in at.values()):
        return None
    margin = run.section["plan"]["margin"]
    entrant = {wording.name(cell): cell["entrant"] for cell in cells}
    rows = [
        {
            "style": name,
            "entrant": entrant[name],
            "way": way(name, entrant[name]),
            "width": width,
            "ratio": found["ratio"],
            "low": found.get("low"),
            "high": found.get("high"),
            "interval": wording.ratio(found),
        }
        for name, steps in at.items()
        for width, found in steps.items()
    ]
    ends = [{"low": 1 - margin, "high": 1 + margin}]
    y = altair.Y(
        "ratio:Q", title=f"step, ratio to {BASELINE[0]}", scale=altair.Scale(type="log", nice=False)
    )
    x = altair.X("width:Q", title="width of the layers", scale=altair.Scale(type="log", base=2))
    base = chart(rows).encode(x=x, color=coloured(cells), tooltip=["style:N", "interval:N"])
    made = altair.layer(
        chart(ends).mark_rect(opacity=0.18, color="#888").encode(y="low:Q", y2="high:Q"),
        base.mark_line(opacity=0.7).encode(y=y, detail="style:N", strokeDash=dashed(rows)),
        base.mark_rule().encode(y=altair.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, opacity=1).encode(y=y),
    ).properties(width="container", height=320)
    title, every = about_widths(at, margin)
    measured_at = {name: ", ".join(map(str, steps)) for name, steps in at.items()}
    text = "; ".join(f"{name}: {widths}" for name, widths in measured_at.items())
    if len(set(measured_at.values())) == 1:
        text = next(iter(measured_at.values()))
    return Figure("widths", title, f"Widths measured: {text}. {every}", made)


def about_widths(at: dict[str, dict[int, Facts]], margin: float) -> tuple[str, str]:
    """Return from which width on differences do not matter: in a title, and of every style."""
    said = {}
    for name, steps in at.items():
        estimates = {width: e for width, f in steps.items() if (e := estimate_of(f)) is not None}
        if len(estimates) > 1:
            found = crossing(list(estimates), list(estimates.values()), margin)
            said[name] = where(found, min(estimates))
    limit = percent(margin)
    differ = [f"{name} {text}" for name, text in said.items() if text != THROUGHOUT]
    title = f"A step differs by less than {limit}: " + few(differ, "all of them at every width")
    return title, f"By less than {limit}: {'; '.join(f'{n} {t}' for n, t in said.items())}."


def where(found: Crossing, smallest: float) -> str:
    """Return from which width on a difference is within the margin, with the interval of that."""

    def end(width: float) -> str:
        return "beyond the widest" if math.isinf(width) else f"{width:.0f}"

    if found.high <= smallest * 1.001:
        return THROUGHOUT
    if math.isinf(found.at):
        low = "" if math.isinf(found.low) else f" ({found.low:.0f} at best)"
        return f"beyond the widest measured{low}"
    return f"from width {found.at:.0f} on ({end(found.low)} to {end(found.high)})"
