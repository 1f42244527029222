"""The chart of loss curves: for each initialiser the median over seeds, and the middle half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair
import numpy as np

from bench.initialisers import summary
from bench.initialisers.losses import name
from bench.report.charts.figure import DASHES, Figure, chart, coloured
from bench.report.table import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.initialisers.losses import Measurement, Start

HEIGHT = 320
OWN = "the library's own"
QUARTILES = (0.25, 0.5, 0.75)
MOST_POINTS = 200
"""Of a curve; of more epochs, some are picked evenly."""


def figure(measurement: Measurement) -> Figure:
    """Return the chart of all starts but a library's own that is like one before."""
    starts = [start for start in measurement.starts if start.initialiser or not start.like]
    rows = [row for start in starts for row in points(start, measurement.settings.epochs)]
    last = {name(s): float(np.median(ends(s, measurement))) for s in starts}
    low, high = (pick(last, key=last.__getitem__) for pick in (min, max))
    text = measurement.settings.text
    title = f"{text.name}: the median of {low} ends at {amount(last[low], 'nats')}"
    if high != low:
        title += f", that of {high} at {amount(last[high], 'nats')} nats per character"
    ways = list(dict.fromkeys(row["way"] for row in rows))
    dash = altair.StrokeDash(
        "way:N",
        title=None,
        scale=altair.Scale(domain=ways, range=list(DASHES[: len(ways)])),
        legend=altair.Legend(orient="bottom", symbolSize=1400),
    )
    base = chart(rows).encode(
        x=altair.X("epoch:Q", title="epoch", axis=altair.Axis(tickMinStep=1)),
        color=coloured(row["entrant"] for row in rows),
        detail="start:N",
    )
    axis = altair.Y(
        "median:Q", title="mean loss, nats per character", scale=altair.Scale(zero=False)
    )
    band = base.mark_area(opacity=0.15).encode(y=altair.Y("low:Q"), y2="high:Q")
    whole: Any = altair.layer(band, base.mark_line(opacity=0.9).encode(y=axis, strokeDash=dash))
    seen = "; ".join(f"{each} ends at {amount(end, 'nats')}" for each, end in last.items())
    return Figure(
        f"losses-{text.name}",
        title,
        f"Loss by epoch, median over seeds, with the middle half of the seeds. {seen}.",
        whole.properties(width="container", height=HEIGHT),
    )


def ends(start: Start, measurement: Measurement) -> np.ndarray:
    """Return the final loss of each seed."""
    return summary.final(summary.table(start, measurement.settings.epochs))


def points(start: Start, epochs: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a start: quartiles over seeds, by epoch."""
    losses = summary.table(start, epochs)
    low, middle, high = np.quantile(losses, QUARTILES, axis=0)
    shown = np.unique(np.linspace(0, epochs - 1, min(epochs, MOST_POINTS)).round().astype(int))
    for epoch in shown.tolist():
        if np.isfinite(high[epoch]):
            yield {
                "start": start.name,
                "entrant": start.entrant,
                "way": start.initialiser or OWN,
                "epoch": epoch,
                "low": round(float(low[epoch]), 4),
                "median": round(float(middle[epoch]), 4),
                "high": round(float(high[epoch]), 4),
            }
