"""From which size on a difference stops mattering, with the doubt of where that is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.ratios import Estimate

DRAWS = 4000


class Crossing(NamedTuple):
    """Where a ratio comes inside of the margin for good."""

    at: float
    """In the sizes' unit; infinite where it is outside at the largest size, the smallest size where
    it is inside throughout."""
    low: float
    high: float
    """Ends of the 95 % interval, which may lie at or beyond the sizes' ends too."""


def crossing(
    sizes: Sequence[float], estimates: Sequence[Estimate], margin: float, seed: int = 0
) -> Crossing:
    """Return the size from which on the ratio stays within the margin.

    Between sizes, the log-ratio is taken to be linear in the logarithm of the size. The interval is
    a parametric bootstrap (Efron & Tibshirani 1993, chapter 6.5): each size's log-ratio is drawn
    anew from its own t distribution.

    Args:
        sizes: Two at least, increasing, above zero.
        estimates: The ratio at each size.
        margin: Ratio minus one that does not matter.
        seed: Of the draws.
    """
    at = np.log(np.asarray(sizes, float))
    middle = np.array([estimate.log_ratio for estimate in estimates])
    errors = np.array([estimate.standard_error for estimate in estimates])
    df = np.array([max(estimate.df, 1.0) for estimate in estimates])
    bound = math.log1p(margin)
    found = math.exp(_cross(at, middle[None], bound)[0])
    if not np.isfinite(errors).all():
        return Crossing(found, float(sizes[0]), math.inf)
    drawn = middle + errors * np.random.default_rng(seed).standard_t(df, (DRAWS, len(df)))
    # Order statistics, not interpolated ones: some draws may never cross.
    crossed = np.sort(_cross(at, drawn, bound))
    low, high = crossed[int(0.025 * DRAWS)], crossed[math.ceil(0.975 * DRAWS) - 1]
    return Crossing(found, math.exp(low), math.exp(high))


def _cross(at: np.ndarray, ratios: np.ndarray, bound: float) -> np.ndarray:
    """Return by row the log-size at which the absolute log-ratio comes below `bound` for good."""
    away = np.abs(ratios)
    outside = away > bound
    last = away.shape[1] - 1 - np.argmax(outside[:, ::-1], axis=1)
    rows = np.arange(len(away))
    after = np.minimum(last + 1, away.shape[1] - 1)
    start, end = away[rows, last], away[rows, after]
    share = (start - bound) / np.where(start > end, start - end, 1.0)
    inside = at[last] + share * (at[after] - at[last])
    out = np.where(last == away.shape[1] - 1, np.inf, inside)
    return np.where(outside.any(axis=1), out, at[0])
