"""The page of a comparison, in the style of a run's page: what changed, then every row."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair

from bench.compare import words
from bench.compare.comparison import Outcome, Status
from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart
from bench.report.page.parts import filled, script
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.comparison import Comparison, Row
    from bench.report.wording import Facts

HERE = Path(__file__).parent
COLOURS = {
    Verdict.SLOWER: "#d1495b",
    Verdict.FASTER: "#2a9d62",
    Verdict.EQUIVALENT: "#5b7db1",
    Verdict.INCONCLUSIVE: "#999999",
}
CALLED = {
    Status.NOT_WORSE: "Nothing is known to be worse",
    Status.WORSE: "Something is worse",
    Status.CANNOT_SAY: "Cannot say",
}


def page(comparison: Comparison) -> str:
    """Return the HTML of a comparison."""
    base = " and ".join(words.described(side) for side in comparison.bases)
    return filled(
        "comparison.html.jinja",
        figures=list(figures(comparison)),
        folders=[HERE],
        js=script("charts.js"),
        skip=("outcome", "To the outcome"),
        title=f"{comparison.new.name} beside {comparison.base.name}",
        subtitle=f"base {base}, new {words.described(comparison.new)}",
        sections=[("outcome", "Outcome"), ("rows", "Rows"), ("conditions", "Conditions")],
        called=CALLED[comparison.status],
        headline=words.headline(comparison),
        changed=[row for row in rows(comparison) if row["changed"]],
        rows=list(rows(comparison)),
        counted=list(counted(comparison)),
        failures=[words.failed(each) for each in comparison.failures],
        lacking=list(words.lacking(comparison)),
        comparison=comparison,
        differences=[str(each) for each in comparison.differences],
        precision=words.precision(comparison),
    )


def rows(comparison: Comparison) -> Iterator[Facts]:
    """Yield the rows that are compared, what is worse first."""
    several = words.backends(comparison)
    order = {Verdict.SLOWER: 1, Verdict.FASTER: 2, None: 9}
    found = [row for row in comparison.rows if row.ratio is not None]
    for row in sorted(found, key=lambda r: (not r.worse, order.get(r.verdict, 3))):
        base, new = words.sides(row)
        yield {
            "metric": words.metric(row.metric),
            "where": words.place(row.cell, several),
            "style": words.name(row.cell),
            "base": base,
            "new": new,
            "ratio": words.ratio(row),
            "verdict": "left out" if row.verdict is None else str(row.verdict),
            "note": words.note(row),
            "worse": row.worse,
            "changed": row.changed,
        }


def counted(comparison: Comparison) -> Iterator[Facts]:
    """Yield exact metrics that are another number now."""
    for each in words.counted(row for row in comparison.exact if row.changed):
        row = each.row
        yield {
            "metric": words.metric(row.metric),
            "where": wording.joined(each.workloads),
            "style": words.name(row.cell),
            "base": words.exact(row.base, row.metric),
            "new": words.exact(row.new, row.metric),
            "outcome": str(row.outcome),
            "colour": {Outcome.WORSE: "slower", Outcome.BETTER: "faster"}.get(row.outcome, ""),
            "note": words.note(row),
        }


def figures(comparison: Comparison) -> Iterator[Figure]:
    """Yield a chart of intervals for each metric."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in comparison.judged:
        if row.ratio is not None and row.low is not None and row.high is not None:
            groups[row.metric].append(row)
    for metric in words.columns(row for rows in groups.values() for row in rows):
        yield Figure(
            f"ratios-{metric}",
            title(metric, groups[metric]),
            text(metric, groups[metric], comparison.margin),
            drawn(comparison, metric, groups[metric]),
        )


def drawn(comparison: Comparison, metric: str, found: Sequence[Row]) -> Any:
    """Return the chart of one metric: ratios with their intervals, the margin as a band."""
    several = words.backends(comparison)
    data = [
        {
            "cell": f"{words.name(row.cell)} at {words.place(row.cell, several)}",
            "ratio": row.ratio,
            "low": row.low,
            "high": row.high,
            "verdict": str(row.verdict),
            "said": words.ratio(row),
        }
        for row in found
    ]
    of_ratio: dict[str, Any] = {
        "title": f"{words.metric(metric)}, new / base (log scale)",
        "scale": altair.Scale(type="log", nice=False, padding=12),
    }
    y = altair.Y("cell:N", title=None, sort=None, axis=altair.Axis(labelLimit=260))
    domain = list(COLOURS)
    colour = altair.Color(
        "verdict:N",
        title=None,
        scale=altair.Scale(domain=[str(v) for v in domain], range=[COLOURS[v] for v in domain]),
        legend=altair.Legend(orient="bottom"),
    )
    margin = comparison.margin
    band = chart([{"ratio": 1 / (1 + margin), "high": 1 + margin}]).mark_rect(
        opacity=0.18, color="#888"
    )
    base = chart(data).encode(y=y, color=colour, tooltip=["cell:N", "said:N", "verdict:N"])
    whole = altair.layer(
        band.encode(x=altair.X("ratio:Q", **of_ratio), x2="high:Q"),
        base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", **of_ratio), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=altair.X("ratio:Q", **of_ratio)),
    )
    return whole.properties(width="container", height=max(3, len(data)) * ROW)


def title(metric: str, found: Sequence[Row]) -> str:
    """Return what a chart found."""
    slower = [row for row in found if row.verdict is Verdict.SLOWER]
    faster = [row for row in found if row.verdict is Verdict.FASTER]
    what = words.metric(metric)
    what = f"{what[:1].upper()}{what[1:]}"
    if not slower and not faster:
        return f"{what}: nothing was told apart"
    said = [
        f"{len(each)} {name}" for each, name in ((slower, "slower"), (faster, "faster")) if each
    ]
    return f"{what}: {' and '.join(said)} of {len(found)}"


def text(metric: str, found: Sequence[Row], margin: float) -> str:
    """Return what somebody who cannot see a chart needs to know."""
    said = [
        f"{words.name(row.cell)} at {row.cell.workload} {words.ratio(row)}, {row.verdict}"
        for row in found
    ]
    return (
        f"{words.metric(metric)}, new to base, with 95 % intervals; the band is the margin of "
        f"±{wording.percent(margin)}: {'; '.join(said)}."
    )
