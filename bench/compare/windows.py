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

from bench.compare.series import SeriesChange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.compare.series import SeriesKey

    type Numbers = Float[np.ndarray, " points"]

FEWEST = 8
"""Windows of a width that a series has to have room for: fewer do not tell how they wander."""
LONG = 32
"""Points of a series that is looked at in wider windows than one."""
PLACES = 15
"""Of a width, at which its differences are known well enough to say what they wander by."""
ALPHA = 0.05
"""Odds of any false change among all series that are looked at together."""
NORMAL = 1.4826
"""Standard deviations in the median absolute deviation of a normal distribution."""
EFFICIENCY = 0.37
"""Of that median as an estimate, beside the standard deviation of as many values."""


class Points(NamedTuple):
    """A series in its order, all of it known."""

    at: Int[np.ndarray, " points"]
    """The moment of each."""
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
    """Of "no change", not corrected."""


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
    error = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = variance**2 / known
        p = np.where(error > 0, 2 * special.stdtr(df, -np.abs(difference) / error), 1)
    return Windows(width, places, difference, error, df, p)


def changes(series: Mapping[SeriesKey, Points], *, floor: int = 1) -> list[SeriesChange]:
    """Return where series change.

    Any false one among them, with odds `ALPHA` at most: Holm over all places and widths of all
    series. A place that the narrowest windows tell is said by them; wider ones add what no narrower
    ones see within their width.

    Args:
        series: By key.
        floor: The least width at which errors are at least what most differences come to; 2 where
            every point's variance was measured, and many neighbours may truly differ.
    """
    looks = [
        (key, windows(points, width, floor=floor))
        for key, points in series.items()
        for width in widths(points.value.size)
    ]
    if not looks:
        return []
    adjusted = holm(np.concatenate([look.p for _, look in looks]))
    ends = np.cumsum([look.p.size for _, look in looks])
    taken: dict[SeriesKey, list[int]] = {key: [] for key in series}
    return [
        change
        for (key, look), p in zip(looks, np.split(adjusted, ends[:-1]), strict=True)
        for change in chosen(key, series[key], look, p, taken[key])
    ]


def chosen(
    key: SeriesKey, points: Points, look: Windows, p: Numbers, taken: list[int]
) -> Iterator[SeriesChange]:
    """Yield the changes of one width, the clearest of those that are nearer than that width.

    Args:
        key: Of the series.
        points: All of it.
        look: The windows.
        p: Corrected.
        taken: Places that were told; new ones are added.
    """
    significant = np.flatnonzero(p <= ALPHA)
    clearness = np.abs(look.difference[significant]) / look.error[significant]
    for i in significant[np.argsort(-clearness, kind="stable")]:
        first = int(look.first[i])
        if any(abs(place - first) < look.width for place in taken):
            continue
        taken.append(first)
        half = float(special.stdtrit(look.df[i], 0.975) * look.error[i])
        ratio, low, high = np.exp(look.difference[i] + np.array([0, -half, half])).tolist()
        before, after = points.at[first - 1 : first + 1].tolist()
        yield SeriesChange(key, before, after, ratio, low, high, float(p[i]), look.width)


def comparisons(sizes: Sequence[int]) -> int:
    """Return how many comparisons a family of series of so many points is corrected for."""
    return sum(size - 2 * width + 1 for size in sizes for width in widths(size))


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return adjusted p-values: rejecting those up to alpha is wrong anywhere with at most alpha.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the dependence
    between the tests, which here share a baseline.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
