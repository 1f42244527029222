"""A document in a terminal: fitted to its width, in ASCII where there is nothing else."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.table import Table, Value
from bench.report.wording import ascii_only, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from bench.report.table import Content, Document, Section

COLOURS = {"slower": "red", "faster": "green", "good": "green", "bad": "bold red", "open": "yellow"}
GAP = 2
"""Characters between columns."""


def printed(document: Document, *, details: bool = False) -> Iterator[RenderableType]:
    """Yield what is printed, in order; each part fits itself to the console.

    Args:
        document: To print.
        details: Whether folded parts and columns that a narrow terminal has no room for are too.
    """
    for line in document.subtitle.splitlines():
        yield paragraphs([line], indent=6)
    if document.headline:
        yield paragraphs([document.headline], style=COLOURS.get(document.status, ""))
        yield Text()
    for section in document.sections:
        if details or (section.needed and not section.folded):
            yield from printed_section(section, details=details)
    if document.warnings:
        yield paragraphs([f"warning: {text}" for text in document.warnings])
    if document.fine_print:
        yield paragraphs(document.fine_print)


def printed_section(section: Section, *, details: bool) -> Iterator[RenderableType]:
    """Yield a section: its tables, then its sentences, since these say what to make of them."""
    if section.folded or not section.needed:
        yield paragraphs([section.title], style="bold")
    for table in section.tables:
        if details or not table.folded:
            yield Fitted(lambda width, table=table: tables(table, width, details=details))  # type: ignore[misc]
    if section.lines:
        yield paragraphs(section.lines, COLOURS.get(section.status, ""))
        yield Text()


def paragraphs(texts: Sequence[str], style: str = "", indent: int = 2) -> RenderableType:
    """Return texts that fit the width, later lines of each indented."""

    def draw(width: int) -> Iterator[RenderableType]:
        for text in "\n".join(texts).split("\n"):
            clean = printable(text).replace("`", "")
            start = " " * (len(clean) - len(clean.lstrip(" ")) + indent)
            filled = textwrap.fill(clean, width, subsequent_indent=start, break_on_hyphens=False)
            yield Text(filled, style=style)  # no markup: what comes from outside stays what it is

    return Fitted(draw)


def tables(table: Table, width: int, *, details: bool) -> Iterator[RenderableType]:
    """Yield a table as one, or as several where its columns do not fit beside each other.

    Nothing is shortened or wrapped; what is not needed is left out, unless details are asked for.
    """
    table = table.without_empty()
    if not table.rows:
        return
    if table.title:
        yield Text(textwrap.fill(printable(table.title), width), style="bold")
    texts = [[drawn(content) for content in row.cells] for row in table.rows]
    widths = [
        max(*map(len, column.title.split("\n")), *(row[i].cell_len for row in texts)) + GAP
        for i, column in enumerate(table.columns)
    ]
    for number, chosen in enumerate(packed(table, widths, width, details=details)):
        yield from [Text()] if number else []
        yield laid_out(table, texts, [0, *chosen])
    yield from (paragraphs([note]) for note in table.notes)
    yield Text()


def packed(
    table: Table, widths: Sequence[int], width: int, *, details: bool
) -> Iterator[list[int]]:
    """Yield the columns of each table, beside the first one; the needed ones come first."""
    order = [i for i, c in enumerate(table.columns) if i and (c.needed or details)]
    order += [i for i, c in enumerate(table.columns) if i and not (c.needed or details)]
    chosen: list[int] = []
    room = width - widths[0]
    for i in order:
        fits = sum(widths[j] for j in chosen) + widths[i] - GAP <= room
        if chosen and not fits:
            if not (table.columns[i].needed or details):
                continue
            yield sorted(chosen)
            chosen = []
        chosen.append(i)
    yield sorted(chosen)


def laid_out(table: Table, texts: Sequence[Sequence[Text]], columns: Sequence[int]) -> RichTable:
    """Return some columns as a table."""
    out = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False
    )
    for i in columns:
        justify = "right" if table.columns[i].number else "left"
        out.add_column(
            Text(table.columns[i].title),
            no_wrap=True,
            vertical="bottom",
            justify=justify,  # type: ignore[arg-type]  # one of the literals
        )
    for row in texts:
        out.add_row(*(row[i] for i in columns))
    return out


def drawn(content: Content) -> Text:
    """Return a cell, in colour only if it is a finding."""
    if not isinstance(content, Value):
        return Text(printable(content).replace("`", ""))
    style = "bold red" if content.strong else COLOURS.get(content.colour, "")
    return Text(f"{content.mark or ' '} {content}", style=style)


@dataclass(frozen=True)
class Fitted:
    """A part that is laid out when the width is known; in ASCII where there is nothing else."""

    draw: Callable[[int], Iterator[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the segments of what fits into the console's width."""
        segments = console.render(Group(*self.draw(options.max_width)), options)
        if not options.ascii_only:
            yield from segments
            return
        for text, style, control in segments:
            yield Segment(ascii_only(text), style, control)
