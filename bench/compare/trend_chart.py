"""The chart of some series over time, with their intervals and the releases between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import altair
import numpy as np

from bench.cells import BASELINE
from bench.compare import trends
from bench.metrics import label
from bench.report import wording
from bench.report.charts.figure import MOST_STYLES, Figure, chart, coloured, dashed
from bench.report.table import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from bench.compare.series import Series, Timeline

HEIGHT = 320
MOST_POINTS = 600
"""In a chart; of more moments, some are picked evenly."""
FEWEST_POINTS = 25
"""Of a series that are drawn, however many series there are."""
MARKED = ("jax", "flax", "dm-haiku", "equinox")
"""Distributions whose releases are marked."""
MOST_LABELS = 10
"""Releases that have their names beside their rules, the newest ones."""
GREY = "#888"
SPECIAL = re.compile(r"[^\w.-]+")
"""What is no part of a file's name."""


def figure(group: Sequence[Series], timeline: Timeline, names: str) -> Figure | None:
    """Return the chart of series of one metric, backend and workload; None if none has two points.

    `names` is what the chart's name begins with.
    """
    kept = drawable(group)
    if not kept:
        return None
    key = group[0].key
    parts = [key.metric, key.workload, key.backend if names else ""]
    name = SPECIAL.sub("_", f"{names}{'-'.join(filter(None, parts))}")
    with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
        made = drawn(kept, timeline)
    return Figure(name, title(kept, timeline), text(kept, group, timeline), made)


def drawable(group: Sequence[Series]) -> list[Series]:
    """Return the series that a chart shows: those with two points; of exact values, what moved."""
    ratios = any(series.compared for series in group)
    found = [
        series
        for series in group
        if np.isfinite(heights(series)).sum() > 1
        and (series.compared or not ratios)
        and (not series.key.exact or (np.ptp(series.values) > 0 and (series.values > 0).all()))
    ]
    found.sort(key=lambda series: not series.key.cell.is_pure)
    return found[:MOST_STYLES]


def heights(series: Series) -> Float[np.ndarray, " points"]:
    """Return what is drawn; exact values relative to the first, being of many orders."""
    return series.values / series.values[0] if series.key.exact else series.values


def drawn(group: Sequence[Series], timeline: Timeline) -> Any:
    """Return the chart of a group."""
    most = max(FEWEST_POINTS, MOST_POINTS // len(group))
    rows = [row for series in group for row in points(series, timeline, most)]
    x = altair.X("when:T", title="time (UTC)", scale=altair.Scale(type="utc"))
    entrants = [series.key.entrant for series in group]
    tips = ["style:N", "at:N", "said:N", "run:N", "commit:N", "versions:N"]
    # The rows are the whole chart's: each layer would write them once more.
    base = altair.Chart().encode(x=x, color=coloured(entrants), detail="style:N")
    middle, low = (values(group[0], timeline, name) for name in ("value", "low"))
    layers = [
        *margin(group[0], timeline),
        *rules(group, timeline),
        base.mark_line(opacity=0.8).encode(y=middle, strokeDash=dashed(rows)),
        base.transform_filter("isValid(datum.low)").mark_rule(opacity=0.7).encode(y=low, y2="high"),
        base.mark_point(filled=True, opacity=1, size=40).encode(y=middle, tooltip=tips),
    ]
    whole = altair.layer(*layers, data=altair.Data(values=rows))
    return whole.properties(width="container", height=HEIGHT)


def values(series: Series, timeline: Timeline, name: str) -> Any:
    """Return the axis of values, in which a chart's layers agree."""
    metric = trends.sentence(label(series.key.metric))
    if series.compared:
        base = trends.base(series.key.metric, timeline)
        title = f"{metric}, relative to {base} (log scale)"
        scale = altair.Scale(type="log", nice=False, padding=10)
        return altair.Y(f"{name}:Q", title=title, scale=scale)
    unit = "relative to the first" if series.key.exact else series.key.unit
    title = f"{metric}, {unit}" if unit else metric
    return altair.Y(f"{name}:Q", title=title, scale=altair.Scale(zero=False))


def margin(series: Series, timeline: Timeline) -> list[Any]:
    """Return the band in which ratios to the baseline of the same run are as good as 1."""
    if not series.compared or timeline.base != BASELINE[0]:
        return []
    margin = timeline.moments[-1].margin
    band = chart([{"low": 1 - margin, "high": 1 + margin}]).mark_rect(opacity=0.18, color=GREY)
    return [band.encode(y=values(series, timeline, "low"), y2="high:Q")]


def points(series: Series, timeline: Timeline, most: int) -> Iterator[dict[str, Any]]:
    """Yield the points of a series as a chart has them."""
    shown = heights(series)
    for point in picked(series, most):
        at = int(series.at[point])
        moment, found = timeline.moments[at], series.points[point]
        have = moment.versions
        yield {
            "style": series.key.name,
            "entrant": series.key.entrant,
            "way": series.key.cell.arm.full_style,
            "when": f"{moment.at}Z",
            "value": rounded(shown[point]),
            "low": rounded(found.low) if found.low and found.high else None,
            "high": rounded(found.high) if found.low and found.high else None,
            "said": str(series.value(point)),
            "at": timeline.times[at],
            "run": moment.name,
            "commit": moment.revision[: trends.SHORT],
            "versions": ", ".join(f"{name} {have[name]}" for name in MARKED if name in have),
        }


def picked(series: Series, most: int) -> list[int]:
    """Return the points that are drawn: the first, the last, and evenly in between."""
    there = np.flatnonzero(np.isfinite(heights(series)))
    if there.size > most:
        there = there[np.linspace(0, there.size - 1, most).round().astype(int)]
    return list(there.tolist())


def rounded(value: float) -> float:
    """Return a number with as many digits as a chart needs."""
    return float(f"{value:.5g}")


def marks(group: Sequence[Series], timeline: Timeline) -> list[tuple[int, dict[str, str]]]:
    """Return the moments between a chart's ends at which a release came, and the new releases."""
    runs = np.concatenate([series.at for series in group])
    found = []
    for moment, changed in timeline.releases:
        new = {name: changed[name][1] for name in MARKED if name in changed}
        if new and runs.min() < moment <= runs.max():
            found.append((moment, new))
    return found


def rules(group: Sequence[Series], timeline: Timeline) -> list[Any]:
    """Return rules at the first moment of each release, with the release along them."""
    found = marks(group, timeline)
    if not found:
        return []
    rows = [
        {
            "when": f"{timeline.moments[at].at}Z",
            "at": timeline.times[at],
            "versions": ", ".join(f"{name} {version}" for name, version in new.items()),
            "label": " ".join(next(iter(new.items()))) if len(found) - i <= MOST_LABELS else "",
        }
        for i, (at, new) in enumerate(found)
    ]
    base = chart(rows).encode(x="when:T", tooltip=["versions:N", "at:N"])
    labels = base.mark_text(
        angle=270, align="right", baseline="bottom", dx=-4, dy=-2, fontSize=10, color=GREY
    )
    return [
        base.mark_rule(strokeDash=[4, 4], color=GREY),
        labels.encode(text="label:N", y=altair.value(0)),
    ]


def title(group: Sequence[Series], timeline: Timeline) -> str:
    """Return what a chart found: its largest change, or that there is none."""
    keys = {series.key for series in group}
    found = trends.alike(change for change in timeline.changes if change.key in keys)
    if found:
        largest = max(found, key=lambda several: max(abs(np.log(each.ratio)) for each in several))
        who = largest[0].key.name if len(largest) == 1 else f"{len(largest)} styles"
        return f"{trends.amount_and_place(largest, timeline)} ({who})"
    key = group[0].key
    what = f"{trends.sentence(label(key.metric))} {trends.place(key, timeline)}"
    if key.exact:
        return f"{what} changed for {wording.few([each.key.name for each in group], trends.NAMED)}"
    return f"{what}: no change found"


def text(drawn: Sequence[Series], group: Sequence[Series], timeline: Timeline) -> str:
    """Return a chart in words, for readers who cannot see it."""
    parts = []
    if drawn[0].compared:
        grey = f"; grey: ±{percent(timeline.moments[-1].margin)}"
        within = grey if timeline.base == BASELINE[0] else ""
        base = trends.base(drawn[0].key.metric, timeline)
        parts.append(f"Relative to {base}, with 95 % intervals{within}.")
    ends = "; ".join(f"{series.key.name} {first_and_newest(series)}" for series in drawn)
    parts.append(f"First and newest: {ends}.")
    once = [s.key.name for s in group if s.compared and s not in drawn]
    if once:
        parts.append(f"Not drawn: {wording.few(once, trends.NAMED)}.")
    if found := marks(drawn, timeline):
        said = [f"{timeline.times[at]} {' '.join(next(iter(new.items())))}" for at, new in found]
        parts.append(f"Dashed rules: releases; {'; '.join(said[-MOST_LABELS:])}.")
    return " ".join(parts)


def first_and_newest(series: Series) -> str:
    """Return the first and the newest value of a series."""
    return " → ".join(dict.fromkeys(str(series.value(point)) for point in picked(series, 2)))
