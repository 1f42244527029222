"""The charts of a comparison's page: the intervals of each metric."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import altair

from bench.compare.comparison_document import called, ratio_value
from bench.metrics import METRICS, label
from bench.report.charts.drawn import ROW, Figure, chart
from bench.report.table import percent
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.comparison import Compared, Comparison

COLOURS = {
    Verdict.SLOWER: "#d1495b",
    Verdict.FASTER: "#2a9d62",
    Verdict.EQUIVALENT: "#5b7db1",
    Verdict.INCONCLUSIVE: "#999999",
}


def figures(comparison: Comparison) -> Iterator[Figure]:
    """Yield a chart for each metric."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in comparison.judged:
        if row.low is not None and row.high is not None:
            groups[row.metric].append(row)
    margin = comparison.margin
    for metric in [name for name in METRICS if name in groups]:
        rows = groups[metric]
        verdicts = Counter(row.verdict for row in rows)
        changed = [v for v in (Verdict.SLOWER, Verdict.FASTER) if verdicts[v]]
        said = " and ".join(f"{verdicts[verdict]} {verdict}" for verdict in changed)
        cells = "; ".join(f"{cell(row)} {ratio_value(row)}, {row.verdict}" for row in rows)
        yield Figure(
            f"ratios-{metric}",
            f"{label(metric)}: {said or 'no change found'} of {len(rows)}",
            f"{label(metric)}, new to base, with 95 % intervals; the band is the margin of "
            f"±{percent(margin)}: {cells}.",
            intervals(label(metric), rows, margin),
        )


def intervals(metric: str, rows: Sequence[Compared], margin: float) -> Any:
    """Return the chart of one metric: ratios with their intervals, the margin as a band."""
    data = [
        {
            "cell": cell(row),
            "ratio": row.ratio,
            "low": row.low,
            "high": row.high,
            "verdict": str(row.verdict),
            "said": str(ratio_value(row)),
        }
        for row in rows
    ]
    axis: dict[str, Any] = {
        "title": f"{metric}, new / base (log scale)",
        "scale": altair.Scale(type="log", nice=False, padding=12),
    }
    colour = altair.Color(
        "verdict:N",
        title=None,
        scale=altair.Scale(domain=list(map(str, COLOURS)), range=list(COLOURS.values())),
        legend=altair.Legend(orient="bottom"),
    )
    y = altair.Y("cell:N", title=None, sort=None, axis=altair.Axis(labelLimit=260))
    band = chart([{"low": 1 / (1 + margin), "high": 1 + margin}])
    base = chart(data).encode(y=y, color=colour, tooltip=["cell:N", "said:N", "verdict:N"])
    whole = altair.layer(
        band.mark_rect(opacity=0.18, color="#888").encode(x=altair.X("low:Q", **axis), x2="high:Q"),
        base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", **axis), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=altair.X("ratio:Q", **axis)),
    )
    return whole.properties(width="container", height=max(3, len(data)) * ROW)


def cell(row: Compared) -> str:
    """Return what a row of a chart is called."""
    return f"{called(row)} at {row.workload} on {row.backend}"
