"""What charts have in common: the figure, its colours, dashes and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair

from bench.cells import BASELINE
from bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6BB1",
    "#7F7F7F",
    "#882255",
    "#44AA99",
    "#999933",
    "#332288",
    "#CC6677",
    "#88CCEE",
    "#117733",
)
"""After Okabe and Ito, then Paul Tol; the first are told apart by the colour-blind too."""

OWN = (
    *("pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku"),
    *("keras", "numpy", "penzai", "stax", "torch", "trax"),
    *("blox", "brainstate", "haliax", "inox"),
)
"""Entrants that have the first colours, whatever else a chart shows."""
DASHES = ([1, 0], [8, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 4], [12, 3, 2, 3, 2, 3])
WIDTH, ROW = 640, 26
"""Of pictures, in pixels; and the height of a row of a chart."""
MOST_STYLES = 24
"""A chart with more lines than that cannot be read; the table has all of them."""
NAMED = 3
LONG = 1400
"""Of a legend's symbols, in square pixels: long enough for a dash to be seen."""


@dataclass(frozen=True)
class Figure:
    """A chart, with what it shows in words."""

    name: str
    """Of its file, and of its place in the page."""
    title: str
    """What it found."""
    text: str
    """What somebody who cannot see it needs to know."""
    chart: Any
    """An altair chart as wide as what it is in."""


def chart(values: list[dict[str, Any]]) -> Any:
    """Return a chart over rows of data."""
    return altair.Chart(altair.Data(values=values))


def colours_of(entrants: Sequence[str]) -> list[str]:
    """Return a colour for each entrant: the project's own have the same in every chart."""
    others = [entrant for entrant in entrants if entrant not in OWN]
    order = [*OWN, *others]
    return [PALETTE[order.index(entrant) % len(PALETTE)] for entrant in entrants]


def coloured(entrants: Iterable[str]) -> Any:
    """Return the colours of entrants: the same in all charts of a page."""
    names = list(dict.fromkeys(entrants))
    return altair.Color(
        "entrant:N",
        title=None,
        scale=altair.Scale(domain=names, range=colours_of(names)),
        legend=altair.Legend(orient="bottom", symbolLimit=60, symbolOpacity=1),
    )


def dashed(rows: Sequence[dict[str, Any]]) -> Any:
    """Return how lines of one entrant differ: by how the step is written, `pure` being solid."""
    ways = sorted({row["way"] for row in rows}, key=lambda way: (way != BASELINE[1], way))
    dashes = [DASHES[i % len(DASHES)] for i in range(len(ways))]
    scale = altair.Scale(domain=ways, range=dashes)
    return altair.StrokeDash(
        "way:N", title=None, scale=scale, legend=altair.Legend(orient="bottom", symbolSize=LONG)
    )


def lines(base: Any, y: Any, detail: str, dash: Any) -> list[Any]:
    """Return the layers of lines through points with intervals, `low` to `high`."""
    return [
        base.mark_line(opacity=0.7).encode(y=y, detail=detail, strokeDash=dash),
        base.mark_rule().encode(y=altair.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, opacity=1).encode(y=y),
    ]


def few(items: Sequence[str], none: str) -> str:
    """Return some names in a sentence, and how many more there are."""
    return wording.few(items, NAMED) if items else none


def picture(figure: Figure) -> Any:
    """Return a chart as a picture has it: of a fixed width, with its title."""
    title = altair.TitleParams(figure.title, anchor="start", fontSize=13, limit=WIDTH + 180)
    whole = figure.chart.properties(width=WIDTH, title=title).configure(background="white")
    return whole.configure_axis(labelLimit=220).configure_legend(columns=6)
