"""Where series change: the means of windows before and after each place, of several widths.

A step between two neighbours shows at width 1. One that is small beside what a single point varies
by shows where more points are taken together, if the series is long enough: moving sums at several
scales, as in Eichinger and Kirch (2018), "A MOSUM procedure for the estimation of multiple random
change points", with Holm's correction over all places and widths in place of asymptotics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    type Numbers = Float[np.ndarray, " points"]

FEWEST = 8
"""Windows of a width that a series has to have room for: fewer do not tell how they wander."""
LONG = 32
"""Points of a series that is looked at in wider windows than one."""
PLACES = 15
"""Of a width, at which its differences are known well enough to say what they wander by."""
MOST = 0.3
"""Odds of a false step that can be asked for: one standard error away says less."""
NORMAL = 1.4826
"""Standard deviations in the median absolute deviation of a normal distribution."""
EFFICIENCY = 0.37
"""Of that median as an estimate, beside the standard deviation of as many values."""


class Points(NamedTuple):
    """A series in its order, all of it known."""

    value: Numbers
    """Logarithms."""
    own: Numbers
    """Variance of each value that it knows by itself."""
    own_df: Numbers
    """Degrees of freedom of these."""
    shared: Numbers
    """Variance of each value of which all know alike: what runs wander by, or visits."""
    shared_df: float


class Windows(NamedTuple):
    """The means of windows on either side of every place that has room for them."""

    width: int
    first: Numbers
    """Index of the first point after the place."""
    difference: Numbers
    """Of the means, later less earlier."""
    error: Numbers
    """Standard error of that."""
    df: Numbers
    p: Numbers
    """Of "no change", not corrected; 1 where it is more than `MOST` by far."""


class Step(NamedTuple):
    """A place where a series changes."""

    first: int
    """Index of the first point after it."""
    width: int
    """Points on either side whose means were compared."""
    log_ratio: float
    low: float
    """Lower end of the 95 % interval of the log-ratio, not corrected for other comparisons."""
    high: float
    p: float
    """Of "no change", after Holm over all places and widths of all series."""


def widths(points: int) -> Iterator[int]:
    """Yield the widths at which a series of so many points is looked at: 1, 2, 4 and so on."""
    if points >= 2:
        yield 1
    width = 2
    while points >= max(LONG, FEWEST * width):
        yield width
        width *= 2


def windows(points: Points, width: int, *, floor: int = 1) -> Windows:
    """Return the differences of means of so many points, before and after each place.

    Points need not vary by what is said of them, nor be independent, for machines have moods and
    drift: so an error is at least what most differences of that width come to along the series.

    Args:
        points: The series.
        width: Points on either side.
        floor: The least width at which that is asked for.
    """
    places = np.arange(width, points.value.size - width + 1)

    def sums(values: Numbers) -> Numbers:
        whole = np.concatenate([np.zeros(1), np.cumsum(values)])
        return np.asarray(whole[width:] - whole[:-width])

    def both(values: Numbers) -> Numbers:
        each = sums(values)
        return np.asarray(each[:-width] + each[width:])

    means = sums(points.value - points.value.mean()) / width
    difference = means[width:] - means[:-width]
    own, shared = both(points.own) / width**2, both(points.shared) / width**2
    known = both(points.own**2 / points.own_df) / width**4 + shared**2 / points.shared_df
    if width >= floor and places.size >= PLACES:
        least = (NORMAL * float(np.median(np.abs(difference)))) ** 2
        more = np.maximum(0, least - own - shared)
        known += more**2 / (EFFICIENCY * points.value.size / width)
    else:
        more = np.zeros(places.size)
    variance = own + shared + more
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(known > 0, variance**2 / known, np.inf)
        error = np.sqrt(variance)
        away = np.abs(difference) / error
    p = np.ones(places.size)
    near = np.flatnonzero((away > 1) & (error > 0))
    p[near] = 2 * special.stdtr(df[near], -away[near])
    return Windows(width, places, difference, error, df, p)


def steps(series: Sequence[Points], alpha: float = 0.05, *, floor: int = 1) -> list[list[Step]]:
    """Return where each series changes, in its order.

    Any false one among them, with odds `alpha` at most: Holm over all places and widths of all
    series. A place that the narrowest windows tell is said by them; wider ones add what no narrower
    ones see within their width.

    Args:
        series: Each in its order.
        alpha: The odds.
        floor: The least width at which errors are at least what most differences come to; 2 where
            every point's variance was measured, and many neighbours may truly differ.

    Raises:
        ValueError: `alpha` is not between 0 and `MOST`.
    """
    if not 0 < alpha < MOST:
        raise ValueError(f"alpha is {alpha}; it must be between 0 and {MOST}")
    looks = [
        (number, windows(each, width, floor=floor))
        for number, each in enumerate(series)
        for width in widths(each.value.size)
    ]
    out: list[list[Step]] = [[] for _ in series]
    if not looks:
        return out
    adjusted = np.concatenate([look.p for _, look in looks])
    small = adjusted < MOST
    adjusted[small] = holm(adjusted[small], more=int(adjusted.size - small.sum()))
    ends = np.cumsum([look.p.size for _, look in looks])
    for (number, look), p in zip(looks, np.split(adjusted, ends[:-1]), strict=True):
        out[number] += chosen(look, p, alpha, [step.first for step in out[number]])
    return [sorted(found) for found in out]


def chosen(look: Windows, p: Numbers, alpha: float, known: Sequence[int]) -> Iterator[Step]:
    """Yield the steps of one width, the clearest of those that are nearer than that width.

    Args:
        look: The windows.
        p: Corrected.
        alpha: Most that a step may have.
        known: Places that narrower windows told.
    """
    taken = np.array(known, float)
    significant = np.flatnonzero(p <= alpha)
    clearness = np.abs(look.difference[significant]) / look.error[significant]
    for i in significant[np.argsort(-clearness, kind="stable")]:
        if taken.size and np.abs(taken - look.first[i]).min() < look.width:
            continue
        taken = np.append(taken, look.first[i])
        middle = float(look.difference[i])
        half = float(special.stdtrit(min(look.df[i], 1e9), 0.975) * look.error[i])
        low, high = middle - half, middle + half
        yield Step(int(look.first[i]), look.width, middle, low, high, float(p[i]))


def comparisons(sizes: Sequence[int]) -> int:
    """Return how many comparisons a family of series of so many points is corrected for."""
    return sum(size - 2 * width + 1 for size in sizes for width in widths(size))


def holm(p: Float[np.ndarray, " n"], more: int = 0) -> Float[np.ndarray, " n"]:
    """Return adjusted p-values: rejecting those up to alpha is wrong anywhere with at most alpha.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the dependence
    between the tests, which here share a baseline.

    Args:
        p: Of each test.
        more: Further tests, whose p is larger than all of these.

    Raises:
        ValueError: A value outside of 0 to 1.
    """
    p = np.asarray(p, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be between 0 and 1; found {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = p[order] * np.arange(p.size + more, more, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
