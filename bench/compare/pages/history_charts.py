"""Charts of a history: one for each metric and workload, releases marked."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import altair

from bench.compare.series import CALLED, growth, times
from bench.report import wording
from bench.report.charts.drawn import Figure, chart, coloured, dashed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.wording import Facts

HEIGHT = 320
GREY = "#888"
FINE, COARSE = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0)
"""Marks of a decade, in a chart of one and of several."""
MARKED = ("jax", "flax", "dm-haiku", "equinox")
"""Distributions whose releases are marked: those of the entrants."""


def figures(history: Facts) -> Iterator[Figure]:
    """Yield the charts of a history, what changed most first."""
    groups: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for series in history["series"]:
        groups[series["metric"], series["workload"]].append(series)
    for (metric, workload), every in groups.items():
        several = [series for series in every if on_several_days(series)]
        if several:
            found = [
                c for c in history["changes"] if (c["metric"], c["workload"]) == (metric, workload)
            ]
            once = [wording.name(series) for series in every if not on_several_days(series)]
            yield Figure(
                f"{metric}-{workload}",
                title(metric, workload, found),
                text(history, metric, workload, several, found, once),
                drawn(history, metric, workload, several),
            )


def on_several_days(series: Facts) -> bool:
    """Tell whether a series has a value on more than one day: one alone is 1 by definition."""
    return sum(ratio is not None for ratio in series["ratio"]) > 1


def drawn(history: Facts, metric: str, workload: str, several: Sequence[Facts]) -> Any:
    """Return a chart."""
    rows = [row for series in several for row in points(history, series)]
    base = altair.Chart().encode(
        x=altair.X(
            "when:T",
            title="day of the stack",
            scale=altair.Scale(type="utc"),
            axis=altair.Axis(format="%Y-%m-%d"),
        ),
        color=coloured(several),
    )
    name = CALLED.get(metric, metric)
    y: dict[str, Any] = {
        "title": f"{name} of {workload}, relative to the newest day (log scale)",
        "scale": altair.Scale(type="log", nice=False, padding=10),
        "axis": altair.Axis(values=ticks(rows), format="~g"),
    }
    known = base.transform_filter("isValid(datum.low)")
    tips = ["style:N", "day:N", "said:N", "versions:N"]
    layers = [
        *releases(history),
        base.mark_line(opacity=0.8).encode(
            y=altair.Y("value:Q", **y), detail="style:N", strokeDash=dashed(rows)
        ),
        known.mark_rule(opacity=0.8, strokeWidth=2).encode(
            y=altair.Y("low:Q", **y), y2="high:Q", detail="style:N"
        ),
        base.mark_point(filled=True, opacity=1, size=50).encode(
            y=altair.Y("value:Q", **y), tooltip=tips
        ),
    ]
    whole = altair.layer(*layers, data=altair.Data(values=rows))
    return whole.properties(width="container", height=HEIGHT)


def ticks(rows: Sequence[Facts]) -> list[float]:
    """Return what a logarithmic axis over some rows is marked with: a few in each decade."""
    ends = [row[name] for row in rows for name in ("value", "low", "high") if row.get(name)]
    low, high = math.log10(min(ends)), math.log10(max(ends))
    steps = FINE if high - low < 1.5 else COARSE if high - low < 3 else (1.0,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [float(f"{step * 10.0**power:.6g}") for power in powers for step in steps]


def points(history: Facts, series: Facts) -> Iterator[Facts]:
    """Yield the days of a series that have a value."""
    versions = {day["stack"]: day["versions"] for day in history["days"]}
    about = {"style": wording.name(series), "entrant": series["entrant"], "way": series["style"]}
    columns = zip(
        history["stacks"],
        *(series[name] for name in ("ratio", "low", "high", "median")),
        strict=True,
    )
    for day, ratio, low, high, median in columns:
        if ratio is None:
            continue
        row = about | {"when": f"{day}T12:00:00Z", "day": day, "value": ratio}
        said = f"{times(ratio)} of the newest"
        if low is not None and high is not None:
            row |= {"low": low, "high": high}
            said += f" ({times(low)} to {times(high)})"
        if median is not None:
            said += f"; {wording.amount(median, series['unit'])} at that hour"
        there = versions.get(day, {})
        row["said"] = said
        row["versions"] = ", ".join(f"{n} {there[n]}" for n in MARKED if n in there)
        yield row


def releases(history: Facts) -> list[Any]:
    """Return rules half way between days whose jax differs, with its version along them."""
    rows = []
    days = [day for day in history["days"] if day["versions"]]
    name = MARKED[0]
    for before, after in pairwise(days):
        old, new = before["versions"].get(name), after["versions"].get(name)
        if old != new:
            first, last = (date.fromisoformat(d["day"]) for d in (before, after))
            middle = first + timedelta((last - first).days // 2)
            rows.append(
                {
                    "when": f"{middle}T12:00:00Z",
                    "label": f"{name} {new}",
                    "versions": f"{name} {old} → {new}",
                }
            )
    if not rows:
        return []
    base = chart(rows).encode(x="when:T", tooltip="versions:N")
    names = base.mark_text(
        angle=270, align="right", baseline="bottom", dx=-4, dy=-2, fontSize=10, color=GREY
    )
    return [
        base.mark_rule(strokeDash=[4, 4], color=GREY),
        names.encode(text="label:N", y=altair.value(0)),
    ]


def title(metric: str, workload: str, found: Sequence[Facts]) -> str:
    """Return the largest change in a chart, in words."""
    what = f"{CALLED.get(metric, metric)} of {workload}"
    if not found:
        return f"{what}: no change was told from noise".capitalize()
    largest = found[0]
    where = largest["before"], largest["after"]
    slower = largest["ratio"] > 1
    alike = [c for c in found if (c["before"], c["after"]) == where and (c["ratio"] > 1) == slower]
    change = growth([c["ratio"] for c in alike])
    who = wording.name(largest) if len(alike) == 1 else f"{len(alike)} entrants"
    often = len({(c["before"], c["after"]) for c in found})
    more = "" if often == 1 else f", the largest of {often} steps"
    said = f"{what} {change} between {where[0]} and {where[1]}"
    return f"{said[:1].upper()}{said[1:]} ({who}){more}"


def text(
    history: Facts,
    metric: str,
    workload: str,
    several: Sequence[Facts],
    found: Sequence[Facts],
    once: Sequence[str],
) -> str:
    """Return a chart in words, for readers who cannot see it.

    Args:
        history: The data of the history.
        metric: Of the chart.
        workload: Of the chart.
        several: The series that are drawn.
        found: Their changes.
        once: Names of the series that are not drawn.
    """
    said = []
    for series in several:
        days = zip(history["stacks"], series["ratio"], strict=True)
        first, ratio = next((day, ratio) for day, ratio in days if ratio is not None)
        said.append(f"{wording.name(series)} {times(ratio)} on {first}")
    where = sorted({f"{c['before']} to {c['after']}" for c in found})
    changes = f"Changes: {', '.join(where)}." if where else "No change was told from noise."
    alone = f" Measured on one day only, and not drawn: {', '.join(once)}." if once else ""
    return (
        f"{CALLED.get(metric, metric)} of {workload} on {len(history['stacks'])} days, relative to "
        f"the newest day that each has: {'; '.join(said)}. {changes}{alone}"
    )
