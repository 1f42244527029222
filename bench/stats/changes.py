"""Where series change: means of windows before and after each place, of several widths.

A step between two neighbours shows at width 1. One that is small beside what a single point varies
by shows where more points are taken together, if the series is long enough: moving sums at several
scales, as in Eichinger and Kirch (2018), "A MOSUM procedure for the estimation of multiple random
change points", with Holm's correction over all places and widths in place of asymptotics.

Series are either days that were visited in sweeps (`points`, `changes`), or observations that come
with their doubt (`Observations`, `steps`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float, Int

    type Numbers = Float[np.ndarray, " points"]

FEWEST = 8
"""Windows of a width that a series has to have room for: fewer do not tell how they wander."""
LONG = 32
"""Points of a series that is looked at in wider windows than one."""
PLACES = 15
"""Of a width, at which its differences are known well enough to say what they wander by."""
POSSIBLE = 0.3
"""Odds from which on a difference is no candidate: one standard error away says less."""
NORMAL = 1.4826
"""Standard deviations in the median absolute deviation of a normal distribution."""
EFFICIENCY = 0.37
"""Of that median as an estimate, beside the standard deviation of as many values."""
UNLIKE = 0.01
"""Odds that a day of a series is taken to vary more than the others where it does not."""


class Points(NamedTuple):
    """A series that was visited several times, in sweeps over all its days."""

    mean: Float[np.ndarray, " days"]
    """Of the logarithms; NaN where a day has none."""
    visits: Float[np.ndarray, " days"]
    sd: float
    """Of a visit, what its sweep explains taken out; NaN with too few visits to tell."""
    df: int
    """Degrees of freedom of `sd`."""
    unlike: tuple[int, ...] = ()
    """Days whose visits differ by far more than the others' do."""

    def error(self) -> Float[np.ndarray, " days"]:
        """Return the standard error of each day's mean."""
        with np.errstate(divide="ignore"):
            return self.sd / np.sqrt(np.where(self.visits > 0, self.visits, np.nan))

    def days(self) -> Int[np.ndarray, " known"]:
        """Return the days that have a value, if their doubt is known."""
        known = self.df > 0 and self.sd > 0
        return np.flatnonzero(~np.isnan(self.mean)) if known else np.zeros(0, int)


class Observations(NamedTuple):
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
    """Of "no change", not corrected; 1 where it is more than `POSSIBLE` by far."""


class Change(NamedTuple):
    """A place where a series changes."""

    before: int
    """Index of the last point before it."""
    after: int
    width: int
    """Points on either side whose means were compared."""
    log_ratio: float
    low: float
    """Lower end of the 95 % interval of the log-ratio, not corrected for other comparisons."""
    high: float
    p: float
    """Of "no change", after Holm over all places and widths of all series."""


def points(logs: Float[np.ndarray, "days sweeps"]) -> Points:
    """Return each day's mean, and what a visit varies by: days and sweeps, as a two-way layout.

    In a sweep all days are visited in random order, beside one worker of the reference: the luck of
    that worker is in all of them, and is taken out. All days share one variance; two or three
    visits of a day cannot tell its own.

    Args:
        logs: Logarithms of a cost; NaN where a day was not visited in a sweep.
    """
    have = ~np.isnan(logs)
    visits = have.sum(1).astype(float)
    days, sweeps = np.flatnonzero(have.any(1)), np.flatnonzero(have.any(0))
    mean = np.full(logs.shape[0], np.nan)
    if not days.size:
        return Points(mean, visits, np.nan, 0)
    row, column = np.nonzero(have)
    design = np.zeros((row.size, days.size + max(sweeps.size - 1, 0)))
    design[np.arange(row.size), np.searchsorted(days, row)] = 1
    for number, sweep in enumerate(sweeps[1:]):
        design[:, days.size + number] = (column == sweep) - 1.0 * (column == sweeps[0])
    fit, _, rank, _ = np.linalg.lstsq(design, logs[have], rcond=None)
    mean[days] = fit[: days.size]
    rest = np.bincount(row, (logs[have] - design @ fit) ** 2, minlength=logs.shape[0])
    df = int(row.size - rank)
    sd = float(np.sqrt(rest.sum() / df)) if df > 0 else np.nan
    return Points(mean, visits, sd, df, tuple(_unlike(rest, visits - 1, df)))


def _unlike(
    squares: Float[np.ndarray, " days"], own_df: Float[np.ndarray, " days"], df: int
) -> Iterator[int]:
    """Yield days whose visits differ by far more than the others': F tests, of each with the rest.

    Args:
        squares: Sum of each day's squared residuals.
        own_df: Visits of each day but one.
        df: Degrees of freedom of all residuals.
    """
    share = df / max(1.0, float(own_df.clip(0).sum()))  # what sweeps took, every day has lost
    for day in np.flatnonzero(own_df > 0).tolist():
        here, others = own_df[day] * share, float(squares.sum() - squares[day])
        if df - here >= 1 and others > 0:
            f = squares[day] / here / (others / (df - here))
            if special.fdtrc(here, df - here, f) * squares.size < UNLIKE:
                yield day


def changes(series: Sequence[Points], alpha: float = 0.05) -> list[list[Change]]:
    """Return where neighbouring days of each series differ, days without a value passed over.

    Of a long series also where the means of several days do. Any false alarm among them, with odds
    `alpha` at most. The variance of a visit is known from all days of a series together.
    """
    have = [each.days() for each in series]
    known = []
    for each, days in zip(series, have, strict=True):
        none, shared = np.zeros(days.size), each.sd**2 / each.visits[days]
        known.append(Observations(each.mean[days], none, none + 1, shared, each.df))
    return [
        [
            step._replace(before=int(days[step.before]), after=int(days[step.after]))
            for step in found
        ]
        for days, found in zip(have, steps(known, alpha, floor=2), strict=True)
    ]


def comparisons(series: Sequence[Points]) -> int:
    """Return how many comparisons `changes` corrects for."""
    sizes = [each.days().size for each in series]
    return sum(size - 2 * width + 1 for size in sizes for width in widths(size))


def widths(points: int) -> Iterator[int]:
    """Yield the widths at which a series of so many points is looked at: 1, 2, 4 and so on."""
    if points >= 2:
        yield 1
    width = 2
    while points >= max(LONG, FEWEST * width):
        yield width
        width *= 2


def windows(points: Observations, width: int, *, floor: int = 1) -> Windows:
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


def steps(
    series: Sequence[Observations], alpha: float = 0.05, *, floor: int = 1
) -> list[list[Change]]:
    """Return where each series changes, in its order.

    Any false one among them, with odds `alpha` at most: Holm over all places and widths of all
    series. A place that the narrowest windows tell is said by them; wider ones add what no narrower
    ones see within their width.

    Args:
        series: Each in its order.
        alpha: The odds; below `POSSIBLE`.
        floor: The least width at which errors are at least what most differences come to; 2 where
            every point's variance was measured, and many neighbours may truly differ.
    """
    looks = [
        (number, windows(each, width, floor=floor))
        for number, each in enumerate(series)
        for width in widths(each.value.size)
    ]
    out: list[list[Change]] = [[] for _ in series]
    if not looks:
        return out
    adjusted = np.concatenate([look.p for _, look in looks])
    small = adjusted < POSSIBLE
    adjusted[small] = holm(adjusted[small], more=int(adjusted.size - small.sum()))
    ends = np.cumsum([look.p.size for _, look in looks])
    for (number, look), p in zip(looks, np.split(adjusted, ends[:-1]), strict=True):
        out[number] += _clearest(look, p, alpha, [change.after for change in out[number]])
    return [sorted(found) for found in out]


def _clearest(look: Windows, p: Numbers, alpha: float, known: Sequence[int]) -> Iterator[Change]:
    """Yield the changes of one width, the clearest of those that are nearer than that width.

    Args:
        look: The windows.
        p: Corrected.
        alpha: Most that a change may have.
        known: Places that narrower windows told.
    """
    taken = np.array(known, float)
    significant = np.flatnonzero(p <= alpha)
    clearness = np.abs(look.difference[significant]) / look.error[significant]
    for i in significant[np.argsort(-clearness, kind="stable")]:
        first = int(look.first[i])
        if taken.size and np.abs(taken - first).min() < look.width:
            continue
        taken = np.append(taken, first)
        middle = float(look.difference[i])
        half = float(special.stdtrit(min(look.df[i], 1e9), 0.975) * look.error[i])
        ends = middle - half, middle + half
        yield Change(first - 1, first, look.width, middle, *ends, float(p[i]))


def holm(p: Numbers, more: int = 0) -> Numbers:
    """Return adjusted p-values: rejecting those up to alpha is wrong anywhere with at most alpha.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the dependence
    between the tests, which here share a baseline.

    Args:
        p: Of each test.
        more: Further tests, whose p is larger than all of these.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    ranked = p[order] * np.arange(p.size + more, more, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(ranked), 1)
    return adjusted
