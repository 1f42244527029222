"""Differences of estimates that were made apart: of two runs, and along a history.

Each estimate knows what its own workers and blocks vary by. Between two runs more changes: other
guests of the host, where memory lies, how hot the processor is. That is a `Spread`, which a
difference adds to what both know.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from scipy import special

from bench.estimates import ALPHA, MARGIN, PROGRAM, Estimate, Verdict
from bench.metrics import HOST, HOST_IN_A_ROW, STEP, Kind
from bench.stats.components import MAD, summed
from bench.stats.estimate import exp, finite
from bench.stats.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

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
BETWEEN = {
    **dict.fromkeys((STEP, HOST, HOST_IN_A_ROW), Spread(0.02, 10)),
    "peak_rss": Spread(0.001, 10),
}
"""By metric. Default runs some hours apart make it 0.022, 0, 0 and 0, and runs of one busy hour
0.010, 0.021 and 0.018 of the first three (results/selftest/between.md): too few to rely on smaller
values."""
OTHERS = Spread(0.005, 10)
"""The same of cold stages: those runs make it 0, and 0.028 of `init`. What a run itself knows of
them varies by more: they are sampled in processes of their own all over a run."""
ANYWAY = 0.1
"""Scale of a warm row whose arm adds nothing, where one that adds all of its time has 1: three
default runs of one day differed by 0.07 to 0.35 % in styles that add next to nothing."""


def spread(row: Estimate) -> Spread:
    """Return what a row varies by from hour to hour, beyond what its own run knows.

    What an arm shares with the baseline cancels out in a ratio; what it adds does not: time in
    Python beside time in XLA. So a warm row varies by a part of what its arm adds, and a little
    anyway.
    """
    of_metric = BETWEEN.get(row.metric, OTHERS)
    scale = abs(1 - 1 / row.value) + ANYWAY if row.kind is Kind.WARM else 1.0
    return Spread(of_metric.sd * scale, of_metric.df)


def position(row: Estimate) -> float:
    """Return where a ratio lies: its logarithm."""
    return math.log(row.value)


def difference(
    bases: Sequence[Estimate],
    news: Sequence[Estimate],
    spread: Spread = NO_SPREAD,
    *,
    comparisons: int = 1,
    pooled: bool = False,
    margin: float = MARGIN,
    least: Spread = NO_SPREAD,
) -> Estimate:
    """Return what a ratio is beside the same one before: the ratio of both.

    Both sides may be several runs of the same code, weighted by what each knows. Degrees of freedom
    are Satterthwaite's (1946, "An approximate distribution of estimates of variance components").

    Args:
        bases: Ratios of one cell and metric; the last one gives the base its name.
        news: The same of what came after; the first one gives it its name.
        spread: What each run varies by, beyond what it knows.
        comparisons: That are made together: the interval and p are corrected for them (Bonferroni).
        pooled: Whether the rows' variances are one estimate: their degrees of freedom do not add.
        margin: Fraction within which two times are equivalent.
        least: Least standard deviation of the difference of two runs.
    """
    middle, of_runs = 0.0, 0.0
    parts: list[tuple[float, float]] = []
    sides = [
        [row for row in rows if row.standard_error is not None] or list(rows)
        for rows in (bases, news)
    ]
    exact = all(row.exact for rows in sides for row in rows)
    between = 0.0 if exact else spread.sd**2
    for sign, rows in zip((-1, 1), sides, strict=True):
        weights = [1 / max(variance_of(row) + between, TINIEST) or 1.0 for row in rows]
        weights = [weight / sum(weights) for weight in weights]
        middle += sign * sum(w * position(row) for w, row in zip(weights, rows, strict=True))
        own = ((w * w * variance_of(r), r.df) for w, r in zip(weights, rows, strict=True))
        parts += own
        of_runs += sum(w * w for w in weights)
    parts.append((between * of_runs, spread.df))
    more = least.sd**2 * of_runs / 2 - sum(variance for variance, _ in parts)
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
        news[0],
        against=sides[0][-1].environment,
        value=exp(middle),
        low=finite(low) if half < math.inf else None,
        high=finite(high),
        standard_error=finite(math.sqrt(variance)),
        df=df if variance and math.isfinite(df) else 0.0,
        p=min(1.0, p * comparisons),
        verdict=verdict(middle, *ends, margin),
        workers=min(row.workers for rows in sides for row in rows),
        settled_by=PROGRAM if not variance else "",
        bound=None,
    )


def variance_of(row: Estimate) -> float:
    """Return the variance that a row knows by itself; infinite where nothing is known."""
    return math.inf if row.standard_error is None else row.standard_error**2


def stretches(
    series: Collection[Sequence[Estimate]],
    spread_of: Callable[[Estimate], Spread] = lambda _: NO_SPREAD,
    *,
    pooled: bool = False,
    margin: float = MARGIN,
) -> list[Estimate]:
    """Return where series change: the differences of adjoining stretches of one level.

    Many nights at one level tell a shift of 1 %, which two neighbours do not. Stretches are found
    by PELT (Killick, Fearnhead and Eckley 2012, "Optimal detection of changepoints with a linear
    computational cost"). Each place where one may end is a comparison: intervals and p are
    corrected for all of them (Bonferroni), since the search takes the best. In a long series, a
    difference's error is at least what most neighbours differ by.

    Args:
        series: Rows of one cell and metric each, in the order of time; `environment` names when.
        spread_of: Returns what a row varies by from run to run, beyond what its run knows.
        pooled: Whether the rows' variances are one estimate, as they are of one command.
        margin: Fraction within which two times are equivalent.
    """
    import ruptures  # takes a third of a second to import

    places = sum(len(points) - 1 for points in series)
    rows = []
    apart = partial(difference, comparisons=places, pooled=pooled, margin=margin)
    for points in series:
        known = [row for row in points if row.standard_error is not None]
        if len(known) < 2:
            continue
        least = wandering(known)
        noise = [
            max(variance_of(row) + spread_of(row).sd ** 2, least.sd**2 / 2, TINIEST)
            for row in known
        ]
        levels = np.array([position(row) for row in known]) / math.sqrt(float(np.median(noise)))
        search = ruptures.KernelCPD(kernel="linear", min_size=1).fit(levels[:, None])
        # A stretch is worth its end if the test below can tell it: its squared standard errors
        ends = search.predict(pen=float(special.ndtri(ALPHA / 2 / places)) ** 2)
        parts = [known[start:end] for start, end in pairwise([0, *ends])]
        # A noisy night can be a stretch by itself, from which nothing differs: it joins one
        while changes := [
            apart(before, after, max(map(spread_of, (*before, *after))), least=least)
            for before, after in pairwise(parts)
        ]:
            weakest = max(range(len(changes)), key=lambda place: changes[place].p or 0.0)
            if is_change(changes[weakest]):
                break
            parts[weakest : weakest + 2] = [[*parts[weakest], *parts[weakest + 1]]]
        rows += changes
    return rows


def wandering(points: Sequence[Estimate]) -> Spread:
    """Return what most neighbours of a series differ by; nothing of a short one."""
    if len(points) < LONG:
        return NO_SPREAD
    steps = np.abs(np.diff([position(row) for row in points]))
    return Spread(MAD * float(np.median(steps)), EFFICIENCY * steps.size)


def is_change(row: Estimate) -> bool:
    """Tell whether a difference is a change, with odds of `ALPHA` for any false one."""
    return row.p is not None and row.p <= ALPHA and row.verdict is not Verdict.INCONCLUSIVE
