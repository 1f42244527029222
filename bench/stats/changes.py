"""Days that were visited in sweeps: their means, what these vary by, and where they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from bench.stats import windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float, Int


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


class Change(NamedTuple):
    """Two neighbours that differ, or the days before and after a place between them."""

    before: int
    """Index of the day before."""
    after: int
    width: int
    """Days on either side whose means were compared."""
    log_ratio: float
    low: float
    """Lower end of the 95 % interval of the log-ratio, not corrected for other comparisons."""
    high: float
    p: float
    """Of "no change", after Holm over all places and widths of all series."""


def points(logs: Float[np.ndarray, "days sweeps"]) -> Points:
    """Return each day's mean, and what a visit varies by: days and sweeps, as a two-way layout.

    A sweep is what all days were visited in, in random order, beside one worker of the reference:
    what that worker's luck was is in all of them, and is taken out. All days share one variance;
    two or three visits of a day cannot tell its own.

    Args:
        logs: Logarithms of a cost; NaN where a day was not visited in a sweep.
    """
    logs = np.asarray(logs, float)
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
    return Points(mean, visits, sd, df, tuple(unlike(rest, visits - 1, df)))


def unlike(
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
    `alpha` at most.

    Raises:
        ValueError: `alpha` is not between 0 and `windows.MOST`.
    """
    have = [days_of(each) for each in series]
    usable = [
        number
        for number, (each, days) in enumerate(zip(series, have, strict=True))
        if each.df > 0 and each.sd > 0 and days.size > 1
    ]
    found = windows.steps([known(series[n], have[n]) for n in usable], alpha, floor=2)
    out: list[list[Change]] = [[] for _ in series]
    for number, steps in zip(usable, found, strict=True):
        days = have[number].tolist()
        out[number] = [Change(days[s.first - 1], days[s.first], *s[1:]) for s in steps]
    return out


def comparisons(series: Sequence[Points]) -> int:
    """Return how many comparisons `changes` corrects for."""
    return windows.comparisons(
        [days_of(each).size for each in series if each.df > 0 and each.sd > 0]
    )


def days_of(points: Points) -> Int[np.ndarray, " known"]:
    """Return the days that have a value."""
    return np.flatnonzero(~np.isnan(points.mean))


def known(points: Points, days: Int[np.ndarray, " known"]) -> windows.Points:
    """Return those days as a series: what a visit varies by is known from all of them together."""
    none = np.zeros(days.size)
    shared = points.sd**2 / points.visits[days]
    return windows.Points(points.mean[days], none, none + 1, shared, points.df)
