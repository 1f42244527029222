"""Documents on a terminal, fitted to its width."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.table import colour, colour_text, format_content, mark
from bench.streams import SIMPLER
from bench.wording import NO_BREAK, keep_units, make_printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from bench.report.table import Column, Content, Document, Row, Section, Table

COLOURS = {"slower": "red", "faster": "green", "good": "green", "bad": "bold red", "open": "yellow"}
LEAST_WIDTH = 20
"""Minimum width in characters: `COLUMNS` may be 0."""
GAP = 2
"""Characters between columns."""


def show(document: Document, console: Console, *, details: bool = False) -> None:
    """Print a document, fitted to the console; with `details`, its folded parts and all columns."""
    console.width = max(console.width, LEAST_WIDTH)  # `COLUMNS` may be anything
    terminal = _Terminal(console, details)
    terminal.print_lines(document.subtitle.splitlines(), indent=6)
    if document.headline:
        terminal.print_lines([document.headline], COLOURS.get(document.status, ""))
        terminal.leave_gap()
    for section in document.sections:
        if details or not (section.folded or section.for_page):
            terminal.print_section(section)
    if details:
        terminal.leave_gap()
    terminal.print_lines([f"warning: {text}" for text in document.warnings])
    terminal.print_lines(document.fine_print)


@dataclass
class _Terminal:
    console: Console
    details: bool
    has_gap: bool = True
    """Whether nothing, or an empty line, was printed last."""

    def clean_text(self, text: str) -> str:
        """Return a text from anywhere as this terminal can show it."""
        text, encoding = make_printable(text).replace("`", ""), self.console.encoding
        return text.encode(encoding, SIMPLER).decode(encoding)

    def print_lines(self, texts: Iterable[str], style: str = "", indent: int = 2) -> None:
        """Print texts that fit the width, later lines of each indented."""
        for line in (line for text in texts for line in text.split("\n")):
            clean = self.clean_text(line)
            start = " " * (len(clean) - len(clean.lstrip(" ")) + indent)
            filled = textwrap.fill(
                keep_units(clean),
                self.console.width,
                subsequent_indent=start,
                break_on_hyphens=False,
            ).replace(NO_BREAK, " ")
            self.console.print(Text(filled, style=style))  # as text, markup has no effect
            self.has_gap = not filled

    def leave_gap(self) -> None:
        """Print an empty line, unless there is one."""
        if not self.has_gap:
            self.print_lines([""])

    def print_section(self, section: Section) -> None:
        """Print a section: its tables, then its sentences, which interpret them.

        An empty line comes before its title and around each table, but not before its sentences.
        """
        tables = [table for table in section.tables if table.rows]
        titles = [section.title] if section.folded or section.for_page else []
        if tables or (titles and section.lines):
            self.leave_gap()
            self.print_lines(titles, "bold")
        for number, table in enumerate(tables):
            self.print_lines([""] if number else [])
            self.print_table(table.drop_empty_columns())
        if tables and not section.lines:
            self.leave_gap()
        self.print_lines(section.lines, COLOURS.get(section.status, ""))

    def print_table(self, table: Table) -> None:
        """Print a table as one, or as several where its columns do not fit beside each other.

        No cell is shortened; one is wrapped only if its column may be, or if two are too wide.
        Without details, columns that are not needed are left out where they do not fit.
        """
        if table.title:
            self.print_lines([table.title], "bold", indent=0)
        texts = [
            [self.make_text(*pair, row) for pair in zip(row.cells, table.columns, strict=True)]
            for row in table.rows
        ]
        titles = [self.clean_text(column.title) for column in table.columns]
        whole = [
            max(*map(len, title.split("\n")), *(row[i].cell_len for row in texts)) + GAP
            for i, title in enumerate(titles)
        ]
        least = [
            max(
                len(part)
                for row, cells in zip(table.rows, texts, strict=True)
                for part in (title, *split_cell(row.cells[i], cells[i]))
            )
            + GAP
            if table.columns[i].wraps
            else whole[i]
            for i, title in enumerate(titles)
        ]
        for number, chosen in enumerate(self.pack_columns(table, least)):
            widths = shrink_widths({i: (least[i], whole[i]) for i in chosen}, self.console.width)
            self.print_lines([""] if number else [])
            shown = RichTable(
                box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False
            )
            fits = sum(widths.values()) - GAP <= self.console.width
            broken = [i for i in chosen if fits and widths[i] < whole[i]]
            shown.leading = int(0 in broken)  # else, each row begins with its name
            for i in chosen:
                shown.add_column(
                    Text(titles[i]),
                    no_wrap=fits,
                    overflow="fold",
                    vertical="top" if broken else "bottom",
                    justify="right" if table.columns[i].number else "left",
                )
            for row in texts:
                shown.add_row(*(break_lines(row[i], widths[i] - GAP) for i in chosen))
            self.console.print(shown)
        self.has_gap = False
        self.print_lines(table.notes)

    def make_text(self, content: Content, column: Column, row: Row) -> Text:
        """Return a cell; a large difference has a colour, a number without a mark is indented."""
        text = format_content(content)
        if not isinstance(content, str) and not column.number:
            text = f"{mark(content) or ' '} {text}"
        name = colour(content) or colour_text(column, row)
        return Text(self.clean_text(text), style=COLOURS.get(name, ""))

    def pack_columns(self, table: Table, widths: Sequence[int]) -> list[list[int]]:
        """Return each table's columns: the first column in all, needed ones before others."""
        needed = [i for i, c in enumerate(table.columns) if i and (c.needed or self.details)]
        tables: list[list[int]] = [[0]]
        for i in [*needed, *(i for i in range(1, len(widths)) if i not in needed)]:
            used = sum(widths[j] for j in tables[-1])
            if len(tables[-1]) == 1 or used + widths[i] - GAP <= self.console.width:
                tables[-1].append(i)
            elif i in needed:
                tables.append([0, i])
        return [sorted(chosen) for chosen in tables]


def shrink_widths(bounds: Mapping[int, tuple[int, int]], most: int) -> dict[int, int]:
    """Return the width of each column, between its least and its whole one, that fit together.

    The column that would have the fewest lines becomes narrower; of several, the widest.
    """
    widths = {i: whole for i, (_, whole) in bounds.items()}
    while sum(widths.values()) - GAP > most:
        able = [i for i, (least, _) in bounds.items() if widths[i] > least]
        if not able:
            break
        widths[min(able, key=lambda i: (bounds[i][1] // (widths[i] - 1), -widths[i]))] -= 1
    return widths


def split_cell(content: Content, text: Text) -> list[str]:
    """Return the parts of a cell between which a line may end: a number stands in one."""
    return text.plain.split() if isinstance(content, str) else [text.plain]


def break_lines(text: Text, width: int) -> Text:
    """Return a cell in lines of this width, with each number beside its unit."""
    if text.cell_len <= width:
        return text
    lines = textwrap.fill(keep_units(text.plain), width, break_on_hyphens=False)
    return Text(lines.replace(NO_BREAK, " "), style=text.style)
