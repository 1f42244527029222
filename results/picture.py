"""The picture of the answer: a row for each library, a dot for each way to write its step.

`publish.py` draws it for README.md, and as the card that a link to the site shows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import vl_convert

import impls
from bench.cells import BASELINE, PURE
from bench.estimates import group_by_key
from bench.numbers import amount
from bench.report.charts import ADDED_TICKS, LINEAR_SECONDS, SECONDS_LABEL
from bench.report.summary import name_arm
from bench.report.table import Figure, measure_size
from bench.wording import sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cells import Arm
    from bench.estimates import Estimate
    from bench.report.summary import View

MATTERS = "How you write the step matters more than the library"
"""Title where some style of a library certainly adds more than any library's `pure` style."""
ROW = 52
"""Height of a library's row in pixels: a line of names above its dots, and one below."""
NAME_OFFSET = 13
"""Pixels between a dot and the middle of its name."""
DOMAIN = -6e-6, 5e-3
"""Ends of the axis in seconds: room for names, and for the dearest style's name."""
LONGEST_NAME = 30
"""Most letters of a style's name beside its dot; else its identifier stands there."""
CARD = 1200, 630
"""Size of a card in pixels, as Open Graph's readers show it whole."""
FRAME = {"left": 60, "right": 60, "top": 40, "bottom": 40}
"""Pixels around a card."""
INK = "#1b1f24"
LETTERS = 24
"""Height of a card's letters in pixels: readable where it is shown a third as large."""


def find_title(view: View) -> str:
    """Return what the picture shows: the finding, where the times say so."""
    costs = view.host_costs.items()
    highs = [row.limits[1] for arm, row in costs if arm.style == PURE]
    lows = [row.limits[0] or 0.0 for arm, row in costs if arm.style != PURE]
    most = max((math.inf if high is None else high for high in highs), default=math.inf)
    if max(lows, default=0.0) > most:
        return MATTERS
    return "What each style adds to a call"


def describe_axis(view: View) -> str:
    """Return what the axis shows."""
    return f"time added to a call of plain JAX, at {view.place_words(view.call_workload)}"


def describe_styles(view: View) -> str:
    """Return the picture in words: least and most that styles add, of libraries with several."""
    ranges = [
        f"{entrant} {amount(costs[0].value, 's')} to {amount(costs[-1].value, 's')}"
        for entrant, costs in group_by_key(list_costs(view)).items()
        if len(costs) > 1 and measure_size(costs[-1])
    ]
    return f"{sentence(describe_axis(view))[:-1]}: {', '.join(ranges)}"


def list_costs(view: View) -> Iterator[tuple[str, Estimate]]:
    """Yield libraries, each with what one of its styles adds to a call, from least to most."""
    for arm, cost in sorted(view.host_costs.items(), key=lambda item: item[1].value):
        if arm.entrant != BASELINE.entrant:
            yield arm.entrant, cost


def draw_styles(view: View) -> Figure:
    """Return the chart of what each style adds to a call, in a row of its library."""
    return Figure(find_title(view), describe_axis(view), make_chart(view, ROW, NAME_OFFSET, {}))


def draw_card(view: View, answer: str, origin: str) -> bytes:
    """Return the same chart as a picture in PNG, below its title, a sentence and its origin."""
    chart = make_chart(
        view, 1.35 * ROW, 1.6 * NAME_OFFSET, {"fontSize": 0.8 * LETTERS, "color": INK}
    )
    axis = {"labelFontSize": 0.8 * LETTERS, "titleFontSize": 0.8 * LETTERS, "labelLimit": 300}
    title = {
        "text": find_title(view),
        "subtitle": [answer.replace("`", ""), origin],
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
    seen, dearest = dict.fromkeys(libraries, 0), {arm.entrant: cost for arm, cost in costs}
    data = []
    for arm, cost in costs:
        seen[arm.entrant] += 1
        above = seen[arm.entrant] % 2 == 1
        name = name_style(arm)
        if cost is dearest[arm.entrant] and measure_size(cost):
            name += f": {amount(cost.value, 's')}"
        point = {"library": arm.entrant, "style": name, "value": cost.value, "above": above}
        data.append(point)
    colours = impls.colours(libraries)
    scale = {"type": "symlog", "constant": LINEAR_SECONDS, "nice": False, "domain": DOMAIN}
    axis = {"values": [LINEAR_SECONDS, *ADDED_TICKS], "labelExpr": SECONDS_LABEL}
    x = {"field": "value", "type": "quantitative", "scale": scale, "axis": axis}
    x["title"] = f"{describe_axis(view)} (logarithmic)"
    y = {"field": "library", "type": "nominal", "sort": libraries, "title": None}
    hues = {"domain": libraries, "range": [colours[name] for name in libraries]}
    hue = {"field": "library", "type": "nominal", "scale": hues, "legend": None}
    shared = {"x": x, "y": y, "color": hue}
    text_of_dot = {"field": "style", "type": "nominal"}
    names = [
        {
            "transform": [{"filter": f"datum.above === {str(above).lower()}"}],
            "mark": {"type": "text", "dy": -offset if above else offset, "color": "currentColor"}
            | text,
            "encoding": {"x": x, "y": y, "text": text_of_dot},
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


def name_style(arm: Arm) -> str:
    """Return a style's name beside its dot: as sentences name it, if that is short text."""
    name = name_arm(arm).removeprefix("a ").removesuffix("'s step")
    return arm.style if "`" in name or "/" in name or len(name) > LONGEST_NAME else name
