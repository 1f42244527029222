"""Ratios with simultaneous 95 % intervals: arms beside a reference, sides of an A/B, cold samples.

Noise is that of `components`, the variance of each arm is by `shared_unless_noisy`, the
intervals are those of `family`. How often they are wrong, with 1 to 25 arms, 1 to 25 workers of 1
to 4 blocks, heavy tails, missing blocks, a noisy arm and optional stopping, is simulated by `python
-m bench.trials.simulation`; results/selftest/simulation.md has the error rates.

These arguments mean the same in every function:

* `data`, blocks x arms: log of an arm's datum in a block, NaN where it has none;
* `worker`, by block: its worker or its pair of workers, any numbers;
* `reference`: columns of one program, one or more; blocks that lack one of them do not count;
* `members`: columns of the family, all that are compared unless given; the interval of any other
  arm is its own, not corrected.

An estimate is None for a reference, and for an arm without a block in common with all references.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import components, family
from bench.stats.estimates import Estimate as Estimate
from bench.stats.estimates import corrected as corrected
from bench.stats.estimates import detectable as detectable
from bench.stats.estimates import simultaneous

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "blocks arms"]
    type Workers = Int[np.ndarray, " blocks"]


class Contrasts(NamedTuple):
    """Differences between any two arms; all references are the column of the first."""

    log_ratio: Arms
    """To the reference; NaN for an arm that is not compared and for further references."""
    half_width: Float[np.ndarray, "arms arms"]
    """Of the corrected interval of a difference of two log-ratios; zero in the diagonal."""


def many_to_one(
    data: Table, worker: Workers, reference: Sequence[int], *, members: Sequence[int] | None = None
) -> list[Estimate | None]:
    """Return each arm's ratio to the mean of the references: Dunnett's test, single-step.

    With one worker, the variance between workers is known from how much two references differ
    there, with one degree of freedom; from a single reference it is not (an infinite interval).
    """
    return _beside(_fit(data, worker, reference), reference, members)


def pairwise(data: Table, worker: Workers, reference: Sequence[int]) -> Contrasts:
    """Return the differences between any two arms, and between these and the reference.

    To the reference they are those of `many_to_one`; between arms Tukey's (Kramer's, of unequal
    variances), and never wider than both intervals of `many_to_one` together, which hold at the
    same time.
    """
    fit = _fit(data, worker, reference)
    estimates = _beside(fit, reference, None)
    effect = np.full(len(estimates), np.nan)
    width = np.full((effect.size, effect.size), np.nan)
    here = reference[0]
    effect[here] = width[here, here] = 0.0
    compared = [arm for arm, estimate in enumerate(estimates) if estimate is not None]
    for arm, estimate in enumerate(estimates):
        if estimate is not None:
            effect[arm], width[arm, arm] = estimate.log_ratio, 0.0
            width[arm, here] = width[here, arm] = estimate.half_width
    if len(compared) > 1:
        tukey = family.all_pairs(len(compared), float(fit.df[compared].max()))
        for i, j in ((i, j) for i in compared for j in compared if i < j):
            error = math.sqrt(float(fit.variance[i] + fit.variance[j]))
            df = _joint_df(fit.variance[i], fit.df[i], fit.variance[j], fit.df[j])
            own = tukey.critical(float(df)) * error if error else 0.0
            width[i, j] = width[j, i] = min(own, width[i, here] + width[j, here])
    return Contrasts(effect, width)


def paired_sides(
    base: Table, new: Table, worker: Workers, *, members: Sequence[int] | None = None
) -> list[Estimate | None]:
    """Return each arm's ratio of the new side to the base: pairs of workers are the unit.

    What a pair has in common moves all its arms, so that their estimates are correlated; that
    correlation is estimated from the same pairs. One arm alone has a t test over pairs, with the
    variance between blocks as a lower bound. With one pair the interval is infinite.
    """
    difference = new - base
    some = ~np.isnan(difference).all(1)
    if not some.any():
        return [None] * base.shape[1]
    fit = components.of_pairs(difference[some], worker[some])
    used = np.flatnonzero(fit.blocks).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):
        share = fit.correlation * np.nan_to_num(np.min(fit.variance[used]) / fit.variance, nan=0.0)
    return simultaneous(fit, share, members, used)


def added(
    seconds: Table,
    worker: Workers,
    reference: Sequence[int],
    *,
    members: Sequence[int] | None = None,
) -> tuple[list[Estimate | None], float]:
    """Return what each arm adds to the references' time, as a part of that: workers are the unit.

    In each block it is a part of what the references take there: a core that another guest of the
    host slows down by half slows down both. Such parts are averaged within workers, and vary
    between them; they are scaled by the arm's own level, which makes the noise of all alike enough
    to pool. Differences in seconds vary far more where one worker is slower than the rest.

    `seconds` are an arm's datum in a block, not its log; NaN where it has none.

    Returns:
        By arm, the ratio 1 + added / level; and that level, the references' median in seconds:
        added = level * (ratio - 1), the interval's ends likewise. With one worker the interval is
        infinite.
    """
    reference = list(reference)
    used = ~np.isnan(seconds[:, reference]).any(1)
    if not used.any():
        return [None] * seconds.shape[1], math.nan
    seconds, worker = seconds[used], worker[used]
    beside = seconds[:, reference].mean(1)
    relative = seconds / beside[:, None]
    have = ~np.isnan(relative).all(0)
    scale = np.ones(have.size)
    scale[have] = np.nanmean(relative[:, have], 0)
    parts = (relative - 1) / scale
    parts[:, reference] = np.nan
    found = paired_sides(np.zeros_like(parts), parts, worker, members=members)
    return [
        each and each.of_differences(factor)
        for each, factor in zip(found, scale.tolist(), strict=True)
    ], float(np.median(beside))


def of_added(estimates: Sequence[Estimate | None], reference: Sequence[int]) -> Contrasts:
    """Return differences between any two arms of `added`, on the scale of ratios, not logs.

    The interval of a difference is as wide as both arms' together, which hold at the same time.
    """
    effect = np.array([math.nan if e is None else e.ratio for e in estimates])
    ends = [(1.0, 1.0) if e is None else e.interval for e in estimates]
    half = np.array([(high - low) / 2 for low, high in ends])
    effect[reference[0]] = 1.0
    width = half[:, None] + half
    np.fill_diagonal(width, 0.0)
    return Contrasts(effect, width)


def cold(samples: Sequence[Float[np.ndarray, " samples"]], reference: int) -> list[Estimate | None]:
    """Return each arm's ratio to the reference, from independent samples: a one-way layout.

    The interval is infinite where no arm has two samples.

    Args:
        samples: By arm, logs of one sample a process.
        reference: Index of an arm.
    """
    size = np.array([each.size for each in samples])
    if not size[reference]:
        return [None] * size.size
    df = np.maximum(size - 1, 0).astype(float)
    own = np.array([each.var(ddof=1) if each.size > 1 else 0.0 for each in samples])
    used = components.shared_unless_noisy(own, df, np.zeros(size.size), float(df.sum()))
    variance = np.where(used.df > 0, used.variance, np.inf) / np.where(size > 0, size, 1)
    effect = np.array([each.mean() if each.size else np.nan for each in samples])
    return _beside(components.Fit(effect, variance, used.df, size, size), [reference], None)


def _fit(data: Table, worker: Workers, reference: Sequence[int]) -> components.Fit:
    used = ~np.isnan(data[:, list(reference)]).any(1)
    if not used.any():
        none = np.zeros(data.shape[1])
        count = none.astype(int)
        return components.Fit(none, none + np.inf, none, count, count)
    return components.of_workers(data[used], worker[used], reference)


def _beside(
    fit: components.Fit, reference: Sequence[int], members: Sequence[int] | None
) -> list[Estimate | None]:
    """Return the estimates of all arms but the references, whose variance is in all of them."""
    of_reference = float(fit.variance[list(reference)].sum()) / len(reference) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    df = _joint_df(fit.variance, fit.df, of_reference, fit.df[reference[0]])
    effect = fit.effect - fit.effect[list(reference)].mean()
    used = [a for a in np.flatnonzero(fit.blocks).tolist() if a not in reference]
    return simultaneous(fit._replace(effect=effect, variance=total, df=df), share, members, used)


def _joint_df(first: Arms, first_df: Arms, second: Arms | float, second_df: Arms | float) -> Arms:
    """Return degrees of freedom of a sum of two variances that may be one estimate.

    Their standard deviations add up, not their variances as in Satterthwaite's formula: two that
    share an estimate keep its degrees of freedom, two that do not get too few.
    """
    total = np.asarray(first + second, float)
    usable = np.isfinite(total) & (np.minimum(first_df, second_df) > 0)
    one = np.where(usable & (total > 0), first / np.where(usable & (total > 0), total, 1), 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = one / np.sqrt(first_df) + (1 - one) / np.sqrt(second_df)
        return np.where(usable, 1 / spread**2, 0.0)
