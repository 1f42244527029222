"""The one table model: rows of texts and values, in sections of a document.

What a command has to say is a `Document`; `text`, `markdown` and `page` render it. Nobody
else formats a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.stats.verdicts import PROGRAM, Verdict

if TYPE_CHECKING:
    from bench.report.charts import Figure
    from bench.runfile import Metric

RATIO, ADDED, EACH, DIFFERENCE = "ratio", "added seconds", "seconds each", "difference in nats"
"""Units beside those of metrics: how many times as much, what is added to a call, what each of many
things takes of that, and what is added to a loss."""
ENDS = ("count", "nats", DIFFERENCE)
"""Units whose values are shown with their intervals, beside the first three."""
MARKS = {Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}
"""What stands before a ratio that is no finding; slower and faster have a colour instead."""


@dataclass(frozen=True)
class Value:
    """A number with what is known of it."""

    number: float | None
    """In its unit; None where there is no number."""
    unit: str = RATIO
    """`s`, `B`, `nats`, `count`, `fraction`, or one of the above."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval; None where there is no bound."""
    verdict: str = ""
    """One of `Verdict`, or empty where nothing is compared."""
    bound: float | None = None
    """By which fraction it can differ from 1 at most, where a proof has settled it."""
    marker: str = ""
    """Stands before it in place of the verdict's mark: `!` worse, `·` left out."""
    strong: bool = False
    """A finding that somebody has to look at."""
    help: str = ""
    """What is said of it on a page, where there is room: the time itself, or why there is none."""

    @classmethod
    def of(cls, found: Metric, help_: str = "") -> Value:
        """Return what is said of a metric in a run file, beside the baseline where it is."""
        verdict = found.verdict or ""
        if found.added:
            ends = found.added.low, found.added.high
            return cls(found.added.seconds, ADDED, *ends, verdict, help=help_)
        if found.ratio is None:
            return cls(found.median, found.unit, help=help_)
        proven = found.bound if found.settled_by == PROGRAM else None
        return cls(found.ratio, RATIO, found.low, found.high, verdict, proven, help=help_)

    @classmethod
    def of_ratio(cls, found: Metric) -> Value:
        """Return a ratio to the baseline as it was timed, also where more is known."""
        return cls(found.ratio, RATIO, found.low, found.high, found.verdict or "")

    @property
    def mark(self) -> str:
        """The sign before it, or nothing."""
        return self.marker or MARKS.get(self.verdict, "")  # type: ignore[call-overload]

    @property
    def colour(self) -> str:
        """`slower`, `faster` or nothing: what a reader is to see from afar."""
        return self.verdict if self.verdict in (Verdict.SLOWER, Verdict.FASTER) else ""

    def __str__(self) -> str:
        """Return the number with its interval and unit: `1.21 (1.19–1.24)`, `+57 µs (55 to 59)`."""
        if self.number is None:
            return "–"
        if self.unit == ADDED:
            return _added(self.number, self.low, self.high)
        if self.unit == EACH:
            return _each(self.number, self.low, self.high)
        if self.unit in ENDS:
            return _between(self.number, self.unit, self.low, self.high)
        if self.unit != RATIO:
            return amount(self.number, self.unit)
        if self.bound is not None:
            return f"±{percent(self.bound)}, proven"
        return _ratio(self.number, self.low, self.high)


type Content = str | Value
"""What a cell of a table holds; texts may come from outside, and are escaped by who renders them.
Between backticks a text is code."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    """Lines of it may be told apart by `\\n`, for a terminal."""
    number: bool = False
    """Whether its texts end at the same place."""
    help: str = ""
    """What it is."""
    needed: bool = True
    """Whether a narrow terminal has to show it; the others come with `-v`."""


@dataclass(frozen=True)
class Row:
    """A row of a table; the first cell says what it is about."""

    cells: tuple[Content, ...]
    worse: bool = False
    """Whether something has to be done about it."""


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    """Below it: why there is no number, how to read a cell."""
    folded: bool = False
    """Whether it is for those who look closer."""

    def without_empty(self) -> Table:
        """Return the table without columns that have nothing to say."""
        kept = [
            i
            for i in range(len(self.columns))
            if i == 0 or any(str(row.cells[i]) for row in self.rows)
        ]
        rows = tuple(Row(tuple(row.cells[i] for i in kept), row.worse) for row in self.rows)
        columns = tuple(self.columns[i] for i in kept)
        return Table(columns, rows, self.title, self.notes, self.folded)


@dataclass(frozen=True)
class Section:
    """A part of a document: sentences, then tables, then charts."""

    title: str
    lines: tuple[str, ...] = ()
    """Each may have several lines."""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    folded: bool = False
    """Whether it is for those who look closer."""
    needed: bool = True
    """Whether a terminal shows it without `-v`."""
    status: str = ""
    """`bad`, or nothing: the colour of its sentences."""


@dataclass(frozen=True)
class Document:
    """All that a command has to say, in the order of what a reader wants to know."""

    title: str
    subtitle: str = ""
    headline: str = ""
    """The answer, in a sentence."""
    status: str = ""
    """`good`, `bad`, `open`, or nothing: the headline's colour."""
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    fine_print: tuple[str, ...] = ()
    """Under which conditions all of it holds."""


def _ratio(middle: float, low: float | None, high: float | None) -> str:
    """Return a ratio and its interval, with the digits that the interval is worth.

    Examples are 1.003 (0.999–1.007), 1.21 (1.19–1.24) and 9.0 (8.7–9.4); an interval that has no
    upper end is written 1.2 (>1.1).
    """
    most = 3 if middle < 2 else 2 if middle < 10 else 1 if middle < 100 else 0
    if low is None and high is None:
        return f"{middle:.{min(2, most)}f}"
    low = 0.0 if low is None else low
    digits = _digits(low, middle + (middle - low) if high is None else high, most)
    if high is None:
        return f"{middle:.{digits}f} (>{low:.{digits}f})"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _digits(low: float, high: float, most: int) -> int:
    """Return how many digits show an interval, and on which side of 1 its ends are."""
    half = (high - low) / 2
    digits = min(most, max(0, math.ceil(-math.log10(half)))) if half > 0 else min(2, most)
    # Comparing with 1 itself would ask for digits that are not there.
    while digits < most and any(round(end, digits) == 1 != round(end, 3) for end in (low, high)):
        digits += 1
    return digits


def _added(middle: float, low: float | None, high: float | None) -> str:
    scale, unit = (1e3, "ms") if abs(middle) >= 1e-3 else (1e6, "µs")
    digits = 2 if unit == "ms" else 0 if abs(middle) >= 1e-5 else 1
    text = f"{middle * scale:+.{digits}f} {unit}"
    if low is None or high is None:
        return text
    return f"{text} ({low * scale:.{digits}f} to {high * scale:.{digits}f})"


def _each(middle: float, low: float | None, high: float | None) -> str:
    digits = 1 if abs(middle) >= 1e-5 else 2
    text = f"{middle * 1e6:.{digits}f} µs"
    if low is None or high is None:
        return text
    return f"{text} ({low * 1e6:.{digits}f} to {high * 1e6:.{digits}f})"


def _between(middle: float, unit: str, low: float | None, high: float | None) -> str:
    """Return an amount and the ends of its interval that there are: 1 160 (920 to 2 000)."""
    text, *ends = (None if x is None else amount(x, unit) for x in (middle, low, high))
    match ends:
        case [None, None]:
            return str(text)
        case [_, None]:
            return f"{text} (>{ends[0]})"
        case [None, _]:
            return f"{text} (<{ends[1]})"
    return f"{text} ({ends[0]} to {ends[1]})"


def amount(value: float, unit: str) -> str:
    """Return a value with three digits and its unit: 5.14 ms, 318 MB, 2.305 nats."""
    if unit == "s":
        return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))
    if unit == "B":
        if abs(value) < 1000:
            return f"{value:.0f} B"
        return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))
    if unit == "nats":
        return f"{value:.3f}"
    if unit == DIFFERENCE:
        return f"{value:+.3f}"
    if unit == "fraction":
        return percent(value)
    if unit in ("count", ""):
        return f"{value:,.0f}".replace(",", " ") if value == int(value) else f"{value:g}"
    return f"{_three_digits(value)} {unit}"


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    name, scale = next((u for u in units if abs(value) >= u[1]), units[-1])
    return f"{_three_digits(value / scale)} {name}"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def percent(fraction: float) -> str:
    """Return a fraction in per cent: 0.8 %, 2 %, 12 %."""
    value = 100 * fraction
    if value == 0 or value >= 0.1:
        return f"{value:.{1 if value < 10 else 0}f}".removesuffix(".0") + " %"
    return f"{value:.1g} %"
