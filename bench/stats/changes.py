"""Differences of estimates that were made apart: of two runs, and of neighbours in a history.

Each estimate knows what its own workers and blocks vary by. Between two runs more changes: other
guests of the host, where memory lies, how hot the processor is. That is a `Spread`, which a
difference adds to what both know.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from scipy import special

from bench.estimates import MARGIN, PROGRAM, Estimate, Verdict
from bench.stats.components import MAD
from bench.stats.estimate import exp, finite
from bench.stats.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jaxtyping import Float

ALPHA = 0.05
"""Odds of any false change among all comparisons that are made together: the usual level."""
TINIEST = 1e-18
"""Variance of a logarithm, so that none is zero where it divides."""
LONG = 16
"""Points of a series from which on its own differences tell what it wanders by."""
EFFICIENCY = 0.37
"""Degrees of freedom of a median absolute deviation, as a fraction of those of a standard deviation
from as many values: its efficiency for normal data."""


class Spread(NamedTuple):
    """What the same code's estimates differ by from run to run, beyond what each run knows."""

    sd: float
    """Standard deviation of the logarithm of one run's ratio. Two runs differ by the square root of
    two times as much."""
    df: float
    """Degrees of freedom that it is known with."""


NO_SPREAD = Spread(0.0, math.inf)
"""Of estimates that were measured in turns."""


def position(row: Estimate) -> float:
    """Return where a ratio lies: its logarithm."""
    return math.log(row.value)


def difference(
    bases: Sequence[Estimate],
    new: Estimate,
    spread: Spread = NO_SPREAD,
    *,
    comparisons: int = 1,
    pooled: bool = False,
    margin: float = MARGIN,
    least: Spread = NO_SPREAD,
) -> Estimate:
    """Return what a ratio is beside the same one of one base run, or of several of the same code.

    That is the ratio of both, by the difference of their logarithms. Several bases are weighted by
    what each knows. Degrees of freedom are Satterthwaite's (1946, "An approximate distribution of
    estimates of variance components").

    Args:
        bases: Ratios of one cell and metric; the last one gives the base its name.
        new: The same row of the new run.
        spread: What each run varies by, beyond what it knows.
        comparisons: That are made together: the interval and p are corrected for them (Bonferroni).
        pooled: Whether the rows' variances are one estimate: their degrees of freedom do not add.
        margin: Fraction within which two times are equivalent.
        least: Least standard deviation of the difference as a whole.
    """
    known = [row for row in bases if row.standard_error is not None] or list(bases)
    errors = [variance_of(row) for row in known]
    between = 0.0 if new.exact and not any(errors) else spread.sd**2
    weights = [1 / max(error + between, TINIEST) or 1.0 for error in errors]
    weights = [weight / sum(weights) for weight in weights]
    middle = position(new) - sum(w * position(row) for w, row in zip(weights, known, strict=True))
    parts = [
        *((w * w * e, row.df) for w, e, row in zip(weights, errors, known, strict=True)),
        (variance_of(new), new.df),
        (between * (1 + sum(w * w for w in weights)), spread.df),
    ]
    more = least.sd**2 - sum(variance for variance, _ in parts)
    if more > 0:
        parts.append((more, least.df))
    variance, df = summed(parts, pooled=pooled)
    half, p = math.inf, 1.0
    if not variance:
        half, p = 0.0, float(middle == 0)
    elif df > 0:
        error = math.sqrt(variance)
        half = float(special.stdtrit(df, 1 - ALPHA / 2 / comparisons)) * error
        p = 2 * float(special.stdtr(df, -abs(middle) / error))
    ends = middle - half, middle + half
    low, high = map(exp, ends)
    return msgspec.structs.replace(
        new,
        against=known[-1].environment,
        value=exp(middle),
        low=finite(low) if half < math.inf else None,
        high=finite(high),
        standard_error=finite(math.sqrt(variance)),
        df=df if variance and math.isfinite(df) else 0.0,
        p=min(1.0, p * comparisons),
        verdict=verdict(middle, *ends, margin),
        workers=min(new.workers, *(row.workers for row in known)),
        settled_by=PROGRAM if not variance else "",
        bound=None,
    )


def variance_of(row: Estimate) -> float:
    """Return the variance that a row knows by itself; infinite where nothing is known."""
    return math.inf if row.standard_error is None else row.standard_error**2


def summed(parts: Sequence[tuple[float, float]], *, pooled: bool) -> tuple[float, float]:
    """Return the sum of independent variances, and its degrees of freedom.

    Args:
        parts: Variances, each with its degrees of freedom.
        pooled: Whether they are one estimate, so that standard deviations of them add up.
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


def neighbours(
    series: Iterable[Sequence[Estimate]],
    spread_of: Callable[[Estimate], Spread],
    *,
    pooled: bool = False,
    margin: float = MARGIN,
) -> list[Estimate]:
    """Return the differences of all neighbours, with p corrected for all of them together.

    A change is where p is `ALPHA` or less: any false one has these odds (Holm). Intervals are not
    corrected. Machines have moods: in a long series, a difference's error is at least what most of
    its neighbours differ by.

    Args:
        series: Rows of one cell and metric each, in the order of time; `environment` names when.
        spread_of: Returns what a row varies by from run to run, beyond what its run knows.
        pooled: Whether the rows' variances are one estimate.
        margin: Fraction within which two times are equivalent.
    """
    rows = []
    for points in series:
        least = wandering(points)
        rows += [
            difference([old], new, spread_of(new), pooled=pooled, margin=margin, least=least)
            for old, new in pairwise(points)
        ]
    corrected = holm(np.array([row.p for row in rows]))
    return [
        msgspec.structs.replace(row, p=p) for row, p in zip(rows, corrected.tolist(), strict=True)
    ]


def wandering(points: Sequence[Estimate]) -> Spread:
    """Return what most neighbours of a series differ by; nothing of a short one."""
    if len(points) < LONG:
        return NO_SPREAD
    steps = np.abs(np.diff([position(row) for row in points]))
    return Spread(MAD * float(np.median(steps)), EFFICIENCY * steps.size)


def is_change(row: Estimate) -> bool:
    """Tell whether a difference of neighbours remains after Holm's correction."""
    return row.p is not None and row.p <= ALPHA and row.verdict is not Verdict.INCONCLUSIVE


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return adjusted p-values: rejecting those up to alpha is wrong anywhere with at most alpha.

    Holm (1979), "A simple sequentially rejective multiple test procedure"; whatever the dependence
    between the tests, which here share a baseline.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p, dtype=float)
    steps = p[order] * np.arange(p.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
