"""What charts have in common: the figure, its colours, dashes and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair

from bench.cells import BASELINE, Cell
from bench.report import wording
from bench.report.palette import colours_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts


DASHES = ([1, 0], [8, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 4], [12, 3, 2, 3, 2, 3])
WIDTH, ROW = 640, 26
"""Of pictures, in pixels; and the height of a row of a chart."""
MOST_STYLES = 24
"""A chart with more rows than that cannot be read; the table has all of them."""
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


def shown(cells: Sequence[Facts]) -> list[Facts]:
    """Return the cells that a chart has room for: the baseline, and the pure styles first."""
    order = sorted(cells, key=lambda c: (not wording.is_baseline(c), not Cell.of(c).is_pure))
    kept = {id(cell) for cell in order[:MOST_STYLES]}
    return [cell for cell in cells if id(cell) in kept]


def coloured(cells: Sequence[Facts]) -> Any:
    """Return the colours of entrants: the same in all charts of a page."""
    entrants = list(dict.fromkeys(cell["entrant"] for cell in cells))
    colours = colours_of(entrants)
    return altair.Color(
        "entrant:N",
        title=None,
        scale=altair.Scale(domain=entrants, range=colours),
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


def chart(values: list[dict[str, Any]]) -> Any:
    """Return a chart over rows of data."""
    return altair.Chart(altair.Data(values=values))


def way(name: str, entrant: str) -> str:
    """Return the style in a name."""
    return name.removeprefix(entrant).strip() or BASELINE[1]


def names(cells: Sequence[Facts]) -> list[str]:
    """Return the names of cells in the order of the tables."""
    return list(dict.fromkeys(wording.name(cell) for cell in cells))


def row_axis(cells: Sequence[Facts]) -> Any:
    """Return the axis of a chart with a row for each style."""
    return altair.Y("style:N", title=None, sort=names(cells))


def few(items: Sequence[str], none: str) -> str:
    """Return some names in a sentence, and how many more there are."""
    return wording.few(items, NAMED) if items else none


def picture(figure: Figure) -> Any:
    """Return a chart as a picture has it: of a fixed width, with its title."""
    title = altair.TitleParams(figure.title, anchor="start", fontSize=13, limit=WIDTH + 180)
    whole = figure.chart.properties(width=WIDTH, title=title).configure(background="white")
    return whole.configure_axis(labelLimit=220).configure_legend(columns=6)
