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
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import components, family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float, Int

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "blocks arms"]
    type Workers = Int[np.ndarray, " blocks"]


class Contrasts(NamedTuple):
    """Differences of logarithms, by arm, with intervals that hold for the family together."""

    log_ratio: Arms
    """Above zero: slower. NaN for a reference, and for an arm that shares no block with all
    references."""
    standard_error: Arms
    """Infinite where nothing is known about it."""
    df: Arms
    """Degrees of freedom of the standard error; zero where that is infinite."""
    low: Arms
    """Ends of the interval of the log-ratio."""
    high: Arms
    p: Arms
    """Probability of no difference, adjusted: below 5 % just where the interval leaves out zero."""
    blocks: Int[np.ndarray, " arms"]
    """That the arm was measured in; of a cold metric, its samples."""
    workers: Int[np.ndarray, " arms"]
    """Or pairs of workers."""

    @property
    def known(self) -> Bool[np.ndarray, " arms"]:
        """The arms that have a comparison."""
        return ~np.isnan(self.log_ratio)

    def of_differences(self, factor: Arms) -> Contrasts:
        """Return the logarithms of 1 + factor * x, of differences x, with the same intervals of x.

        Args:
            factor: Above zero, by arm.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            middle, low, high = (
                np.where(factor * x > -1, np.log1p(np.maximum(factor * x, -1)), -np.inf)
                for x in (self.log_ratio, self.low, self.high)
            )
            middle = np.where(self.known, middle, np.nan)
            error = self.standard_error * factor / np.maximum(np.exp(middle), math.ulp(0.0))
        return self._replace(log_ratio=middle, low=low, high=high, standard_error=error)


def many_to_one(
    data: Table, worker: Workers, reference: Sequence[int], *, members: Sequence[int] | None = None
) -> Contrasts:
    """Return each arm's ratio to the mean of the references: Dunnett's test, single-step.

    With one worker, the variance between workers is known from how much two references differ
    there, with one degree of freedom; from a single reference it is not (an infinite interval).
    """
    reference = list(reference)
    used = ~np.isnan(data[:, reference]).any(1)
    if not used.any():
        return _nothing(data.shape[1])
    fit = components.of_workers(data[used], worker[used], reference)
    return _beside(fit, reference, members)


def paired_sides(
    base: Table, new: Table, worker: Workers, *, members: Sequence[int] | None = None
) -> Contrasts:
    """Return each arm's ratio of the new side to the base: pairs of workers are the unit.

    What a pair has in common moves all its arms, so that their estimates are correlated; that
    correlation is estimated from the same pairs. One arm alone has a t test over pairs, with the
    variance between blocks as a lower bound. With one pair the interval is infinite.
    """
    difference = new - base
    some = ~np.isnan(difference).all(1)
    if not some.any():
        return _nothing(base.shape[1])
    fit = components.of_pairs(difference[some], worker[some])
    used = np.flatnonzero(fit.blocks).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):
        share = fit.correlation * np.nan_to_num(np.min(fit.variance[used]) / fit.variance, nan=0.0)
    return _simultaneous(fit, share, members, used)


def added(
    seconds: Table,
    worker: Workers,
    reference: Sequence[int],
    *,
    members: Sequence[int] | None = None,
) -> tuple[Contrasts, float]:
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
        return _nothing(seconds.shape[1]), math.nan
    seconds, worker = seconds[used], worker[used]
    beside = seconds[:, reference].mean(1)
    relative = seconds / beside[:, None]
    have = ~np.isnan(relative).all(0)
    scale = np.ones(have.size)
    scale[have] = np.nanmean(relative[:, have], 0)
    parts = (relative - 1) / scale
    parts[:, reference] = np.nan
    contrasts = paired_sides(np.zeros_like(parts), parts, worker, members=members)
    return contrasts.of_differences(scale), float(np.median(beside))


def cold(samples: Sequence[Float[np.ndarray, " samples"]], reference: int) -> Contrasts:
    """Return each arm's ratio to the reference, from independent samples: a one-way layout.

    The interval is infinite where no arm has two samples.

    Args:
        samples: By arm, logs of one sample a process.
        reference: Index of an arm.
    """
    size = np.array([logs.size for logs in samples])
    if not size[reference]:
        return _nothing(size.size)
    df = np.maximum(size - 1, 0).astype(float)
    own = np.array([logs.var(ddof=1) if logs.size > 1 else 0.0 for logs in samples])
    used = components.shared_unless_noisy(own, df, np.zeros(size.size), float(df.sum()))
    variance = np.where(used.df > 0, used.variance, np.inf) / np.where(size > 0, size, 1)
    effect = np.array([logs.mean() if logs.size else np.nan for logs in samples])
    return _beside(components.Fit(effect, variance, used.df, size, size), [reference], None)


def _beside(
    fit: components.Fit, reference: Sequence[int], members: Sequence[int] | None
) -> Contrasts:
    """Return the contrasts of all arms but the references, whose variance is in all of them."""
    of_reference = float(fit.variance[list(reference)].sum()) / len(reference) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    df = _joint_df(fit.variance, fit.df, of_reference, fit.df[reference[0]])
    effect = fit.effect - fit.effect[list(reference)].mean()
    used = [a for a in np.flatnonzero(fit.blocks).tolist() if a not in reference]
    return _simultaneous(fit._replace(effect=effect, variance=total, df=df), share, members, used)


def _simultaneous(
    fit: components.Fit, share: Arms, members: Sequence[int] | None, used: Sequence[int]
) -> Contrasts:
    """Return contrasts with intervals for the family of the members, the others alone.

    Args:
        fit: Log-ratio of each arm and its variance.
        share: Of the variance, the part that all arms have in common.
        members: Of the family; all unless given.
        used: All arms that are compared.
    """
    out = _nothing(fit.effect.size)
    together = [arm for arm in used if members is None or arm in members]
    for arms in filter(None, [together, *([arm] for arm in used if arm not in together)]):
        tests = family.many_to_one(share[arms].tolist(), float(fit.df[arms].max()))
        for arm in arms:
            middle, error = float(fit.effect[arm]), math.sqrt(fit.variance[arm])
            df = float(fit.df[arm])
            half = tests.critical(df) * error if error else 0.0
            p = tests.p(middle / error, df) if error else float(middle == 0)
            out.log_ratio[arm], out.standard_error[arm], out.df[arm] = middle, error, df
            out.low[arm], out.high[arm] = middle - half, middle + half
            out.p[arm] = p if math.isfinite(error) else 1.0
            out.blocks[arm], out.workers[arm] = fit.blocks[arm], fit.workers[arm]
    return out


def _nothing(arms: int) -> Contrasts:
    """Return contrasts of arms of which nothing is known."""
    nan, count = np.full(arms, np.nan), np.zeros(arms, int)
    endless = np.full(arms, np.inf)
    zero, one = np.zeros(arms), np.ones(arms)
    return Contrasts(nan, endless, zero, -endless, endless.copy(), one, count, count.copy())


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
