"""A document in Markdown, for a pull request or a README.

What comes from outside stands in code spans or is escaped: there it is no Markdown, no HTML and no
mention of anybody.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from bench.report.table import Value, amount
from bench.report.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.table import Content, Document, Section, Table
    from bench.runfile import Result

MOST = 60_000
"""Characters; GitHub takes 65 536 in a comment."""
SIGNS = {"good": "✅ ", "bad": "❌ ", "open": "❔ "}
ACTIVE = re.compile(r"([\\`*~\[\]<>|&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""What would be Markdown or HTML; within a name, `_` is none."""
LINKED = re.compile(r"(@|#|:(?=//)|www(?=\.))")
SPACE = "\u200b"
"""Between what would otherwise be a mention, a link or the number of an issue."""


def markdown(document: Document, marker: str = "", most: float = MOST) -> str:
    """Return a document as a comment; where that is too long, without what is folded.

    Args:
        document: To render.
        marker: A first line, by which a later comment finds the one that it replaces.
        most: Characters; a file may have any number.
    """
    head = [marker] if marker else []
    if document.headline:
        head += [f"{SIGNS.get(document.status, '')}**{sentence(document.headline)}**", ""]
    head += [f"* warning: {sentence(text)}" for text in document.warnings]
    head += [""] if document.warnings else []
    about = " ".join(document.subtitle.split())
    fine_print = " ".join(map(sentence, [*([f"{about}."] if about else []), *document.fine_print]))
    tail = [f"<sub>{fine_print}</sub>"] if fine_print else []
    text = "\n".join([*head, *chain.from_iterable(map(rendered, document.sections)), *tail])
    if len(text) > most:
        small = [section for section in document.sections if not section.folded]
        left_out = "All rows are too many for a comment; `--format json` has them."
        text = "\n".join([*head, *chain.from_iterable(map(rendered, small)), left_out])
        if len(text) > most:  # whole lines, and nothing that would have to be closed
            text = text[: int(most)].rpartition("\n")[0]
    return text + "\n"


def rendered(section: Section) -> list[str]:
    """Return the lines of a section."""
    out = []
    for table in section.tables:
        lines = [*markdown_table(table), ""]
        if table.title and table.folded:
            lines = folded(table.title, lines)
        elif table.title:
            lines = [f"**{sentence(table.title)}**", "", *lines]
        out += lines
    if section.lines:
        out += [*(f"* {sentence(text)}" for text in section.lines), ""]
    return folded(section.title, out) if section.folded else out


def folded(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines that are read with a click on their title."""
    return [f"<details><summary>{sentence(title)}</summary>", "", *lines, "</details>", ""]


def markdown_table(table: Table) -> Iterator[str]:
    """Yield the lines of a table."""
    table = table.without_empty()
    titles = [sentence(column.title.replace("\n", " ")) for column in table.columns]
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join('--:' if column.number else '---' for column in table.columns)}|"
    for row in table.rows:
        yield f"| {' | '.join(map(cell, row.cells))} |"
    yield from (f"\n{sentence(note)}" for note in table.notes)


def cell(content: Content) -> str:
    """Return a cell; bold where it is a finding."""
    if not isinstance(content, Value):
        return sentence(content).replace("\n", " ")
    if content.strong or content.colour:
        return f"**{content}**"
    return f"{content.mark} {content}".strip()


def sentence(text: str) -> str:
    """Return a sentence that may hold names from outside; its code spans stay code."""
    parts = re.split(r"(`[^`]+`)", " ".join(printable(text).split()))
    # In a table, a bar would end the cell even within code.
    return "".join(p.replace("|", r"\|") if i % 2 else plain(p) for i, p in enumerate(parts))


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is, and that mentions nobody."""
    return LINKED.sub(rf"\1{SPACE}", ACTIVE.sub(r"\\\1", text))


def step(row: Result | None) -> str:
    """Return the step of a run's cell: its ratio to the baseline, and its median; or why not."""
    if row is None:
        return ""
    if row.failure is not None:
        return f"failed: {sentence(row.failure)}"
    found = row.measured("step")
    if found is None:
        return sentence(row.metrics["step"].missing) if "step" in row.metrics else ""
    median = amount(found.median, found.unit)
    if row.is_baseline or found.ratio is None:
        return f"1, {median}" if row.is_baseline else median
    return f"{cell(Value.of(found))}, {median}"
