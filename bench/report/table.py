"""The one table model.

Every command shows a `Document`. `terminal`, `markdown` and `page` render it; `bench.numbers` turns
numbers into words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bench.cells import BASELINE
from bench.estimates import Estimate, Verdict
from bench.metrics import METRICS, STAGES, Kind
from bench.numbers import words

type Content = str | Estimate
"""Content of a table's cell. Text may come from outside: renderers escape it. Between backticks it
is code."""

MISSING = "–"
"""Content of a cell whose number was asked for, but not measured."""
MARKS: dict[Verdict | None, str] = {
    Verdict.SLOWER: "▲",
    Verdict.FASTER: "▼",
    Verdict.EQUIVALENT: "=",
    Verdict.INCONCLUSIVE: "?",
}
"""Verdict → sign before the number."""
SIZES = {"ratio": (1.02, 1.1, 1.3, 2.0), "added": (1e-5, 1e-4, 1e-3, 1e-2)}
"""Ratios and added seconds from which a difference is of a larger size: the same share of a step of
a millisecond, roughly."""
COLOURED_SIZE, COLOURED_ONCE = 2, 3
"""Sizes from which a difference from plain JAX has a colour: 10 % or 100 µs of each call, and 30 %
of what happens once."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    """Title; line breaks in it make a column narrow."""
    number: bool = False
    """Whether its texts are aligned to the right."""
    help: str = ""
    """Meaning, in a few words."""
    needed: bool = True
    """Whether a narrow terminal has to show it; `-v` shows the others."""
    wraps: bool = False
    """Whether a narrow terminal may break its texts between words."""
    coloured: bool = False
    """Whether its texts have the colour of a change: for the worse, or else for the better."""


@dataclass(frozen=True)
class Row:
    """A row of a table; the first cell says what it is about."""

    cells: tuple[Content, ...]
    worse: bool = False
    """Whether it is a change for the worse."""


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    """Sentences below it: why numbers are missing, how to read a cell."""
    margin: float = 0.0
    """Fraction within which two times are equivalent, where a page lets its reader compare with any
    row; the first one is the baseline. 0 for any other table."""

    def find_forms(self) -> list[str]:
        """Return the form of each column's estimates, below a baseline's amount, or ""."""
        columns = ([row.cells[i] for row in self.rows] for i in range(len(self.columns)))
        forms = [{cell.form for cell in cells if not isinstance(cell, str)} for cells in columns]
        return [max(of_column - {"amount"} or of_column, default="") for of_column in forms]

    def drop_empty_columns(self) -> Table:
        """Return the table without its empty columns; the first column stays."""
        nothing = ("", MISSING)
        kept = [
            i
            for i in range(len(self.columns))
            if i == 0 or any(row.cells[i] not in nothing for row in self.rows)
        ]
        rows = (replace(row, cells=tuple(row.cells[i] for i in kept)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=tuple(rows))


@dataclass(frozen=True)
class Figure:
    """A chart, with a description in words."""

    title: str
    """Title: what the data show."""
    text: str
    """Description for somebody who cannot see it."""
    chart: dict[str, Any]
    """Specification in Vega-Lite, without its width."""


@dataclass(frozen=True)
class Section:
    """A part of a document: tables, then sentences, then charts."""

    title: str
    lines: tuple[str, ...] = ()
    """Sentences; a line break in one is kept."""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    folded: bool = False
    """Whether only `--details` and a click show it."""
    for_page: bool = False
    """Whether it stands open on a page, but a terminal shows it only with `--details`."""
    status: str = ""
    """Colour of its sentences: `bad`, or nothing."""


@dataclass(frozen=True)
class Document:
    """Output of a command, in the order in which a reader needs it."""

    title: str
    subtitle: str = ""
    """Time and place of the measurement."""
    headline: str = ""
    """The answer, in a sentence."""
    status: str = ""
    """Colour of the headline: `good`, `bad`, `open`, or nothing."""
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    fine_print: tuple[str, ...] = ()
    """Sentences on the method: detectable differences, time taken, how to repeat it."""
    marker: str = ""
    """First line of its Markdown, by which a later comment finds the one that it replaces."""


def mark(content: Content) -> str:
    """Return the sign that stands before a cell's number, or nothing."""
    if isinstance(content, str) or content.is_unknown:
        return ""
    return MARKS.get(content.verdict, "")


def colour(content: Content) -> str:
    """Return the colour of a cell by its name: `slower`, `faster`, or nothing.

    Beside plain JAX, what is small has none: it costs a reader nothing.
    """
    if isinstance(content, str) or content.verdict not in (Verdict.SLOWER, Verdict.FASTER):
        return ""
    metric = METRICS[content.metric]
    is_once = metric.kind is Kind.COLD or metric.turn == STAGES
    least = COLOURED_ONCE if is_once else COLOURED_SIZE
    small = content.against == str(BASELINE) and measure_size(content) < least
    return "" if small else content.verdict


def colour_text(column: Column, row: Row) -> str:
    """Return the colour of a text by its name, where a column tells changes, or nothing."""
    if not column.coloured:
        return ""
    return Verdict.SLOWER if row.worse else Verdict.FASTER


def measure_size(comparison: Estimate) -> int:
    """Return how large a difference is: 0 for what costs next to nothing, to 4."""
    steps = SIZES[comparison.form]
    value = comparison.value
    if comparison.form == "ratio":
        return sum(max(value, 1 / value) >= step for step in steps)
    return sum(abs(value) >= step for step in steps)


def format_content(content: Content) -> str:
    """Return the text of a cell, without its mark."""
    return content if isinstance(content, str) else words(content)
