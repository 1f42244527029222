"""Documents as one HTML file that works offline: tables, sentences and drawn charts.

Charts are pictures in the file, in the reader's light or dark colours. The only script sorts,
filters and computes tables; what it shows lives in the address.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bench import numbers
from bench.estimates import WIDEST_ANSWER
from bench.report import table
from bench.report.charts import can_draw, render_svg
from bench.wording import NO_BREAK, keep_units
from common.versions import versions

if TYPE_CHECKING:
    from markupsafe import Markup

    from bench.estimates import Estimate
    from bench.report.table import Content, Document, Figure

KEPT = f"\n{NO_BREAK}"
"""Characters of a page, beside the printable ones."""
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath stroke-width='3' d='M1 4h5M1 8h9M1 12h14' stroke='%230b5cad'/%3E%3C/svg%3E"
)
"""Picture of a page in a browser's tab: three bars."""
PLAIN = "/:=;,.()'!*+@$?~"
"""Characters that an address in an attribute holds as they are; spaces would end it."""


def page(*documents: Document) -> str:
    """Return documents as a page, one after the other; a click opens folded parts.

    Charts that cannot be drawn are told as text.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cells = (
        table.format_content,
        table.colour,
        table.colour_text,
        number,
        shade,
        sort_key,
        limit_attributes,
    )
    filters = *cells, mark_code, picture
    environment.filters |= {function.__name__: function for function in filters}
    text = environment.get_template("page.html.jinja").render(
        documents=documents,
        has_pictures=can_draw(),
        anchor=Anchors().make_id,
        version=versions().get("jax-bakeoff", ""),
        widest=WIDEST_ANSWER,
        sizes=[f"from {words}" for words in name_sizes()],
        icon=ICON,
        finding=name_finding(documents[0]),
        unknown=numbers.UNKNOWN,
    )
    return keep_printable(text)


def name_finding(document: Document) -> str:
    """Return what a page found, as its title: the first sentence, or what the document is."""
    first = re.split(r"(?<=\.) ", document.headline, maxsplit=1)[0]
    return first.replace("`", "").removesuffix(".") or document.title


def name_sizes() -> list[str]:
    """Return the differences from which a cell has a shade, the smallest first."""
    ratios = [f"{numbers.percent(ratio - 1)}" for ratio in table.SIZES["ratio"]]
    added = [numbers.signed_amount(seconds, "s")[1:] for seconds in table.SIZES["added"]]
    return [f"{ratio} or {time}" for ratio, time in zip(ratios, added, strict=True)]


def keep_printable(text: str) -> str:
    """Return a text without control characters, whatever it was made of; line breaks stay.

    It is the last step before a page leaves: no name, version or warning can pass by it.
    """
    return "".join(c if c.isprintable() or c in KEPT else " " for c in text)


class Anchors:
    """Names of a page's parts, by which links lead to them; each is given once."""

    def __init__(self) -> None:
        self.uses: Counter[str] = Counter()
        """Name → how many parts have asked for it."""

    def make_id(self, *words: str) -> str:
        """Return a name made of words from anywhere, with a number if it is taken."""
        text = " ".join(words).lower().replace("'", "")  # as GitHub names the headings of Markdown
        plain = re.sub(r"[^a-z0-9_]+", "-", text).strip("-") or "part"
        self.uses[plain] += 1
        return plain if self.uses[plain] == 1 else f"{plain}--{self.uses[plain]}"


def shade(content: Content) -> str:
    """Return the class of a cell's background, by how much it costs; empty if it has none."""
    if isinstance(content, str) or not content.verdict or not content.differs:
        return ""
    size = table.measure_size(content)
    return f"size-{size}" if size and content.value > content.no_difference else ""


def mark_code(text: str) -> Markup:
    """Return a text from anywhere as HTML: between backticks it is code.

    Code that begins with a sign is a line that goes or comes. Elsewhere, lines break after a slash,
    but not within a day or before a unit.
    """
    from markupsafe import Markup, escape

    def place_breaks(escaped: str) -> str:
        words = keep_units(escaped).replace("/", "/<wbr>")
        return re.sub(r"\b\d{4}-\d\d-\d\d\b", r"<time>\g<0></time>", words)

    looks = {"- ": ' class="slower"', "+ ": ' class="faster"'}
    marked = (
        f"<code{looks.get(part[:2], '')}>{part}</code>" if i % 2 else place_breaks(part)
        for i, part in enumerate(re.split(r"`([^`]*)`", str(escape(text))))
    )
    return Markup("".join(marked))  # noqa: S704 -- the text was escaped before


def number(content: Estimate) -> Markup:
    """Return a number in a table, which may be broken before its interval."""
    from markupsafe import Markup

    text = f"{table.mark(content)} {numbers.words(content)}".strip()
    value, bracket, interval = text.partition(" (")
    span = Markup(" <span>({}</span>").format(interval) if bracket else ""
    return Markup("{}{}").format(value.replace(" ", NO_BREAK), span)


def sort_key(content: Content, form: str) -> float | None:
    """Return the number by which a cell is sorted in a column of a form; None for a text.

    A baseline's own time counts as 1 in a column of ratios, and as 0 in one of added times.
    """
    if isinstance(content, str):
        return 0.0 if content == "=" else None
    if content.is_unknown:
        return None
    if content.form != form or content.proven_bound is not None:
        return 1.0 if form == "ratio" else 0.0
    return content.value


def limit_attributes(content: Content, form: str) -> str:
    """Return the attributes with the ends of a comparison, from which a page makes others.

    The baseline's own interval is a point.
    """
    from markupsafe import Markup

    if isinstance(content, str) or form == "amount" or content.is_unknown:
        return ""
    low, high = content.limits
    if content.form == "amount":
        low = high = sort_key(content, form)
    if low is None or high is None:
        return ""
    form = ' data-added="yes"' if content.form == "added" else ""
    return Markup(f' data-low="{low:.6g}" data-high="{high:.6g}"{form}')  # noqa: S704 -- numbers


def picture(figure: Figure) -> Markup:
    """Return a chart as the address of a picture, with its data."""
    from markupsafe import Markup

    # With other quotes and few escapes, it is a fifth shorter than in base 64
    address = quote(render_svg(figure).replace('"', "'"), safe=PLAIN)
    return Markup(f"data:image/svg+xml,{address}")  # noqa: S704 -- it has no mark of HTML left
