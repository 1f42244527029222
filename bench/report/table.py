"""The one table model, and the one formatter of numbers.

Every command shows a `Document`. `terminal`, `markdown` and `page` render it; only this module
turns a number into words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE
from bench.estimates import MARGIN, PROGRAM, Estimate, Verdict
from bench.metrics import METRICS, STAGES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

type Content = str | Estimate
"""Content of a table's cell. Text may come from outside: renderers escape it. Between backticks it
is code."""

FINEST = 4
"""Most digits after the point, where an end of an interval lies beside 1; 3 beside the margin."""
LARGEST = 10_000
"""Ratio, or amount of a unit, above which further digits say nothing."""
MISSING = "–"
"""Content of a cell whose number was asked for, but not measured."""
UNKNOWN = "not yet"
"""Words for a comparison that is no answer yet."""
MARKS: dict[Verdict | None, str] = {Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}
"""Verdict → sign before the estimate; slower and faster ones have a colour instead."""
SIZES = {"ratio": (1.02, 1.1, 1.3, 2.0), "added": (1e-5, 1e-4, 1e-3, 1e-2)}
"""Ratios and added seconds from which a difference is of a larger size: the same share of a step of
a millisecond, roughly."""
COLOURED_SIZE, COLOURED_ONCE = 2, 3
"""Sizes from which a difference from plain JAX has a colour: 10 % or 100 µs of each call, and 30 %
of what happens once."""
UNITS = {
    "s": {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9},
    "B": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0},
}
"""Unit → names of its multiples, with their sizes, the largest first."""


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


def words(estimate: Estimate) -> str:
    """Return a number with its unit, and with its interval unless it is an amount.

    Examples are `1.21 (1.19–1.24)`, `+57 µs (55 to 59)` and `5.14 ms`.
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    if estimate.is_unknown:
        return UNKNOWN
    if estimate.form == "amount":
        return amount(value, estimate.unit)
    if estimate.form == "added":
        if low is None and high is None:
            return f"{'-' if value < 0 else '+'}{amount(abs(value), estimate.unit)}"
        return _signed_words(value, low, high, _choose_unit(value, estimate.unit, "µs"))
    if estimate.proven_bound is not None:
        return f"±{percent(estimate.proven_bound)}, proven"
    if estimate.settled_by == PROGRAM and estimate.is_noiseless:
        return "the same"
    return ratio_words(estimate)


def ratio_words(ratio: Estimate) -> str:
    """Return a ratio as it was timed, whatever its verdict, with the digits of its interval.

    Examples are 1.003 (0.999–1.007), 1.21 (1.19–1.24) and 9.0 (8.7–9.4); an interval that has no
    upper end is written 1.2 (>1.1).
    """
    value, low, high = ratio.value, ratio.low, ratio.high
    if value > LARGEST:
        return f"above ×{amount(LARGEST, '')}"
    high = None if high is None or high > LARGEST else high
    most = 3 if value < 2 else 2 if value < 10 else 1 if value < 100 else 0
    digits = _count_digits(value, low, high, most)
    return f"{value:.{digits}f}{_interval_words(low, high, digits, '–', _place_ratio)}"


def change(estimate: Estimate) -> str:
    """Return a ratio as a change in per cent, `+1.2 % (0.8 to 1.7)`; one from 2 on as a factor."""
    if estimate.form != "ratio" or estimate.is_unknown:
        return words(estimate)
    if estimate.value >= 2:
        factor = ratio_words(estimate)
        return factor if estimate.value > LARGEST else f"{factor} times"
    low, high = (None if end is None else end - 1 for end in (estimate.low, estimate.high))
    if estimate.value < 1 / LARGEST:
        return "below -99.99 %"
    # Enough digits that -99.6 % is not rounded to -100 %
    least = max(min(estimate.value, estimate.low or 1.0), 1 / LARGEST)
    fewest = math.ceil(-math.log10(least)) - 2
    return _signed_words(estimate.value - 1, low, high, ("%", 0.01), fewest)


def mark(content: Content) -> str:
    """Return the sign that stands before a cell's number: `=`, `?`, or nothing."""
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


def amount(value: float, unit: str) -> str:
    """Return a value with three digits and its unit: 5.14 ms, 318 MB, 2.305, 7 060."""
    if unit == "nats":
        return f"{value:.3f}"
    if value == int(value) and (not unit or (unit == "B" and abs(value) < 1000)):
        return f"{value:,.0f} {unit}".replace(",", " ").rstrip()
    name, scale = _choose_unit(value, unit)
    return f"{_three_digits(value / scale)} {name}".rstrip()


def percent(fraction: float, *, up: bool = False) -> str:
    """Return a fraction in per cent: 0.8 %, 2 %, 12 %; an upper bound is rounded `up`."""
    value = 100 * fraction
    digits = 2 if up and value < 1 else 1 if value < 10 else 0
    if up:
        value = math.ceil(round(value * 10**digits, 6)) / 10**digits
    if value == 0 or value >= 0.1:
        shown = f"{value:.{digits}f}"
        return f"{shown.rstrip('0').rstrip('.') if digits else shown} %"
    return f"{value:.1g} %"


def _signed_words(
    middle: float,
    low: float | None,
    high: float | None,
    unit: tuple[str, float],
    fewest: int = 0,
) -> str:
    """Return a difference and its interval: `+57 µs (55 to 59)`, `+3.1 µs (>2.0)`.

    `unit` is a name and a size. Below 10 units, there is at least one digit after the point; at
    any size, there are at least `fewest`.
    """
    name, scale = unit
    middle /= scale
    if abs(middle) > LARGEST:
        return f"{middle:+.2e} {name}".rstrip()
    low, high = (None if end is None else end / scale for end in (low, high))
    digits = 0 if low is None and high is None else _count_digits(middle, low, high, 2)
    digits = max(digits, fewest)
    if abs(middle) < 10:
        digits = max(digits, 1)
    interval = _interval_words(low, high, digits, " to ", _place_difference)
    return f"{middle:+.{digits}f} {name}".rstrip() + interval


def _place_ratio(end: float) -> tuple[bool, ...]:
    """Return on which sides of 1 and of the usual margin an end lies, to four and three digits."""
    near, far = round(end, FINEST), round(end, 3)
    return far < 1 - MARGIN, near < 1, near > 1, far > 1 + MARGIN


def _place_difference(end: float) -> tuple[bool, ...]:
    """Return on which side of 0 an end lies, to two digits."""
    return round(end, 2) < 0, round(end, 2) > 0


def _interval_words(
    low: float | None,
    high: float | None,
    digits: int,
    between: str,
    place: Callable[[float], tuple[bool, ...]],
) -> str:
    """Return an interval in brackets; nothing where neither end is known.

    What is printed has the same `place` as the number, so 1.0216 is not within 2 %: an end that
    rounding would move has more digits.
    """

    def write(end: float | None) -> str | None:
        if end is None:
            return None
        fitting = (n for n in range(digits, FINEST) if place(round(end, n)) == place(end))
        shown = next(fitting, FINEST)
        return f"{round(end, shown) + 0.0:.{shown}f}"  # adding 0 makes -0.0 a 0.0

    first, last = map(write, (low, high))
    if last is None:
        return "" if first is None else f" (>{first})"
    return f" (<{last})" if first is None else f" ({first}{between}{last})"


def _count_digits(middle: float, low: float | None, high: float | None, most: int) -> int:
    """Return how many digits after the point show the width of an interval, at most `most`."""
    halves = [abs(middle - end) for end in (low, high) if end is not None]
    half = sum(halves) / max(1, len(halves))
    if half == math.inf:
        return 0
    return min(most, max(0, math.ceil(-math.log10(half)))) if half > 0 else min(2, most)


def _choose_unit(value: float, unit: str, smallest: str = "") -> tuple[str, float]:
    """Return the name and the size of the largest multiple of a unit that a value reaches."""
    known = UNITS.get(unit, {unit: 1.0})
    for name, scale in known.items():
        if abs(value) >= scale or name == smallest:
            break
    return name, scale


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if abs(value) > LARGEST:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
