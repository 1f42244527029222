"""Variances of arms: pooled, unless an arm is noisier than the rest, and sums of several.

With a noisy arm, the pooled variance alone and moderated ones (Smyth 2004; Phipson et al. 2016)
find too many differences in simulations; the larger of pooled and own does not, but is wider than
`pool_unless_noisy`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    type Arms = Float[np.ndarray, " arms"]

TAIL_SHARE = 0.1
"""Tail probability of a normal arm's variance beyond which the mean variance cuts it off."""
LIKELY_BY_CHANCE = 0.5
"""p-value below which an arm's own variance counts, not the pooled one alone."""
MOST_BORROWED = 4.0
"""Factor that limits degrees of freedom: an arm with d of its own has at most 4 d^2, the others'
included."""


class MeanSquares(NamedTuple):
    """Mean squares of each arm's residuals: of blocks within workers, or of workers."""

    mean: Arms
    """Variance of each arm; undefined where `df` is zero."""
    df: Arms
    """Degrees of freedom of each arm's variance."""
    total: float
    """Degrees of freedom of all together."""


def pool_unless_noisy(squares: MeanSquares, more: Arms) -> tuple[Arms, Arms, float]:
    """Return each arm's variance: the pooled one, or between that and its own if that is larger.

    The weight of the pooled one is the probability of an own variance as large as this by chance (F
    test), divided by `LIKELY_BY_CHANCE` and at most 1. The inverse of the degrees of freedom is
    interpolated, since a t quantile is nearly linear in it.

    Args:
        squares: Own variances.
        more: Degrees of freedom with which other data have shown the arm to be like the rest.

    Returns:
        Variances, NaN where nothing is known; their degrees of freedom, 0 there; the pooled one.
    """
    variances, df, total = squares
    known = df > 0
    if not known.any():
        return np.full(df.shape, np.nan), np.zeros(df.shape), np.nan
    pooled = average_variances(variances, df)
    larger = np.where(known, np.maximum(variances, pooled), pooled)
    if pooled == 0:
        return larger, np.full(df.shape, total), 0.0
    free = np.where(known, df, 1.0)
    chance = special.fdtrc(free, np.maximum(total - df, 1e-9), larger / pooled)
    chance = np.where(known & (variances > pooled * (1 + 1e-9)), chance, 1.0)
    weight = np.minimum(chance / LIKELY_BY_CHANCE, 1)
    borrowed = np.minimum(total, MOST_BORROWED * (df + more) ** 2)
    borrowed = np.where(known, np.maximum(borrowed, df), total)
    variance = weight * pooled + (1 - weight) * larger
    return variance, 1 / (weight / borrowed + (1 - weight) / free), pooled


def average_variances(variances: Arms, df: Arms) -> float:
    """Return the arms' mean variance, in which the largest ones count less.

    Huber's M-estimate of a scale: values above the 90 % quantile of chi-squared / df times the
    result count as that, which the expected value of such a variable corrects. Fewer than three
    have the plain mean: of two that differ, either may be the unusual one.

    Args:
        variances: Variance of each arm.
        df: Its degrees of freedom; where zero, the arm is left out.
    """
    variances, df = variances[df > 0], df[df > 0]
    mean = float(np.average(variances, weights=df))
    if variances.size < 3 or mean == 0:
        return mean
    bound = special.chdtri(df, TAIL_SHARE) / df
    expected = float(df @ (special.chdtr(df + 2, df * bound) + bound * TAIL_SHARE))
    scale = mean
    for _ in range(100):
        last, scale = scale, float(df @ np.minimum(variances, bound * scale)) / expected
        if abs(scale - last) <= 1e-9 * mean:
            break
    return max(scale, 1e-6 * mean)


def sum_variances(parts: Sequence[tuple[float, float]], *, pooled: bool) -> tuple[float, float]:
    """Return the sum of independent variances, and its degrees of freedom.

    The latter are Satterthwaite's (1946, "An approximate distribution of estimates of variance
    components"); 0 where a variance is unknown.

    Args:
        parts: Variances, each with its degrees of freedom.
        pooled: Whether they may be one and the same estimate. Two that are the same keep its
            degrees of freedom, two that are not get too few.
    """
    some = [(variance, df) for variance, df in parts if variance > 0]
    total = sum(variance for variance, _ in some)
    if not some or math.isinf(total) or min(df for _, df in some) <= 0:
        return total, 0.0
    shares = [(variance / total, df) for variance, df in some]
    if pooled:
        return total, 1 / sum(share / math.sqrt(df) for share, df in shares) ** 2
    spread = sum(share**2 / df for share, df in shares)
    return total, 1 / spread if spread else math.inf
