"""What all pages are made of: one file that works offline, its style, its scripts, its charts."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.versions import versions

if TYPE_CHECKING:
    from markupsafe import Markup

    from bench.report.charts.figure import Figure
    from bench.report.table import Document

HERE = Path(__file__).parent


def document_page(document: Document, template: str = "document.html.jinja", **values: Any) -> str:
    """Return a document as a page: its sentences, tables and charts.

    Args:
        document: To render; what is folded is read with a click.
        template: One that extends the document's. All that it shows is escaped unless it says
            otherwise.
        values: What that template names, or other scripts than those that draw charts.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["coded"] = coded
    figures = [figure for section in document.sections for figure in section.figures]
    parts = [(f"part-{i}", section) for i, section in enumerate(document.sections, 1)]
    defaults: dict[str, Any] = {"js": script("charts.js"), "skip": ("part-1", "To the first part")}
    return environment.get_template(template).render(
        document=document,
        sections=[(name, section.title) for name, section in parts if not section.folded],
        version=versions().get("jax-bakeoff", ""),
        css=(HERE / "page.css").read_text("utf-8"),
        figures=figures,
        vega=bundle() if figures else "",
        specs=embedded([specification(figure) for figure in figures]),
        **defaults | values,
    )


def coded(text: str) -> Markup:
    """Return a text from anywhere as HTML; what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without another one
        return escape(text)
    return Markup().join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )


def script(*names: str) -> str:
    """Return one script of several files, whose names do not leave it."""
    bodies = [(HERE / name).read_text("utf-8") for name in names]
    return '"use strict";\n(() => {\n' + "\n".join(bodies) + "})();\n"


@cache
def bundle() -> str:
    """Return the scripts that draw charts, compressed and in base64: Vega, Lite and Embed."""
    import vl_convert

    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return base64.b64encode(gzip.compress(code.encode(), mtime=0)).decode()


def specification(figure: Figure) -> dict[str, Any]:
    """Return what Vega-Embed draws."""
    made = figure.chart.to_dict(validate=False)  # our own, and tests have looked at it
    made.pop("config", None)  # the page has its own, light or dark
    return dict(made)


def embedded(value: Any) -> str:
    """Return JSON that stays data inside of a page, whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
