"""The picture of the answer: a row for each library, a dot for each way to write its step.

`publish.py` draws it for README.md, and as the card that a link to the site shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import vl_convert

import impls
from bench.cells import BASELINE
from bench.report.charts import ADDED_TICKS, LINEAR_SECONDS, SECONDS_LABEL
from bench.report.table import Figure

if TYPE_CHECKING:
    from bench.report.summary import View

TITLE = "How you write the step matters more than the library"
AXIS = "time added to a call of plain JAX's step (logarithmic)"
ROW = 52
"""Height of a library's row in pixels: a line of names above its dots, and one below."""
NAME_OFFSET = 13
"""Pixels between a dot and the middle of its name."""
DOMAIN = -6e-6, 2e-3
"""Ends of the axis in seconds: room for names, and for the dearest style's name."""
CARD = 1200, 630
"""Size of a card in pixels, as Open Graph's readers show it whole."""
FRAME = {"left": 60, "right": 60, "top": 40, "bottom": 40}
"""Pixels around a card."""
INK = "#1b1f24"
LETTERS = 24
"""Height of a card's letters in pixels: readable where it is shown a third as large."""


def draw_styles(view: View) -> Figure:
    """Return the chart of what each style adds to a call, in a row of its library."""
    chart = make_chart(view, ROW, NAME_OFFSET, {})
    return Figure(TITLE, AXIS, chart)


def draw_card(view: View, answer: str) -> bytes:
    """Return the same chart as a picture in PNG, below its title and a sentence."""
    chart = make_chart(
        view, 1.35 * ROW, 1.6 * NAME_OFFSET, {"fontSize": 0.8 * LETTERS, "color": INK}
    )
    axis = {"labelFontSize": 0.8 * LETTERS, "titleFontSize": 0.8 * LETTERS, "labelLimit": 300}
    title = {
        "text": TITLE,
        "subtitle": answer.replace("`", ""),
        "anchor": "start",
        "fontSize": 1.6 * LETTERS,
        "subtitleFontSize": LETTERS,
        "offset": LETTERS,
    }
    config = {
        "background": "white",
        "font": "sans-serif",
        "padding": FRAME,
        "axis": axis | {"titleFontWeight": "normal", "gridColor": "#e4e7eb"},
        "view": {"stroke": "#d0d7de"},
    }
    width, height = CARD
    size = {"width": width, "height": height, "autosize": {"type": "fit", "contains": "padding"}}
    png: bytes = vl_convert.vegalite_to_png(chart | {"title": title, "config": config} | size)
    return png


def make_chart(view: View, row: float, offset: float, text: dict[str, Any]) -> dict[str, Any]:
    """Return the chart's specification: dots, with names above and below them in turns."""
    styles = (item for item in view.host_costs.items() if item[0].entrant != BASELINE.entrant)
    costs = sorted(styles, key=lambda item: item[1].value)
    libraries = list(dict.fromkeys(arm.entrant for arm, _ in reversed(costs)))
    seen = dict.fromkeys(libraries, 0)
    data = []
    for arm, cost in costs:
        seen[arm.entrant] += 1
        above = seen[arm.entrant] % 2 == 1
        point = {"library": arm.entrant, "style": arm.style, "value": cost.value, "above": above}
        data.append(point)
    colours = impls.colours(libraries)
    scale = {"type": "symlog", "constant": LINEAR_SECONDS, "nice": False, "domain": DOMAIN}
    axis = {"values": [LINEAR_SECONDS, *ADDED_TICKS], "labelExpr": SECONDS_LABEL}
    x = {"field": "value", "type": "quantitative", "title": AXIS, "scale": scale, "axis": axis}
    y = {"field": "library", "type": "nominal", "sort": libraries, "title": None}
    hues = {"domain": libraries, "range": [colours[name] for name in libraries]}
    hue = {"field": "library", "type": "nominal", "scale": hues, "legend": None}
    shared = {"x": x, "y": y, "color": hue}
    name = {"field": "style", "type": "nominal"}
    names = [
        {
            "transform": [{"filter": f"datum.above === {str(above).lower()}"}],
            "mark": {"type": "text", "dy": -offset if above else offset, "color": "currentColor"}
            | text,
            "encoding": {"x": x, "y": y, "text": name},
        }
        for above in (True, False)
    ]
    lines = {"mark": {"type": "line", "opacity": 0.35, "strokeWidth": 3}, "encoding": shared}
    dots = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
        "encoding": shared,
    }
    layers = [lines, dots, *names]
    return {"data": {"values": data}, "layer": layers, "height": row * len(libraries)}
