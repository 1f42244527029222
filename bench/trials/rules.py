"""Rules for the variance of an arm, which `bench.trials.simulation` compares.

Each takes and returns what `bench.stats.spread.Rule` says.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from bench.stats import spread
from bench.stats.spread import Rule, Spread

if TYPE_CHECKING:
    from jaxtyping import Float

    type Arms = Float[np.ndarray, " arms"]


def pooled_alone(own: Arms, df: Arms, more: Arms, total: float) -> Spread:
    """Return the mean variance for every arm: no arm is noisier than the rest."""
    del more  # the rule in use alone asks for it
    if not (df > 0).any():
        return Spread(np.full(df.shape, np.nan), np.zeros(df.shape), np.nan)
    mean = float(np.average(own, weights=df))
    return Spread(np.full(df.shape, mean), np.full(df.shape, total), mean)


def larger(own: Arms, df: Arms, more: Arms, total: float) -> Spread:
    """Return the larger variance, 1 / df interpolated: `nested._guarded` of the old engine."""
    pooled = pooled_alone(own, df, more, total)
    middle = spread.winsorised_mean(own, df) if (df > 0).any() else np.nan
    if not middle > 0:
        return pooled
    most = np.where(df > 0, np.maximum(own, middle), middle)
    weight = (middle / most) ** 2
    return Spread(most, 1 / (weight / total + (1 - weight) / np.where(df > 0, df, 1)), middle)


def moderated(own: Arms, df: Arms, more: Arms, total: float, *, robust: bool = False) -> Spread:
    """Return empirical-Bayes variances (Smyth 2004); `robust`: as in Phipson et al. (2016).

    The robust one is simplified: its prior comes from variances that are cut at the 5 and 90 %
    quantiles, and an arm's prior degrees of freedom shrink with the odds that it is an outlier.
    """
    known = df > 0
    if known.sum() < 3:
        return pooled_alone(own, df, more, total)
    free = np.where(known, df, 1.0)
    centre = spread.winsorised_mean(own, df) if robust else np.nan
    seen, of = own[known], df[known]
    if robust:
        seen = np.clip(seen, *(centre * special.chdtri(of, odds) / of for odds in (0.95, 0.1)))
    logs = np.log(np.maximum(seen, 1e-9)) - special.digamma(of / 2) + np.log(of / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, of / 2).mean()
    prior = min(2 * trigamma_inverse(excess), total) if excess > 0 else total
    if not robust:
        shift = special.digamma(prior / 2) - np.log(prior / 2)
        centre = float(np.exp(logs.mean() + shift)) if excess > 0 else float(seen @ of / of.sum())
    weight = np.full(df.shape, prior)
    if robust:
        tail = np.where(known, special.fdtrc(free, prior, own / centre), 1.0)
        rank = np.argsort(np.argsort(tail))
        weight *= np.minimum(tail / ((rank + 0.5) / rank.size), 1)
    variance = (weight * centre + df * own * known) / (weight + df)
    return Spread(variance, np.minimum(weight + df, total), centre)


def trigamma_inverse(value: float) -> float:
    """Return where the trigamma function has a value (Smyth 2004, appendix)."""
    at = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, at))
        at += trigamma * (1 - trigamma / value) / float(special.polygamma(2, at))
    return at


RULES: dict[str, Rule] = {
    "shared unless noisy": spread.shared_unless_noisy,
    "pooled alone": pooled_alone,
    "larger of both": larger,
    "moderated": moderated,
    "moderated, robust": partial(moderated, robust=True),
}
