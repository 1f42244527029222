"""Days that were visited in sweeps: their means, and what these vary by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from bench.compare import windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int


UNLIKE = 0.01
"""Odds that a day of a series is taken to vary more than the others where it does not."""


class Visits(NamedTuple):
    """A series whose days were visited several times, in sweeps over all of them."""

    mean: Float[np.ndarray, " days"]
    """Of the logarithms; NaN where a day has none."""
    visits: Float[np.ndarray, " days"]
    sd: float
    """Of a visit, what its sweep explains taken out; NaN with too few visits to tell."""
    df: int
    """Degrees of freedom of `sd`."""
    unlike: tuple[int, ...] = ()
    """Days whose visits differ by far more than the others' do."""

    @property
    def days(self) -> Int[np.ndarray, " known"]:
        """The days that have a value."""
        return np.flatnonzero(~np.isnan(self.mean))

    @property
    def tells_changes(self) -> bool:
        """Whether it is known what its days vary by."""
        return self.df > 0 and self.sd > 0

    def error(self) -> Float[np.ndarray, " days"]:
        """Return the standard error of each day's mean."""
        with np.errstate(divide="ignore"):
            return self.sd / np.sqrt(np.where(self.visits > 0, self.visits, np.nan))

    def points(self) -> windows.Points:
        """Return the days that have a value: all together know what a visit varies by."""
        none = np.zeros(self.days.size)
        shared = self.sd**2 / self.visits[self.days]
        return windows.Points(self.days, self.mean[self.days], none, none + 1, shared, self.df)


def visits(logs: Float[np.ndarray, "days sweeps"]) -> Visits:
    """Return each day's mean, and what a visit varies by: days and sweeps, as a two-way layout.

    A sweep is what all days were visited in, in random order, beside one worker of the reference:
    what that worker's luck was is in all of them, and is taken out. All days share one variance;
    two or three visits of a day cannot tell its own.

    Args:
        logs: Logarithms of a cost; NaN where a day was not visited in a sweep.
    """
    logs = np.asarray(logs, float)
    have = ~np.isnan(logs)
    count = have.sum(1).astype(float)
    days, sweeps = np.flatnonzero(have.any(1)), np.flatnonzero(have.any(0))
    mean = np.full(logs.shape[0], np.nan)
    if not days.size:
        return Visits(mean, count, np.nan, 0)
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
    return Visits(mean, count, sd, df, tuple(unlike(rest, count - 1, df)))


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
