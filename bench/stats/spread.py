"""One variance for several arms, and what an arm that is noisier than the rest says against it.

Simulated with one of two arms four times noisier, 4 workers of 6 blocks, 400 runs (`python -m
bench.trials.simulation comparison`), false calls were 15.8 % with the pooled variance alone, 7.2 %
with a moderated one (Smyth 2004), 5.8 % with a robust moderated one (after Phipson et al. 2016),
2.2 % with the larger of pooled and own, and 3.2 % with `shared_unless_noisy`. With 2 workers of one
block they were 16.0, 12.8, 12.8, 8.2 and 5.5 %. Where all arms were alike, with 4 workers of 6,
intervals were 1.04, 1.07, 1.08, 1.20 and 1.15 % wide (half), so that `shared_unless_noisy` was the
narrowest of the rules that keep to 5 %, but for what chance adds to 400 runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from jaxtyping import Float

    type Arms = Float[np.ndarray, " arms"]

TAIL = 0.1
"""Share of the largest variances whose size does not count: only that they are large."""
LIKELY = 0.5
"""An arm's own variance counts from the odds on at which chance alone gives one so large."""
BORROWED = 4.0
"""An arm with d degrees of freedom of its own has at most 4 d^2, the others' included."""


class Spread(NamedTuple):
    """Variances to use."""

    variance: Arms
    """At least the pooled one; NaN where nothing is known."""
    df: Arms
    """Zero where nothing is known."""
    pooled: float


def shared_unless_noisy(own: Arms, df: Arms, more: Arms, total: float) -> Spread:
    """Return the pooled variance, or between that and the own one where this is larger.

    The weight of the pooled one is the probability of an own variance as large as this by chance (F
    test), divided by `LIKELY` and at most 1. What is interpolated of the degrees of freedom is
    their inverse, since a t quantile is nearly linear in that.

    Args:
        own: Variance of each arm; whatever where `df` is zero.
        df: Its degrees of freedom.
        more: Degrees of freedom with which other data have shown the arm to be like the rest.
        total: Degrees of freedom of all together.
    """
    if not (df > 0).any():
        return Spread(np.full(df.shape, np.nan), np.zeros(df.shape), np.nan)
    known, free = df > 0, np.where(df > 0, df, 1.0)
    pooled = winsorised_mean(own, df)
    larger = np.where(known, np.maximum(own, pooled), pooled)
    if pooled == 0:
        return Spread(larger, np.full(df.shape, total), 0.0)
    rest = np.maximum(total - df, 1e-9)
    chance = special.fdtrc(free, rest, larger / pooled)
    chance = np.where(known & (own > pooled * (1 + 1e-9)), chance, 1.0)
    weight = np.minimum(chance / LIKELY, 1)
    borrowed = np.minimum(total, BORROWED * (df + more) ** 2)
    borrowed = np.where(known, np.maximum(borrowed, df), total)
    variance = weight * pooled + (1 - weight) * larger
    return Spread(variance, 1 / (weight / borrowed + (1 - weight) / free), pooled)


def winsorised_mean(own: Arms, df: Arms) -> float:
    """Return the mean variance, to which no arm adds more than a tenth of all normal arms would.

    Huber's M-estimate of a scale: values above the 90 % quantile of chi-squared / df times the
    result count as that, which is made good by the expected value of such a variable. Of fewer than
    three, the plain mean: of two that differ, none is known to be the unusual one.

    Args:
        own: Variance of each arm.
        df: Its degrees of freedom; where zero, the arm is left out.
    """
    own, df = own[df > 0], df[df > 0]
    mean = float(np.average(own, weights=df))
    if own.size < 3 or mean == 0:
        return mean
    bound = special.chdtri(df, TAIL) / df
    expected = float(df @ (special.chdtr(df + 2, df * bound) + bound * TAIL))
    scale = mean
    for _ in range(100):
        last, scale = scale, float(df @ np.minimum(own, bound * scale)) / expected
        if abs(scale - last) <= 1e-9 * mean:
            break
    return max(scale, 1e-6 * mean)
