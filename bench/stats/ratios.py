"""Ratios with simultaneous 95 % intervals: arms beside a reference, sides of an A/B, cold samples.

Noise is that of `components`, the variance of each arm is by `spread.shared_unless_noisy`, the
intervals are those of `family`. How often they are wrong, with 1 to 25 arms, 1 to 25 workers of 1
to 4 blocks, heavy tails, missing blocks, a noisy arm and optional stopping, is simulated by `python
-m bench.trials.simulation`; results/selftest/simulation.md has what came of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import components, family
from bench.stats.estimates import ALPHA, half_width, simultaneous
from bench.stats.estimates import Estimate as Estimate
from bench.stats.estimates import corrected as corrected
from bench.stats.estimates import detectable as detectable
from bench.stats.spread import Rule, shared_unless_noisy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int, Shaped

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "blocks arms"]


class Contrasts(NamedTuple):
    """Differences between any two arms; all references are the column of the first."""

    log_ratio: Arms
    """To the reference; NaN for an arm that is not compared and for further references."""
    half_width: Float[np.ndarray, "arms arms"]
    """Of the corrected interval of a difference of two log-ratios; zero in the diagonal."""


def many_to_one(
    data: Table,
    worker: Int[np.ndarray, " blocks"],
    reference: Sequence[int],
    *,
    alpha: float = ALPHA,
    members: Sequence[int] | None = None,
    rule: Rule = shared_unless_noisy,
) -> list[Estimate | None]:
    """Return each arm's ratio to the mean of the references: Dunnett's test, single-step.

    Args:
        data: Logs of an arm's datum in a block; NaN where it has none. Blocks without a datum of
            every reference are left out.
        worker: Which worker each block belongs to, any numbers.
        reference: Columns of the same program, one or more.
        alpha: Odds of any false difference in the family.
        members: Columns of the family; the others get intervals of their own, not corrected. All
            but the references, unless given.
        rule: How own variances become the ones to use.

    Returns:
        By arm; None for a reference, and for an arm without a block in common with them. With one
        worker, what workers vary by is known from how much two references differ there: one degree
        of freedom, and from a single reference not at all (an infinite interval).

    Raises:
        ValueError: Shapes that do not fit, an infinite datum, no such column, a bad `alpha`.
    """
    fit, reference = _fit_workers(data, worker, reference, rule)
    total, share, df = _beside(fit, reference)
    effect = fit.effect - fit.effect[reference].mean()
    used = [a for a in range(total.size) if a not in reference and fit.blocks[a]]
    return simultaneous(fit, effect, total, df, share, _members(members, used), used, alpha)


def pairwise(
    data: Table,
    worker: Int[np.ndarray, " blocks"],
    reference: Sequence[int],
    *,
    alpha: float = ALPHA,
    members: Sequence[int] | None = None,
    rule: Rule = shared_unless_noisy,
) -> Contrasts:
    """Return the differences between any two members, and between these and the reference.

    To the reference they are those of `many_to_one`; between members Tukey's (Kramer's, of unequal
    variances), and never wider than both intervals of `many_to_one` together, which hold at the
    same time. Arguments and errors are those of `many_to_one`.
    """
    estimates = many_to_one(data, worker, reference, alpha=alpha, members=members, rule=rule)
    fit, reference = _fit_workers(data, worker, reference, rule)
    used = _members(members, [a for a, e in enumerate(estimates) if e is not None])
    effect = np.full(len(estimates), np.nan)
    width = np.full((effect.size, effect.size), np.nan)
    here = reference[0]
    effect[here] = width[here, here] = 0.0
    for arm in used:
        estimate = estimates[arm]
        assert estimate is not None
        effect[arm], width[arm, arm] = estimate.log_ratio, 0.0
        width[arm, here] = width[here, arm] = estimate.half_width
    if len(used) > 1:
        tukey = family.all_pairs(len(used), float(fit.df[used].max()))
        for i, j in ((i, j) for i in used for j in used if i < j):
            total = float(fit.variance[i] + fit.variance[j])
            df = _joint_df(fit.variance[i], fit.df[i], fit.variance[j], fit.df[j])
            own = half_width(tukey, float(df), math.sqrt(total), alpha)
            width[i, j] = width[j, i] = min(own, width[i, here] + width[j, here])
    return Contrasts(effect, width)


def paired_sides(
    base: Table,
    new: Table,
    pair: Int[np.ndarray, " blocks"],
    *,
    alpha: float = ALPHA,
    members: Sequence[int] | None = None,
    rule: Rule = shared_unless_noisy,
) -> list[Estimate | None]:
    """Return each arm's ratio of the new side to the base: pairs of workers are the unit.

    What a pair has in common moves all its arms, so that their estimates are correlated; that
    correlation is estimated from the same pairs. One arm alone has a t test over pairs, with the
    variance between blocks as a lower bound.

    Args:
        base: Logs of an arm's datum in a block; NaN where it has none.
        new: The same of the other side, by the same numbers of blocks.
        pair: Which pair of workers each block belongs to, any numbers.
        alpha: Odds of any false difference in the family.
        members: Columns of the family; the others get intervals of their own, not corrected.
        rule: How own variances become the ones to use.

    Returns:
        By arm; None for an arm without a block that both sides have. With one pair the interval is
        infinite.

    Raises:
        ValueError: Shapes that do not fit, an infinite datum, no such column, a bad `alpha`.
    """
    base, pair = _checked(base, pair)
    new, _ = _checked(new, pair)
    if base.shape != new.shape:
        raise ValueError(f"base has shape {base.shape} and new {new.shape}; they must agree")
    difference = new - base
    some = ~np.isnan(difference).all(1)
    if not some.any():
        return [None] * base.shape[1]
    fit = components.of_pairs(difference[some], pair[some], rule)
    used = np.flatnonzero(fit.blocks).tolist()
    with np.errstate(invalid="ignore", divide="ignore"):
        share = fit.correlation * np.nan_to_num(np.min(fit.variance[used]) / fit.variance, nan=0.0)
    return simultaneous(
        fit, fit.effect, fit.variance, fit.df, share, _members(members, used), used, alpha
    )


def added(
    seconds: Table,
    worker: Int[np.ndarray, " blocks"],
    reference: Sequence[int],
    *,
    alpha: float = ALPHA,
    members: Sequence[int] | None = None,
    rule: Rule = shared_unless_noisy,
) -> tuple[list[Estimate | None], float]:
    """Return what each arm adds to the references' time, as a part of that: workers are the unit.

    The seconds of a style beside those of plain JAX are a difference, not a factor, and vary with
    all that the worker's core does: so differences are averaged within workers, and vary between
    them. They are scaled by the arm's own level, which makes the noise of all alike enough to pool.

    Args:
        seconds: An arm's datum in a block; NaN where it has none. Blocks without a datum of every
            reference are left out.
        worker: Which worker each block belongs to, any numbers.
        reference: Columns of the same program, one or more.
        alpha: Odds of any false difference in the family.
        members: Columns of the family; the others get intervals of their own, not corrected. All
            but the references, unless given.
        rule: How own variances become the ones to use.

    Returns:
        By arm, with the ratio 1 + added / level (None for a reference, and for an arm without a
        block in common with them), and that level in seconds: added = level * (ratio - 1), the
        interval's ends likewise. With one worker the interval is infinite.

    Raises:
        ValueError: Shapes that do not fit, a time that is not above 0, no such column, a bad
            `alpha`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        _checked(np.log(np.where(np.asarray(seconds) >= 0, seconds, np.nan)), worker)
    reference = _known(reference, seconds.shape[1])
    used = ~np.isnan(seconds[:, reference]).any(1)
    if not used.any():
        return [None] * seconds.shape[1], math.nan
    seconds, worker = seconds[used], np.asarray(worker)[used]
    beside = seconds[:, reference].mean(1)
    level = float(np.mean([beside[worker == each].mean() for each in np.unique(worker)]))
    have = ~np.isnan(seconds).all(0)
    scale = np.ones(have.size)
    scale[have] = np.nanmean(seconds[:, have], 0)
    parts = (seconds - beside[:, None]) / scale
    parts[:, reference] = np.nan
    found = paired_sides(
        np.zeros_like(parts), parts, worker, alpha=alpha, members=members, rule=rule
    )
    return [
        each and each.of_differences(factor / level)
        for each, factor in zip(found, scale.tolist(), strict=True)
    ], level


def of_added(estimates: Sequence[Estimate | None], reference: Sequence[int]) -> Contrasts:
    """Return differences between any two arms of `added`, on the scale of ratios, not logs.

    The interval of a difference is as wide as both arms' together, which hold at the same time.

    Args:
        estimates: By arm.
        reference: Columns.
    """
    effect = np.array([math.nan if e is None else e.ratio for e in estimates])
    ends = [(1.0, 1.0) if e is None else e.interval for e in estimates]
    half = np.array([(high - low) / 2 for low, high in ends])
    effect[reference[0]] = 1.0
    width = half[:, None] + half
    np.fill_diagonal(width, 0.0)
    return Contrasts(effect, width)


def cold(
    samples: Sequence[Float[np.ndarray, " samples"]],
    reference: int,
    *,
    alpha: float = ALPHA,
    members: Sequence[int] | None = None,
    rule: Rule = shared_unless_noisy,
) -> list[Estimate | None]:
    """Return each arm's ratio to the reference, from independent samples: a one-way layout.

    Args:
        samples: By arm, logs of one sample a process.
        reference: Arm.
        alpha: Odds of any false difference in the family.
        members: Arms of the family; the others get intervals of their own, not corrected.
        rule: How own variances become the ones to use.

    Returns:
        By arm; None for the reference, and for an arm without samples, or where the reference has
        none. The interval is infinite where no arm has two samples.

    Raises:
        ValueError: A sample that is not finite, no such arm, a bad `alpha`.
    """
    values = [np.asarray(each, float).ravel() for each in samples]
    _known([reference], len(values))
    if not all(np.isfinite(each).all() for each in values):
        raise ValueError("logs of samples must be finite: leave out what was not measured")
    size = np.array([each.size for each in values])
    if not size[reference]:
        return [None] * size.size
    df = np.maximum(size - 1, 0).astype(float)
    own = np.array([each.var(ddof=1) if each.size > 1 else 0.0 for each in values])
    spread = rule(own, df, np.zeros(size.size), float(df.sum()))
    some = spread.df > 0
    variance = np.where(some, spread.variance, np.inf) / np.where(size > 0, size, 1)
    effect = np.array([each.mean() if each.size else np.nan for each in values])
    fit = components.Fit(effect, variance, spread.df, size, size)
    total, share, joint = _beside(fit, [reference])
    used = [a for a in np.flatnonzero(size).tolist() if a != reference]
    effect = effect - effect[reference]
    return simultaneous(fit, effect, total, joint, share, _members(members, used), used, alpha)


def _fit_workers(
    data: Table, worker: Int[np.ndarray, " blocks"], reference: Sequence[int], rule: Rule
) -> tuple[components.Fit, list[int]]:
    data, worker = _checked(data, worker)
    reference = _known(reference, data.shape[1])
    used = ~np.isnan(data[:, reference]).any(1)
    if not used.any():
        none = np.zeros(data.shape[1])
        count = none.astype(int)
        return components.Fit(none, none + np.inf, none, count, count), reference
    return components.of_workers(data[used], worker[used], reference, rule), reference


def _beside(fit: components.Fit, reference: list[int]) -> tuple[Arms, Arms, Arms]:
    """Return variance of each arm's contrast, the reference's share of it, degrees of freedom."""
    of_reference = float(fit.variance[reference].sum()) / len(reference) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    df = _joint_df(fit.variance, fit.df, of_reference, fit.df[reference[0]])
    return total, share, df


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


def _checked(
    data: Table, worker: Shaped[np.ndarray, " blocks"]
) -> tuple[Table, Int[np.ndarray, " blocks"]]:
    data, worker = np.asarray(data, float), np.asarray(worker)
    if data.ndim != 2 or worker.shape != data.shape[:1]:
        raise ValueError(
            f"data have shape {data.shape} and workers {worker.shape}; "
            "they must be (blocks, arms) and (blocks,)"
        )
    if np.isinf(data).any():
        block, arm = np.argwhere(np.isinf(data))[0].tolist()
        raise ValueError(
            f"arm {arm} in block {block} is {data[block, arm]}; it must be the log of a positive "
            "time, or NaN where there is none"
        )
    return data, worker


def _known(columns: Sequence[int], arms: int) -> list[int]:
    if not columns or not all(0 <= column < arms for column in columns):
        raise ValueError(f"reference is {list(columns)}; it must be of the {arms} arms")
    return list(columns)


def _members(members: Sequence[int] | None, used: list[int]) -> list[int]:
    return used if members is None else [arm for arm in used if arm in members]
