"""Charts of ratios with their intervals: of a comparison's metrics, and of a bisection's steps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import altair

from bench.compare.comparison_document import ratio_value
from bench.metrics import METRICS, label
from bench.report.charts.figure import ROW, Figure, chart
from bench.report.table import percent
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.compare.comparison import ComparedRow, Comparison
    from bench.report.table import Value

RED, GREEN, BLUE, GREY = "#d1495b", "#2a9d62", "#5b7db1", "#999999"
COLOURS: Mapping[str, str] = {
    Verdict.SLOWER: RED,
    Verdict.FASTER: GREEN,
    Verdict.EQUIVALENT: BLUE,
    Verdict.INCONCLUSIVE: GREY,
}


def figures(comparison: Comparison) -> Iterator[Figure]:
    """Yield a chart for each metric."""
    groups: dict[str, list[ComparedRow]] = defaultdict(list)
    for row in comparison.judged:
        groups[row.metric].append(row)
    margin = comparison.margin
    band = chart([{"low": 1 / (1 + margin), "high": 1 + margin}])
    band = band.mark_rect(opacity=0.18, color="#888")
    for metric in [name for name in METRICS if name in groups]:
        rows = groups[metric]
        verdicts = Counter(row.verdict for row in rows)
        changed = [v for v in (Verdict.SLOWER, Verdict.FASTER) if verdicts[v]]
        said = " and ".join(f"{verdicts[verdict]} {verdict}" for verdict in changed)
        cells = "; ".join(f"{row} {ratio_value(row)}, {row.verdict}" for row in rows)
        data = [(str(row), str(row.verdict), ratio_value(row)) for row in rows]
        title = f"{label(metric)}, new / base"
        yield Figure(
            f"ratios-{metric}",
            f"{label(metric)}: {said or 'no change found'} of {len(rows)}",
            f"{label(metric)}, new to base, with 95 % intervals; the band is the margin of "
            f"±{percent(margin)}: {cells}.",
            intervals(data, title, COLOURS, band.encode(x=ratios("low", title), x2="high:Q")),
        )


def intervals(
    rows: Sequence[tuple[str, str, Value]], title: str, colours: Mapping[str, str], behind: Any
) -> Any:
    """Return a chart with a row for each ratio and its interval, drawn as far as ten times that.

    Args:
        rows: The name of each, its verdict and the ratio.
        title: Of the axis of ratios.
        colours: Of each verdict.
        behind: A layer behind the rows.
    """
    data = [
        {
            "name": name,
            "ratio": ratio,
            "low": max(value.low or 0.0, ratio / 10),
            "high": min(value.high or math.inf, ratio * 10),
            "verdict": verdict,
            "said": str(value),
        }
        for name, verdict, value in rows
        if (ratio := value.number) is not None
    ]
    colour = altair.Color(
        "verdict:N",
        title=None,
        scale=altair.Scale(domain=list(map(str, colours)), range=list(colours.values())),
        legend=altair.Legend(orient="bottom"),
    )
    y = altair.Y("name:N", title=None, sort=None, axis=altair.Axis(labelLimit=260))
    base = chart(data).encode(y=y, color=colour, tooltip=["name:N", "said:N", "verdict:N"])
    whole = altair.layer(
        behind,
        base.mark_rule(strokeWidth=2).encode(x=ratios("low", title), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=ratios("ratio", title)),
    )
    return whole.properties(width="container", height=max(3, len(rows)) * ROW)


def ratios(name: str, title: str) -> Any:
    """Return the axis of ratios, in which a chart's layers agree."""
    scale = altair.Scale(type="log", nice=False, padding=12)
    return altair.X(f"{name}:Q", title=f"{title} (log scale)", scale=scale)
