"""Numbers in words: the one formatter of amounts, fractions, ratios and differences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.estimates import MARGIN, PROGRAM
from bench.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.estimates import Estimate

FINEST = 4
"""Most digits after the point, where an end of an interval lies beside 1, 0 or the margin."""
LARGEST = 10_000
"""Ratio, or amount of a unit, above which further digits say nothing."""
FACTOR = 2.0
"""Ratio from which a change is a factor, no longer a percentage."""
LEAST_SHARE = 0.01
"""Ratio below which a change is a fraction: 99.6 % less says little."""
UNKNOWN = "not yet"
"""Words for a comparison that is no answer yet."""
UNITS = {
    "s": {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9},
    "B": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0},
}
"""Unit → names of its multiples, with their sizes, the largest first."""


def words(estimate: Estimate) -> str:
    """Return a number with its unit, and with its interval unless it is an amount.

    A ratio is a change in per cent, from 2 on a factor: `+21 % (19 to 24)`, `2.1 times (2.0 to
    2.3)`. Other examples are `+57 µs (55 to 59)` and `5.14 ms`.
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    if estimate.is_unknown:
        return UNKNOWN
    if estimate.form == "amount":
        return amount(value, estimate.unit)
    if estimate.form == "added":
        if low is None and high is None:
            return f"{'-' if value < 0 else '+'}{amount(abs(value), estimate.unit)}"
        unit = _choose_unit(value, estimate.unit, "µs")
        return _signed_words(value, low, high, unit, _place_difference)
    if estimate.proven_bound is not None:
        return f"±{percent(estimate.proven_bound)}, proven"
    if estimate.settled_by == PROGRAM and estimate.is_noiseless:
        return "the same"
    return _ratio_words(value, low, high)


def several_words(changes: Sequence[Estimate]) -> str:
    """Return by how much a metric changed: `+30 % (20 to 41)`; of several cells, `50 to 97 % more`.

    So a range over cells cannot be taken for an interval.
    """
    if len(changes) == 1:
        return words(changes[0])
    if changes[0].form == "ratio":
        return range_words([row.value for row in changes], METRICS[changes[0].metric].unit)
    ends = sorted(changes, key=lambda row: abs(row.value))
    return " to ".join(dict.fromkeys(map(words, (ends[0], ends[-1]))))


def range_words(ratios: Sequence[float], unit: str = "") -> str:
    """Return ratios on one side of 1 in words: `63 to 79 % less`, `2.1 times as much`.

    Of what has a unit of seconds: `63 to 79 % shorter`, `2.1 times as long`.
    """
    less, more, much = ("shorter", "longer", "long") if unit == "s" else ("less", "more", "much")
    if max(ratios) >= FACTOR:
        ends, rest = (f"{end:.3g}" for end in (min(ratios), max(ratios))), f" times as {much}"
    elif max(ratios) < LEAST_SHARE:
        ends, rest = (f"1/{1 / end:.3g}" for end in (max(ratios), min(ratios))), " of it"
    else:
        parts = sorted(abs(ratio - 1) for ratio in ratios)
        ends = (percent(part).removesuffix(" %") for part in (parts[0], parts[-1]))
        rest = f" % {more if ratios[0] > 1 else less}"
    return " to ".join(dict.fromkeys(ends)) + rest


def _ratio_words(value: float, low: float | None, high: float | None) -> str:
    """Return a ratio as a change in per cent, with the digits of its interval, or as a factor."""
    if value > LARGEST:
        return f"above {amount(LARGEST, '')} times"
    if value < 1 / LARGEST:
        return "below -99.99 %"
    high = None if high is None or high > LARGEST else high
    if value >= FACTOR:
        digits = _count_digits(value, low, high, 2 if value < 10 else 1 if value < 100 else 0)
        return f"{value:.{digits}f} times{_interval_words(low, high, digits, _place_ratio)}"
    # Enough digits that -99.6 % is not rounded to -100 %
    least = max(min(value, low or 1.0), 1 / LARGEST)
    fewest = math.ceil(-math.log10(least)) - 2
    low, high = (None if end is None else end - 1 for end in (low, high))
    return _signed_words(value - 1, low, high, ("%", 0.01), _place_change, fewest)


def amount(value: float, unit: str) -> str:
    """Return a value with three digits and its unit: 5.14 ms, 318 MB, 2.305, 7 060."""
    if unit == "nats":
        return f"{value:.3f}"
    if value == int(value) and (not unit or (unit == "B" and abs(value) < 1000)):
        return f"{value:,.0f} {unit}".replace(",", " ").rstrip()
    name, scale = _choose_unit(value, unit)
    return f"{_three_digits(value / scale)} {name}".rstrip()


def signed_amount(value: float, unit: str) -> str:
    """Return a difference with its sign, two or three digits, and its unit: `+26 µs`, `-1.2 ms`."""
    name, scale = _choose_unit(abs(value), unit)
    size = value / scale
    return f"{size:+.{0 if abs(size) >= 10 else 1}f} {name}".rstrip()


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
    judge: Callable[[float], tuple[bool, ...]],
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
    if abs(middle) >= 100 and low is not None and high is not None and high - low >= 1:
        digits = 0  # three digits show both ends
    digits = max(digits, fewest)
    if round(abs(middle), 6) < 10:  # not 10 less an error of rounding
        digits = max(digits, 1)
    return f"{middle:+.{digits}f} {name}".rstrip() + _interval_words(low, high, digits, judge)


def _place_ratio(end: float) -> tuple[bool, ...]:
    """Return on which sides of 1 and of the usual margin an end lies, to four and three digits."""
    near, far = round(end, FINEST), round(end, 3)
    return far < 1 - MARGIN, near < 1, near > 1, far > 1 + MARGIN


def _place_change(end: float) -> tuple[bool, ...]:
    """Return on which sides of 0 and of the usual margin an end in per cent lies."""
    near, far = round(end, 2), round(end, 1)
    return far < -100 * MARGIN, near < 0, near > 0, far > 100 * MARGIN


def _place_difference(end: float) -> tuple[bool, ...]:
    """Return on which side of 0 an end lies, to two digits."""
    return round(end, 2) < 0, round(end, 2) > 0


def _interval_words(
    low: float | None, high: float | None, digits: int, judge: Callable[[float], tuple[bool, ...]]
) -> str:
    """Return an interval in brackets; nothing where neither end is known.

    `judge` says the same of what is printed as of the number, so 2.16 % is not within 2 %: an end
    that rounding would move has more digits.
    """

    def write(end: float | None) -> str | None:
        if end is None:
            return None
        fitting = (n for n in range(digits, FINEST) if judge(round(end, n)) == judge(end))
        shown = next(fitting, FINEST)
        return f"{round(end, shown) + 0.0:.{shown}f}"  # adding 0 makes -0.0 a 0.0

    first, last = map(write, (low, high))
    if last is None:
        return "" if first is None else f" (>{first})"
    return f" (<{last})" if first is None else f" ({first} to {last})"


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
