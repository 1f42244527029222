"""What all pages are made of: one file that works offline, its style, its scripts, its charts."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.whole import Whole
from common.fetch import cache_folder
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from bench.report.charts.drawn import Figure
    from bench.report.table import Document
    from bench.report.wording import Facts

HERE = Path(__file__).parent


def filled(
    template: str, *, figures: Sequence[Figure], folders: Sequence[Path] = (), **values: Any
) -> str:
    """Return a page.

    Args:
        template: A file's name; it extends `shell.html.jinja`.
        figures: Its charts.
        folders: Where templates are, beside this one.
        values: What the template names; all of it is escaped unless it says otherwise.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE, *folders]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["coded"] = coded
    return environment.get_template(template).render(
        version=versions().get("jax-bakeoff", ""),
        css=(HERE / "page.css").read_text("utf-8"),
        figures=figures,
        vega=bundle() if figures else "",
        specs=embedded([specification(figure) for figure in figures]),
        **values,
    )


def document_page(document: Document) -> str:
    """Return a document as a page: nothing in it but its sentences, tables and charts."""
    return filled(
        "document.html.jinja",
        figures=[figure for section in document.sections for figure in section.figures],
        document=document,
        js=script("charts.js"),
        skip=("part-1", "To the first part"),
        title=document.title,
        subtitle=document.subtitle,
        sections=[(f"part-{i}", section.title) for i, section in enumerate(document.sections, 1)],
    )


def coded(text: str) -> Markup:
    """Return a text from anywhere as HTML; what stands between backticks is code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without another one
        return Markup(escape(text))
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
    """Return the scripts that draw charts, as one text: Vega, Vega-Lite and Vega-Embed.

    They are kept in the cache folder: to put them together takes longer than the rest of a page.
    """
    import vl_convert

    kept = cache_folder() / "scripts" / f"vega-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return kept.read_text("utf-8")
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    script = script.replace("</script", "<\\/script")
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        whole = Whole(kept)
        whole.partial.write_text(script, encoding="utf-8")
        whole.finish()
    return script


def specification(figure: Figure) -> Facts:
    """Return what Vega-Embed draws."""
    import altair

    chart = figure.chart.copy(deep=False)
    rows = altair.Undefined if chart.data is altair.Undefined else chart.data.values
    if isinstance(rows, list):  # plain JSON: altair would look at each of thousands of values
        chart.data = altair.Data(name="rows")
    made = chart.to_dict(validate=False)  # our own, and tests have looked at it
    if isinstance(rows, list):
        made["data"] = {"values": rows}
    made.pop("config", None)  # the page has its own, light or dark
    return dict(made)


def embedded(value: Any) -> str:
    """Return JSON that stays data inside of a page, whatever its strings hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
