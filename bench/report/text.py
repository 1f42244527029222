"""A document in a terminal: fitted to its width, in ASCII where there is nothing else."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.table import Table, Value
from bench.report.wording import ascii_only, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from bench.report.table import Content, Document, Section

COLOURS = {"slower": "red", "faster": "green", "good": "green", "bad": "bold red", "open": "yellow"}
GAP = 2
"""Characters between columns."""


def show(document: Document, console: Console, *, details: bool = False) -> None:
    """Print a document, fitted to the console.

    Args:
        document: To print.
        console: Where.
        details: Whether folded parts and columns that a narrow terminal has no room for are too.
    """
    terminal = Terminal(console, details)
    terminal.lines(document.subtitle.splitlines(), indent=6)
    if document.headline:
        terminal.lines([document.headline, ""], COLOURS.get(document.status, ""))
    for section in document.sections:
        if details or (section.needed and not section.folded):
            terminal.section(section)
    terminal.lines([f"warning: {text}" for text in document.warnings])
    terminal.lines(document.fine_print)


@dataclass(frozen=True)
class Terminal:
    """Where a document is printed, and how much of it."""

    console: Console
    details: bool

    def clean(self, text: str) -> str:
        """Return a text from anywhere as this terminal can show it."""
        text = printable(text).replace("`", "")
        return ascii_only(text) if self.console.options.ascii_only else text

    def lines(self, texts: Sequence[str], style: str = "", indent: int = 2) -> None:
        """Print texts that fit the width, later lines of each indented."""
        for text in [line for each in texts for line in each.split("\n")]:
            clean = self.clean(text)
            start = " " * (len(clean) - len(clean.lstrip(" ")) + indent)
            filled = textwrap.fill(
                clean, self.console.width, subsequent_indent=start, break_on_hyphens=False
            )
            self.console.print(Text(filled, style=style))  # no markup: it stays what it is

    def section(self, section: Section) -> None:
        """Print a section: its tables, then its sentences, since these say what to make of them."""
        if section.folded or not section.needed:
            self.lines([section.title], "bold")
        for table in section.tables:
            if self.details or not table.folded:
                self.table(table.without_empty())
        if section.lines:
            self.lines([*section.lines, ""], COLOURS.get(section.status, ""))

    def table(self, table: Table) -> None:
        """Print a table as one, or as several where its columns do not fit beside each other.

        Nothing is shortened or wrapped; what is not needed is left out, unless details are asked
        for.
        """
        if not table.rows:
            return
        if table.title:
            self.lines([table.title], "bold", indent=0)
        texts = [[self.cell(content) for content in row.cells] for row in table.rows]
        widths = [
            max(*map(len, column.title.split("\n")), *(row[i].cell_len for row in texts)) + GAP
            for i, column in enumerate(table.columns)
        ]
        for number, chosen in enumerate(self.packed(table, widths)):
            self.lines([""] if number else [])
            columns = [0, *chosen]
            out = RichTable(
                box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False
            )
            for i in columns:
                out.add_column(
                    Text(self.clean(table.columns[i].title)),
                    no_wrap=True,
                    vertical="bottom",
                    justify="right" if table.columns[i].number else "left",
                )
            for row in texts:
                out.add_row(*(row[i] for i in columns))
            self.console.print(out)
        self.lines([*table.notes, ""])

    def cell(self, content: Content) -> Text:
        """Return a cell, in colour only if it is a finding."""
        if not isinstance(content, Value):
            return Text(self.clean(content))
        style = "bold red" if content.strong else COLOURS.get(content.colour, "")
        return Text(self.clean(f"{content.mark or ' '} {content}"), style=style)

    def packed(self, table: Table, widths: Sequence[int]) -> Iterator[list[int]]:
        """Yield the columns of each table, beside the first one; the needed ones come first."""
        needed = [i for i, c in enumerate(table.columns) if i and (c.needed or self.details)]
        others = [i for i in range(1, len(widths)) if i not in needed]
        chosen: list[int] = []
        room = self.console.width - widths[0]
        for i in [*needed, *others]:
            fits = sum(widths[j] for j in chosen) + widths[i] - GAP <= room
            if chosen and not fits:
                if i in others:
                    continue
                yield sorted(chosen)
                chosen = []
            chosen.append(i)
        yield sorted(chosen)
