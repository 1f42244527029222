"""A document in Markdown, for a pull request or a README.

Text from outside stands in code spans or is escaped, so that it never acts as Markdown, as HTML or
as a mention of somebody.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from bench import wording
from bench.report.table import Content, Document, Section, Table, format_content, mark

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 60_000
"""Most characters of a comment: GitHub accepts 65 536."""
SIGNS = {"good": "✅ ", "bad": "❌ ", "open": "❔ "}
ACTIVE_CHARACTERS = re.compile(r"([\\`*~\[\]<>|&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""Characters that act as Markdown or HTML; `_` inside a name does not."""
LINK_STARTS = re.compile(r"(@|#|:(?=//)|www(?=\.))")
"""Beginnings of a mention, a link or an issue's number, unless a space follows."""
ZERO_WIDTH_SPACE = "\u200b"


def markdown(document: Document) -> str:
    """Return a document as a comment; one that is too long, without its folded parts."""
    head = [document.marker] if document.marker else []
    if document.headline:
        head += [f"{SIGNS.get(document.status, '')}**{escape_text(document.headline)}**", ""]
    about = " ".join(document.subtitle.split())
    head += [f"<sub>{escape_text(about)}.</sub>", ""] if about else []
    head += [f"* warning: {escape_text(text)}" for text in document.warnings]
    head += [""] if document.warnings else []
    fine_print = " ".join(map(escape_text, document.fine_print))
    tail = [f"<sub>{fine_print}</sub>"] if fine_print else []
    text = "\n".join([*head, *chain.from_iterable(map(render_section, document.sections)), *tail])
    if len(text) > LONGEST:
        short = [section for section in document.sections if not section.folded]
        left_out = "The folded parts are too long for a comment; `--format html` has them."
        text = "\n".join([*head, *chain.from_iterable(map(render_section, short)), left_out])
    return text + "\n"


def render_section(section: Section) -> list[str]:
    """Return the lines of a section; without its charts."""
    lines = []
    for table in section.tables:
        lines += [f"**{escape_text(table.title)}**", ""] if table.title else []
        lines += [*table_lines(table), ""]
    if section.for_page and section.lines:
        lines += [f"**{escape_text(section.title)}**", ""]
    if section.lines:
        texts = ("<br>".join(map(escape_text, text.split("\n"))) for text in section.lines)
        lines += [*(f"* {text}" for text in texts), ""]
    if section.folded and lines:
        summary = f"<details><summary>{escape_text(section.title)}</summary>"
        return [summary, "", *lines, "</details>", ""]
    return lines


def table_lines(table: Table) -> Iterator[str]:
    """Yield the lines of a table, and its notes."""
    table = table.drop_empty_columns()
    titles = [escape_text(column.title) for column in table.columns]
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('--:' if column.number else '---' for column in table.columns)}|"
    for row in table.rows:
        yield f"| {' | '.join(map(_render_content, row.cells))} |"
    yield from (f"\n{escape_text(note)}" for note in table.notes)


def escape_text(text: str) -> str:
    """Return a text as one line of Markdown, escaped but for its code spans."""
    parts = re.split(r"(`[^`]+`)", wording.make_printable(text).replace("\n", " ").strip())
    # In a table, a bar would end the cell even within code.
    return "".join(
        p.replace("|", r"\|") if i % 2 else _escape_plain(re.sub(r" +", " ", p))
        for i, p in enumerate(parts)
    )


def _escape_plain(text: str) -> str:
    return LINK_STARTS.sub(rf"\1{ZERO_WIDTH_SPACE}", ACTIVE_CHARACTERS.sub(r"\\\1", text))


def _render_content(content: Content) -> str:
    if isinstance(content, str):
        return escape_text(content)
    return f"{mark(content)} {format_content(content)}".strip()
