"""Changes along a series: which neighbours differ, with a stated rate of false alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from bench.stats.verdict import holm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


class Points(NamedTuple):
    """A series that was visited several times, in sweeps over all its days."""

    mean: Float[np.ndarray, " days"]
    """Of the logarithms; NaN where a day has none."""
    visits: Float[np.ndarray, " days"]
    sd: float
    """Of a visit, what its sweep explains taken out; NaN with too few visits to tell."""
    df: int
    """Degrees of freedom of `sd`."""

    def error(self) -> Float[np.ndarray, " days"]:
        """Return the standard error of each day's mean."""
        with np.errstate(divide="ignore"):
            return self.sd / np.sqrt(np.where(self.visits > 0, self.visits, np.nan))


class Change(NamedTuple):
    """Two neighbours that differ."""

    before: int
    """Index of the day before."""
    after: int
    log_ratio: float
    low: float
    """Lower end of the 95 % interval of the log-ratio, not corrected for other comparisons."""
    high: float
    p: float
    """Of "no change", after Holm over all neighbours of all series."""


def points(logs: Float[np.ndarray, "days sweeps"]) -> Points:
    """Return each day's mean, and what a visit varies by: days and sweeps, as a two-way layout.

    A sweep is what all days were visited in, in random order, beside one worker of the reference:
    what that worker's luck was is in all of them, and is taken out. All days share one variance.

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
    df = int(row.size - rank)
    rest = logs[have] - design @ fit
    sd = float(np.sqrt((rest**2).sum() / df)) if df > 0 else np.nan
    return Points(mean, visits, sd, df)


def changes(series: Sequence[Points], alpha: float = 0.05) -> list[list[Change]]:
    """Return where neighbouring days of each series differ, days without a value passed over.

    Holm over all neighbours of all series: any false alarm among them, with odds `alpha` at most.

    Raises:
        ValueError: `alpha` is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must be between 0 and 1")
    tests = []
    for number, each in enumerate(series):
        have = np.flatnonzero(~np.isnan(each.mean))
        for before, after in zip(have[:-1].tolist(), have[1:].tolist(), strict=True):
            if each.df > 0 and each.sd > 0:
                tests.append((number, before, after, *difference(each, before, after)))
    adjusted = holm(np.array([test[-1] for test in tests]))
    out: list[list[Change]] = [[] for _ in series]
    for (number, before, after, log_ratio, half, _), p in zip(tests, adjusted, strict=True):
        if p <= alpha:
            low, high = log_ratio - half, log_ratio + half
            out[number].append(Change(before, after, log_ratio, low, high, float(p)))
    return out


def difference(points: Points, before: int, after: int) -> tuple[float, float, float]:
    """Return the log-ratio of two days, half its 95 % interval, and p of "no difference"."""
    log_ratio = float(points.mean[after] - points.mean[before])
    error = points.sd * float(np.sqrt(1 / points.visits[before] + 1 / points.visits[after]))
    half = float(special.stdtrit(points.df, 0.975)) * error
    p = 2 * float(special.stdtr(points.df, -abs(log_ratio) / error))
    return log_ratio, half, p
