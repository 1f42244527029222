"""The two kinds of chart: intervals, and lines over x.

A chart is a specification of Vega-Lite, which vl-convert draws as SVG. Its title says what
the data show; its text says the same to somebody who cannot see it.
"""

from __future__ import annotations

import math
import re
import resource
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import impls
from bench.metrics import label
from bench.numbers import words
from bench.report.table import Figure
from bench.streams import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cells import Arm
    from bench.estimates import Estimate

WIDTH = 460
"""Width of a chart in pixels: drawn larger on a screen and smaller on a phone, its text can be read
on both."""
FONT_SIZE, LINE_SPACING = 12, 14
"""Height of a chart's letters, and the least distance of two lines of text, in the same pixels."""
ROW, HEIGHT = 20, 260
"""Height of a row of intervals, and of a chart of lines, in pixels."""
LEADER = 14
"""Length of the stroke from the start of a line to its name, in pixels."""
DRAWING_GIB = 72
"""Address space that a process needs to draw, in GiB: vl-convert's V8 reserves 64 of them."""
VERDICTS = {"slower": "#D55E00", "faster": "#009E73", "": "#888888"}
DASHES = ([1, 0], [8, 3], [2, 2], [8, 3, 2, 3], [12, 4], [4, 4], [1, 4], [12, 3, 2, 3, 2, 3])
DOT = 5
"""Diameter of a point in a chart of lines, in pixels."""
LEAST_SPAN, EDGE = 1.1, 0.03
"""Least factor from the bottom of a chart of lines to its top, so that noise is no hill, and the
part of it that is free beyond the points."""
LINEAR_SECONDS = 1e-5
"""Added seconds up to which the axis is linear: what a call is known to at best."""
ADDED_TICKS = [0, 1e-4, 1e-3, 1e-2, 1e-1]
"""Ticks of an axis of added time, in seconds; those beyond the data are not drawn."""
SECONDS_LABEL = "format(datum.value, '~s') + 's'"
"""A tick's text: 100µs, 1ms."""
CHANGE_LABEL = (
    "datum.value < 2 ? format(100 * (datum.value - 1), '+.3~r') + ' %' "
    ": format(datum.value, '~r') + ' times'"
)
"""A tick's text of a ratio: +20 %, 2 times."""
STYLE = (
    "<style>svg{color:#1b1f24}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style></svg>"
)
"""Colours of a chart's text: a picture does not inherit those of a page."""
TEXT = "currentColor"
"""Colour of a chart's text, which `STYLE` sets."""
PADDING = {"left": 40, "top": 12, "right": 12, "bottom": 12}
"""Pixels around a chart: a browser's letters may be wider than those that are measured here."""
LONG_NUMBER = re.compile(r"-?\d+\.\d\d+(?=[^<>]*>)")
"""Number of an SVG's tag with more digits than a screen shows."""
IDLE_ATTRIBUTE = re.compile(
    r' (?:class|role|aria-\w+|pointer-events)="[^"]*"| (?:opacity|stroke-width)="1"'
)
"""Attribute of an SVG that does not change how a picture looks, or whose value is the usual one."""


def draw_intervals(title: str, rows: Mapping[str, Estimate], *, band: float) -> Figure:
    """Return comparisons with their intervals, one in each row.

    Args:
        title: What the data show.
        rows: Label → ratio, or added time; all of one metric.
        band: Fraction on both sides of 1 within which differences are too small to detect; grey.
    """
    first = next(iter(rows.values()))
    name = _name_axis(first)
    data = [{"row": row, **_point(estimate)} for row, estimate in rows.items()]
    scale: dict[str, Any] = {"type": "log", "nice": False, "padding": 8}
    axis: dict[str, Any] = {"tickCount": 6, "labelExpr": CHANGE_LABEL}
    if first.form == "added":  # it may be negative: linear around 0, logarithmic beyond
        scale |= {"type": "symlog", "constant": LINEAR_SECONDS}
        axis = {"values": ADDED_TICKS, "labelExpr": SECONDS_LABEL}
    x = _channel("value", title=name, scale=scale, axis=axis)
    colours = {"domain": list(VERDICTS), "range": list(VERDICTS.values())}
    shared = {
        "y": _channel("row", "nominal", sort=None, title=None),
        "color": _channel("verdict", "nominal", legend=None, scale=colours),
    }
    layers = [
        *_band(band, "x"),
        _rules([first.no_difference], x),
        _layer(data, {"type": "rule", "strokeWidth": 3}, shared | _ends("x", x)),
        _layer(data, {"type": "point", "filled": True, "size": 50}, shared | {"x": x}),
    ]
    about = [f"{row} {words(e)}{f', {e.verdict}' if e.verdict else ''}" for row, e in rows.items()]
    grey = " Grey: differences too small to detect." if math.isfinite(band) else ""
    text = f"{name}, with 95 % intervals.{grey} {'; '.join(about)}."
    return Figure(title, text, {"layer": layers, "height": ROW * len(rows)})


def draw_lines(
    title: str,
    series: Mapping[Arm, Mapping[Any, Estimate]],
    x_title: str = "",
    *,
    band: float = math.inf,
    marks: Mapping[Any, str] = MappingProxyType({}),
) -> Figure:
    """Return a line for each arm, through ratios with their intervals, with its name at its start.

    There lines are apart: a history's all end at the newest stack. The axis ends at the outermost
    points; an interval that is longer is cut off there.

    Args:
        title: What the data show.
        series: Arm → place on the x axis → ratio, all of one metric. A place is a number (drawn in
            powers of two), or a day as in 2026-11-25.
        x_title: What a number on the x axis is.
        band: Fraction on both sides of 1 in which differences do not matter; drawn in grey.
        marks: Place on the x axis at which something changed → the release that did, or "".
    """
    points = [(arm, x, estimate) for arm, row in series.items() for x, estimate in row.items()]
    _, first_x, first = points[0]
    name = _name_axis(first)
    bottom, top = _find_domain([estimate.value for _, _, estimate in points])
    data = [{"arm": str(arm), "x": x, **_point(row, bottom, top)} for arm, x, row in points]
    # With one broken line of each arm for all intervals, and one for all dots, a page is half as
    # large as with a mark for each
    broken = {"type": "line", "invalid": "break-paths-filter-domains", "clip": True}
    dot = {"strokeWidth": DOT, "strokeCap": "round"}
    if isinstance(first_x, str):
        x = _channel("x", "temporal", axis={"format": "%b %Y", "tickCount": 4})
    else:
        powers = {"type": "log", "base": 2, "nice": False}
        x = _channel("x", scale=powers, axis={"values": sorted({x for _, x, _ in points})})
    x |= {"title": f"{name}{f', by {x_title}' * bool(x_title)}"}
    scale = {"type": "log", "nice": False, "domain": [bottom, top]}
    axis = {"tickCount": 6, "labelExpr": CHANGE_LABEL, "orient": "right"}
    y = _channel("value", title=None, scale=scale, axis=axis)
    hues, dashes = _distinguish(list(series))
    shared = {"x": x, "color": hues}
    in_order = shared | {"y": y, "order": _channel("order")}
    layers = [
        *_band(band, "y"),
        _rules(marks, x),
        *_name_marks(marks, x),
        *_name_lines(series, bottom, top, y, shared | {"strokeDash": dashes}),
        _layer(data, {"type": "line", "opacity": 0.7}, shared | {"y": y, "strokeDash": dashes}),
        _layer(_break(data, "low", "high"), broken | {"strokeWidth": 1, "opacity": 0.4}, in_order),
        _layer(_break(data, "value", "value"), broken | dot, in_order),
    ]
    last = "; ".join(f"{arm} {words(list(row.values())[-1])}" for arm, row in series.items())
    text = f"{name}, with 95 % intervals. At the right end: {last}."
    return Figure(title, text, {"layer": layers, "height": HEIGHT})


def _find_domain(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a chart's axis, a little beyond its points."""
    low, high = math.log(min(values)), math.log(max(values))
    beyond = max(EDGE * (high - low), (math.log(LEAST_SPAN) - (high - low)) / 2)
    return math.exp(low - beyond), math.exp(high + beyond)


def _name_lines(
    series: Mapping[Arm, Mapping[Any, Estimate]],
    bottom: float,
    top: float,
    y: dict[str, Any],
    line: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return the layers of the names left of lines, and of the strokes that lead to them.

    Names of lines that start near each other are moved apart.
    """
    span = math.log(top / bottom)
    starts = {str(arm): next(iter(row.values())).value for arm, row in series.items()}
    places = {name: HEIGHT * math.log(top / value) / span for name, value in starts.items()}
    below, last = {}, -math.inf
    for name in sorted(places, key=places.__getitem__):
        below[name] = last = max(places[name], last + LINE_SPACING)
    first = float(HEIGHT)
    for name in reversed(below):
        below[name] = first = min(below[name], first)
        first -= LINE_SPACING
    data = [
        {"arm": name, "start": starts[name], "name": top * math.exp(-span * place / HEIGHT)}
        for name, place in below.items()
    ]
    at_name = {"x": {"value": -LEADER}, "y": y | {"field": "name"}}
    stroke = line | at_name | {"x2": {"value": 0}, "y2": {"field": "start"}}
    text = {"type": "text", "align": "right", "dx": -2, "color": TEXT, "fontSize": FONT_SIZE}
    return [
        _layer(data, {"type": "rule"}, stroke),
        _layer(data, text, at_name | {"text": _channel("arm", "nominal")}),
    ]


def _name_marks(marks: Mapping[Any, str], x: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of the names above marks, each on a line of its own, drawn up to it.

    How wide the chart is, and so which names would touch, is known to Vega alone.
    """
    layers = []
    for line, place in enumerate(sorted(place for place, name in marks.items() if name)):
        height = -LINE_SPACING * (line + 0.5)
        data, at = [{"x": place, "name": marks[place]}], {"x": x, "y": {"value": height}}
        text = {"type": "text", "align": "left", "dx": 3, "color": TEXT, "fontSize": FONT_SIZE}
        rule = {"type": "rule", "color": "#888"}
        layers.append(_layer(data, rule, at | {"y2": {"value": 0}}))
        layers.append(_layer(data, text, at | {"text": _channel("name", "nominal")}))
    return layers


def can_draw() -> bool:
    """Tell whether `ulimit -v` leaves room for drawing: without it, vl-convert ends the process."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit == resource.RLIM_INFINITY or limit >= DRAWING_GIB << 30


def render_svg(figure: Figure) -> str:
    """Return a chart as SVG, in light or dark colours and without its title."""
    import vl_convert

    config = {
        "aria": False,  # the picture has a text of its own
        "padding": PADDING,
        "background": "transparent",
        "font": "sans-serif",
        "view": {"stroke": "#8884"},
        "axis": {
            "labelColor": TEXT,
            "titleColor": TEXT,
            "gridColor": "#8883",
            "domainColor": "#888",
            "tickColor": "#888",
            "titleFontWeight": "normal",
            "labelFontSize": FONT_SIZE,
            "titleFontSize": FONT_SIZE,
            "labelLimit": WIDTH // 2,
            "labelOverlap": True,
        },
    }
    fit = {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}, "config": config}
    drawn: str = vl_convert.vegalite_to_svg(_clean_texts(figure.chart) | fit).replace(
        "</svg>", STYLE
    )
    return LONG_NUMBER.sub(lambda number: f"{float(number[0]):.1f}", IDLE_ATTRIBUTE.sub("", drawn))


def _clean_texts(part: Any) -> Any:
    """Return a part of a specification with printable texts: others would end this process."""
    if isinstance(part, dict):
        return {name: _clean_texts(inner) for name, inner in part.items()}
    if isinstance(part, list):
        return [_clean_texts(inner) for inner in part]
    return one_line(part) if isinstance(part, str) else part


def _name_axis(row: Estimate) -> str:
    if row.form == "added":
        return f"added to a call of {row.against} (logarithmic)"
    return f"{label(row.metric)}, beside {row.against}"


def _point(
    estimate: Estimate, floor: float = -math.inf, ceiling: float = math.inf
) -> dict[str, Any]:
    """Return the data of an estimate; an unknown end is put at its value.

    Both ends are, if the chart ends on both sides before them: the line would look like a mark.
    """
    value = estimate.value
    low, high = (value if end is None else end for end in (estimate.low, estimate.high))
    if low < floor and high > ceiling:
        low = high = value
    verdict = estimate.verdict if estimate.verdict in VERDICTS else ""
    return {"value": value, "low": low, "high": high, "verdict": verdict}


def _break(data: Iterable[Mapping[str, Any]], first: str, last: str) -> list[dict[str, Any]]:
    """Return the data of a line from one value of each point to another, broken between points."""
    return [
        {"arm": point["arm"], "x": point["x"], "value": value, "order": 3 * number + part}
        for number, point in enumerate(data)
        for part, value in enumerate((point[first], point[last], None))
    ]


def _channel(field: str, kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    return {"field": field, "type": kind, **more}


def _distinguish(arms: Sequence[Arm]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the channels of lines: a colour for each library, a dash for each of its styles."""
    colours = impls.colours(arm.entrant for arm in arms)
    ranks = [[a for a in arms if a.entrant == arm.entrant].index(arm) for arm in arms]
    names = [*map(str, arms)]
    hues = {"domain": names, "range": [colours[arm.entrant] for arm in arms]}
    dashes = {"domain": names, "range": [DASHES[rank % len(DASHES)] for rank in ranks]}
    return (
        _channel("arm", "nominal", scale=hues, legend=None),
        _channel("arm", "nominal", scale=dashes, legend=None),
    )


def _ends(name: str, channel: dict[str, Any]) -> dict[str, Any]:
    """Return the channels of a line from the lower to the upper end of an interval."""
    return {name: channel | {"field": "low"}, f"{name}2": {"field": "high"}}


def _layer(data: list[dict[str, Any]], mark: dict[str, Any], encoding: Any) -> dict[str, Any]:
    return {"data": {"values": data}, "mark": mark, "encoding": encoding}


def _rules(places: Iterable[Any], x: dict[str, Any]) -> dict[str, Any]:
    """Return the layer of lines across a chart at places on its x axis."""
    mark = {"type": "rule", "color": "#888"}
    return _layer([{"place": place} for place in places], mark, {"x": x | {"field": "place"}})


def _band(fraction: float, name: str) -> list[dict[str, Any]]:
    """Return the layer of a grey band around 1."""
    if math.isinf(fraction):
        return []
    data = [{"low": 1 / (1 + fraction), "high": 1 + fraction}]
    mark = {"type": "rect", "color": "#8883", "clip": True}  # an axis of lines may end before it
    return [_layer(data, mark, _ends(name, _channel("low")))]
