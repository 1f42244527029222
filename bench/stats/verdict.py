"""What a family of estimates allows to be said: faster, slower, equivalent, or not known yet.

All metrics are costs: a ratio above one is slower.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

    from bench.stats.nested import Estimate

MOST_DETECTABLE = 9.0
"""Ratio minus one; a run that would miss more than that has seen nothing."""
MOST_BLOCKS = 1_000_000
"""More than that is no advice: no number is given."""


class Verdict(StrEnum):
    """What is said about an arm beside the baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """The ratio is inside the margin, whatever it is exactly."""
    INCONCLUSIVE = "inconclusive"


class Judgement(NamedTuple):
    """A verdict, and how near it was."""

    verdict: Verdict
    p_adjusted: float
    """Of "no difference", after Holm over the family."""
    more_blocks: int | None
    """How many more blocks, spread over as many more processes, would settle it if the ratio is
    what it looks like: then the odds of a verdict are about even. None for a settled one, and where
    no number can be told."""


def holm(p: Float[np.ndarray, " n"], more: int = 0) -> Float[np.ndarray, " n"]:
    """Return adjusted p-values: rejecting those up to alpha is wrong anywhere with at most alpha.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the dependence
    between the tests, which here share a baseline.

    Args:
        p: Of each test.
        more: Further tests, whose p is larger than all of these.

    Raises:
        ValueError: A value outside of 0 to 1.
    """
    p = np.asarray(p, float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be between 0 and 1; found {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = p[order] * np.arange(p.size + more, more, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def judge(
    estimates: Sequence[Estimate], margin: float = 0.02, alpha: float = 0.05, *, more: bool = True
) -> list[Judgement]:
    """Return the verdicts of one family.

    A difference that is significant after Holm is said first, also where it lies inside the margin;
    what is left may be equivalent: two one-sided tests, with Holm over the family too. (Not over
    what is left: how many that are is seen in the same data.)

    Args:
        estimates: All that are compared in one run.
        margin: Ratio minus one up to which two times are called equivalent.
        alpha: Odds of any false difference in the family, and of any false equivalence.
        more: Whether to work out how many more blocks would settle what is inconclusive.

    Raises:
        ValueError: `margin` is not above 0, or `alpha` is not between 0 and 1.
    """
    _check(alpha=alpha)
    different = holm(np.array([e.p_value() for e in estimates]))
    equivalent = holm(np.array([e.p_outside(margin) for e in estimates]))
    thresholds = [alpha / max(int((p > alpha).sum()), 1) for p in (different, equivalent)]
    out = []
    for estimate, p, q in zip(estimates, different.tolist(), equivalent.tolist(), strict=True):
        needed = None
        if p <= alpha:
            verdict = Verdict.SLOWER if estimate.log_ratio > 0 else Verdict.FASTER
        elif q <= alpha:
            verdict = Verdict.EQUIVALENT
        else:
            verdict = Verdict.INCONCLUSIVE
            needed = _more_blocks(estimate, margin, *thresholds) if more else None
        out.append(Judgement(verdict, p, needed))
    return out


def detectable(
    control: Estimate, comparisons: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest difference, as ratio minus one, that this run would have called.

    (t(1 - alpha / 2 m) + t(power)) standard errors: the minimum detectable effect (Bloom 1995,
    "Minimum detectable effects") at Holm's first step, which is the one for a lone difference.

    Args:
        control: The A/A control; its standard error is that of an arm which differs in nothing.
        comparisons: Size m of the family.
        alpha: Of the family.
        power: Odds that the difference is called.

    Returns:
        Infinity where the standard error is unknown, or so poorly known that a factor of ten
        would go unseen.

    Raises:
        ValueError: `comparisons` below 1, `alpha` or `power` not between 0 and 1.
    """
    _check(alpha=alpha, power=power)
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}; there must be at least one")
    if math.isinf(control.standard_error):
        return math.inf
    if control.standard_error == 0:
        return 0.0
    needed = special.stdtrit(control.df, [1 - alpha / (2 * comparisons), power]).sum()
    with np.errstate(over="ignore"):
        found = float(np.expm1(needed * control.standard_error))
    return found if found <= MOST_DETECTABLE else math.inf


def tie_groups(intervals: Mapping[str, tuple[float, float, float]]) -> list[list[str]]:
    """Return names from fast to slow, in groups instead of ranks.

    A group begins with the fastest that is left, and takes in who follows as long as its interval
    overlaps those of all members: no two of a group are told apart. It is cautious: intervals are
    to a common baseline, whose noise is in both, so two whose intervals overlap may well differ.

    Args:
        intervals: Ratio, lower end and upper end by name; the baseline's are all 1.
    """
    groups: list[list[str]] = []
    for name in sorted(intervals, key=lambda name: intervals[name][0]):
        _, low, high = intervals[name]
        group = [intervals[member] for member in groups[-1]] if groups else []
        if group and all(low <= end[2] and high >= end[1] for end in group):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _more_blocks(
    estimate: Estimate, margin: float, p_different: float, p_equivalent: float
) -> int | None:
    """Return how many more blocks make the odds of an answer even, whichever it is.

    Blocks and processes grow together: standard errors shrink with the square root of their number,
    degrees of freedom grow with it. The truth is taken to be what the estimate is.
    """
    if math.isinf(estimate.standard_error):
        return None

    def settled(more: int) -> bool:
        growth = 1 + more / estimate.blocks
        df, error = estimate.df * growth, estimate.standard_error / math.sqrt(growth)
        away = abs(estimate.log_ratio) / error
        different = special.stdtr(df, away - special.stdtrit(df, 1 - p_different / 2))
        room = math.log1p(margin) / error - special.stdtrit(df, 1 - p_equivalent)
        equivalent = special.stdtr(df, room - away) + special.stdtr(df, room + away) - 1
        return bool(different + max(equivalent, 0.0) >= 0.5)

    more = bisect_left(range(1, MOST_BLOCKS + 1), True, key=settled) + 1
    return more if more <= MOST_BLOCKS else None


def _check(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; it must be between 0 and 1")
