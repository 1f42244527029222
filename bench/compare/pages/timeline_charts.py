"""Charts of a time line: one for each metric, workload and backend, releases marked."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import altair
import numpy as np

from bench.compare.pages import timeline_words as words
from bench.report import wording
from bench.report.charts.drawn import Figure, chart, coloured, dashed, few, shown
from bench.report.page.data import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float, Int

    from bench.compare.line import Line, Series

HEIGHT = 320
MOST_POINTS = 1200
"""In a chart; of more runs, some are picked evenly."""
FEWEST_RUNS = 25
"""Of a series that are drawn, however many series there are."""
CROWDED = 40
"""Points of a series above which its intervals are a band, and points are not marked."""
MOST_LABELS = 10
"""Releases that have their names beside their rules, the newest ones."""
DAYS, MONTHS = 4, 120
"""Days from which on the axis has days, and months."""
GREY = "#888"
SPECIAL = re.compile(r"[^\w.-]+")
"""What is no part of a file's name."""


def figures(line: Line) -> Iterator[Figure]:
    """Yield the charts of a line: of what was measured twice; of exact values, what moved."""
    for number, group in enumerate(words.groups(line)):
        by_name = {series.name: series for series in drawable(group)}
        kept = [by_name[wording.name(c)] for c in shown([s.cell for s in by_name.values()])]
        runs = np.unique(np.concatenate([np.zeros(0, int), *(series.at for series in kept)]))
        if runs.size < 2:
            continue
        with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
            made = drawn(kept, line, runs)
        key = group[0].key
        name = SPECIAL.sub("_", f"{key.metric}-{key.workload}-{key.backend}-{number}")
        yield Figure(name, title(kept, line), text(kept, line, runs), made)


def drawable(group: Sequence[Series]) -> list[Series]:
    """Return what a chart shows of a group: ratios if there are any, and of exact values the moved.

    Those are drawn relative to their first: of large and small numbers side by side, none moves.
    """
    if any(series.compared for series in group):
        return [series for series in group if series.compared]
    if group[0].key.exact:
        return [s for s in group if np.ptp(s.median) and (s.median > 0).all()]
    return [series for series in group if np.isfinite(series.median).any()]


def heights(series: Series) -> Float[np.ndarray, " points"]:
    """Return what is drawn of a series."""
    return series.median / series.median[0] if series.key.exact else series.values


def drawn(group: Sequence[Series], line: Line, runs: Int[np.ndarray, " runs"]) -> Any:
    """Return the chart of a group."""
    rows = [row for series in group for row in points(series, line, most(group))]
    crowded = max(series.at.size for series in group) > CROWDED
    x = altair.X(
        "when:T",
        title="time of the run (UTC)",
        scale=altair.Scale(type="utc"),
        axis=altair.Axis(format=dates(line.runs[runs[0]].at, line.runs[runs[-1]].at)),
    )
    # The rows are the whole chart's: each layer would write them once more.
    base = altair.Chart().encode(x=x, color=coloured([series.cell for series in group]))
    middle = values(group[0], "value")
    layers = [*margins(group[0], line.runs[-1].margin), *releases(marked(line, runs))]
    dash = dashed(rows)
    layers.append(base.mark_line(opacity=0.7).encode(y=middle, detail="style:N", strokeDash=dash))
    if any("low" in row for row in rows):
        known = base.transform_filter("isValid(datum.low)")
        doubt = known.mark_area(opacity=0.2) if crowded else known.mark_rule(opacity=0.7)
        layers.append(doubt.encode(y=values(group[0], "low"), y2="high:Q", detail="style:N"))
    if not crowded:
        tips = ["style:N", "said:N", "run:N", "commit:N"]
        dots = base.mark_point(filled=True, opacity=1, size=40)
        layers.append(dots.encode(y=middle, tooltip=tips))
    whole = altair.layer(*layers, data=altair.Data(values=rows))
    return whole.properties(width="container", height=HEIGHT)


def margins(series: Series, margin: float) -> list[Any]:
    """Return the band in which ratios are as good as 1."""
    if not series.compared:
        return []
    band = chart([{"low": 1 - margin, "high": 1 + margin}]).mark_rect(opacity=0.18, color=GREY)
    return [band.encode(y=values(series, "low"), y2="high:Q")]


def values(series: Series, name: str) -> Any:
    """Return the axis of values, in which a chart's layers agree."""
    scale = altair.Scale(zero=False)
    if series.compared:
        scale = altair.Scale(type="log", nice=False, padding=10)
    return altair.Y(f"{name}:Q", title=axis(series), scale=scale)


def dates(first: str, last: str) -> str:
    """Return how times are written along the axis."""
    days = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).days
    return "%Y-%m-%d %H:%M" if days < DAYS else "%Y-%m-%d" if days < MONTHS else "%Y-%m"


def most(group: Sequence[Series]) -> int:
    """Return how many points of each series are drawn."""
    return max(FEWEST_RUNS, MOST_POINTS // len(group))


def picked(series: Series, most: int) -> list[int]:
    """Return the points that are drawn: the first, the last, and evenly in between."""
    there = np.flatnonzero(np.isfinite(heights(series)))
    if there.size <= most:
        return list(there.tolist())
    return list(there[np.linspace(0, there.size - 1, most).round().astype(int)].tolist())


def points(series: Series, line: Line, most: int) -> Iterator[dict[str, Any]]:
    """Yield the points of a series as a chart has them."""
    crowded = series.at.size > CROWDED
    drawn = heights(series)
    about = {"style": series.name, "entrant": series.key.entrant, "way": series.key.style}
    for point in picked(series, most):
        run, found = line.runs[series.at[point]], series.said(point)
        row = about | {"when": f"{run.at}Z", "value": rounded(float(drawn[point]))}
        if found["low"] and found["high"]:
            row |= {"low": rounded(found["low"]), "high": rounded(found["high"])}
        if not crowded:
            row["said"] = value(series, point)
            row |= {"run": run.name, "commit": run.revision[: words.SHORT]}
        yield row


def value(series: Series, point: int) -> str:
    """Return a point in words."""
    if series.compared:
        return wording.ratio(series.said(point))
    return words.amount(series, float(series.median[point]))


def axis(series: Series) -> str:
    """Return what the values are, and their unit."""
    metric = words.label(series.key.metric)
    if series.compared:
        return f"{metric}, ratio to {words.base(series.key.metric)} (log scale)"
    if series.key.exact:
        return f"{metric}, relative to the first run"
    return f"{metric}, {series.key.unit}" if series.key.unit else metric


def marked(line: Line, runs: Int[np.ndarray, " runs"]) -> list[dict[str, Any]]:
    """Return the releases between a chart's runs, each between the two runs that show it."""
    found = [r for r in line.releases if runs[0] < r.run <= runs[-1]]
    rows = []
    for place, release in enumerate(found):
        named = len(found) - place <= MOST_LABELS
        rows.append(
            {
                "when": halfway(line.runs[release.run - 1].at, line.runs[release.run].at),
                "first": words.moment(line, release.run),
                "versions": words.versions(release.changed, len(release.changed)),
                "label": words.versions(release.changed, 2) if named else "",
            }
        )
    return rows


def halfway(before: str, after: str) -> str:
    """Return the time in the middle."""
    first, last = (datetime.fromisoformat(at).replace(tzinfo=UTC) for at in (before, after))
    return f"{(first + (last - first) / 2).isoformat(timespec='seconds')[:19]}Z"


def releases(found: Sequence[dict[str, Any]]) -> list[Any]:
    """Return rules where versions changed, with their names along them."""
    if not found:
        return []
    base = chart(list(found)).encode(x="when:T", tooltip=["versions:N", "first:N"])
    names = base.mark_text(
        angle=270, align="right", baseline="bottom", dx=-4, dy=-2, fontSize=10, color=GREY
    )
    return [
        base.mark_rule(strokeDash=[4, 4], color=GREY),
        names.encode(text="label:N", y=altair.value(0)),
    ]


def title(group: Sequence[Series], line: Line) -> str:
    """Return what a chart found."""
    key, keys = group[0].key, {series.key: series for series in group}
    changes = [change for change in line.changes if change.key in keys]
    if changes:
        largest = max(changes, key=lambda change: abs(np.log(change.ratio)))
        told = words.told(largest, line, keys[largest.key])
        return words.sentence(told).removesuffix(".")
    metric, place = words.label(key.metric), words.place(key, backends=words.several(line))
    where = words.sentence(place)
    if key.exact:
        return f"{where}, {metric} changed for {few([series.name for series in group], '')}"
    repeated = [series for series in group if series.at.size > 1]
    if not repeated:
        return f"{where}, {metric} has not been measured twice for any style"
    most = max(repeated, key=reach)
    low, high = (words.amount(most, float(end(most.values))) for end in (np.nanmin, np.nanmax))
    return f"{where}, no change of {metric} is seen; {most.name} ranges most, {low} to {high}"


def reach(series: Series) -> float:
    """Return the largest value of a series over its smallest, as a logarithm."""
    values = np.abs(series.values[np.isfinite(series.values)])
    return float(np.ptp(np.log(values))) if values.size and values.min() > 0 else 0.0


def text(group: Sequence[Series], line: Line, runs: Int[np.ndarray, " runs"]) -> str:
    """Return what can be seen in a chart, in words."""
    parts = []
    if group[0].compared:
        base, margin = words.base(group[0].key.metric), wording.percent(line.runs[-1].margin)
        parts.append(f"Ratios to {base} with their 95 % intervals; grey: ±{margin}.")
    ends = "; ".join(ends_of(series) for series in group)
    parts.append(f"First and newest: {ends}.")
    if max(series.at.size for series in group) > most(group):
        parts.append(f"{most(group)} of {runs.size} runs are drawn, evenly picked.")
    if found := marked(line, runs):
        said = [f"{row['first']} {row['versions']}" for row in found[-MOST_LABELS:]]
        parts.append(f"Dashed rules: releases; {'; '.join(said)}.")
    return " ".join(parts)


def ends_of(series: Series) -> str:
    """Return the first and the newest value of a series."""
    there = np.flatnonzero(np.isfinite(series.values)).tolist()
    ends = dict.fromkeys(value(series, point) for point in (there[0], there[-1]))
    return f"{series.name} {' → '.join(ends)}"
