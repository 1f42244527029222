"""Differences between estimates: of two runs, along a history, and of a model's two depths.

An estimate's standard error covers its own workers and blocks. Two runs also differ in the host's
other guests, the addresses of memory and the processor's temperature. A `Spread` has that
variation, which a difference adds to both errors.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace
from scipy import special

from bench.estimates import ALPHA, MARGIN, PROGRAM, Estimate, Verdict, group_by_key
from bench.metrics import HOST, HOST_IN_A_ROW, HOST_PER_ARRAY, STEP, Kind
from bench.stats.ratios import MAD_TO_SD
from bench.stats.variances import sum_variances
from bench.stats.verdicts import exp, finite_or_none, make_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from bench.stats.estimate import Key

LEAST_VARIANCE = 1e-18
"""Least variance of a logarithm, so that no division is by zero."""
LONG_SERIES = 16
"""Least number of points in a series whose own differences show how much it drifts."""
EFFICIENCY = 0.37
"""Degrees of freedom of a median absolute deviation, as a fraction of those of a standard deviation
from as many values: its efficiency for normal data."""


class Spread(NamedTuple):
    """Variation of the same code's estimates from run to run, beyond their standard errors."""

    sd: float
    """Standard deviation of the logarithm of one run's ratio. Two runs differ by the square root of
    two times as much."""
    df: float
    """Degrees of freedom of `sd`."""


NO_SPREAD = Spread(0.0, math.inf)
"""Spread of estimates that were measured side by side."""
RUN_SPREADS = {
    **dict.fromkeys((STEP, HOST, HOST_IN_A_ROW), Spread(0.02, 10)),
    "peak_rss": Spread(0.001, 10),
}
"""Metric → its spread. Default runs some hours apart give 0.022, 0, 0 and 0, and runs of one busy
hour 0.010, 0.021 and 0.018 for the first three (results/selftest/between.md): too few to rely on
smaller values."""
OTHER_SPREAD = Spread(0.005, 10)
"""Spread of the other metrics: the same runs give 0, and 0.028 for `init`. For cold ones, a run's
own standard error is larger, since fresh processes sample them all over a run."""
LEAST_SCALE = 0.1
"""Factor on the spread of a warm row whose arm adds no time; it grows by the fraction of an arm's
time that is added. Three default runs of one day differed by 0.07 to 0.35 % in styles that add next
to nothing."""


def find_spread(row: Estimate) -> Spread:
    """Return how much a row varies from hour to hour, beyond its own run's standard error.

    Work that an arm shares with the baseline cancels out in a ratio; work that it adds does not:
    time in Python beside time in XLA. So a warm row varies by a part of what its arm adds, and a
    little even if it adds nothing.
    """
    of_metric = RUN_SPREADS.get(row.metric, OTHER_SPREAD)
    scale = abs(1 - 1 / row.value) + LEAST_SCALE if row.kind is Kind.WARM else 1.0
    return Spread(of_metric.sd * scale, of_metric.df)


def log_ratio(row: Estimate) -> float:
    """Return the logarithm of a ratio."""
    return math.log(row.value)


def find_variance(row: Estimate) -> float:
    """Return the variance of a ratio's logarithm; infinite where it is unknown."""
    return math.inf if row.standard_error is None else row.standard_error**2


def compare_ratios(
    bases: Sequence[Estimate],
    news: Sequence[Estimate],
    spread: Spread = NO_SPREAD,
    *,
    comparisons: int = 1,
    pooled: bool = False,
    margin: float = MARGIN,
    least: Spread = NO_SPREAD,
) -> Estimate:
    """Return a new ratio relative to a base ratio: the quotient of both.

    Each side may be several runs of the same code, weighted by their precision.

    Args:
        bases: Ratios of one cell and metric; the last one gives the base its name.
        news: Later ratios of that cell and metric; the first one gives the new side its name.
        spread: Variation from run to run, beyond each run's standard error.
        comparisons: Number of comparisons: p and interval are corrected for it (Bonferroni).
        pooled: Whether the rows' variances are one estimate: their degrees of freedom do not add.
        margin: Fraction within which two times are equivalent.
        least: Least standard deviation of the difference of two runs.
    """
    before, after = (
        [row for row in rows if row.standard_error is not None] or rows for rows in (bases, news)
    )
    runs = [*before, *after]
    between = 0.0 if all(row.is_noiseless for row in runs) else spread.sd**2
    weights = [*weigh_runs(before, between), *weigh_runs(after, between)]
    of_runs = sum(weight**2 for weight in weights)
    parts = [(w**2 * find_variance(row), row.df) for w, row in zip(weights, runs, strict=True)]
    parts.append((between * of_runs, spread.df))
    more = least.sd**2 * of_runs / 2 - sum(variance for variance, _ in parts)
    if more > 0:
        parts.append((more, least.df))
    logs = [weight * log_ratio(row) for weight, row in zip(weights, runs, strict=True)]
    middle = sum(logs[len(before) :]) - sum(logs[: len(before)])
    variance, df = sum_variances(parts, pooled=pooled)
    about = {"against": before[-1].environment, "workers": min(row.workers for row in runs)}
    row = replace(news[0], bound=None, **about)
    return make_ratio(row, middle, variance, df, comparisons=comparisons, margin=margin)


def weigh_runs(rows: Sequence[Estimate], between: float) -> list[float]:
    """Return inverse-variance weights with sum one; `between` is the variance between runs."""
    weights = [1 / max(find_variance(row) + between, LEAST_VARIANCE) or 1.0 for row in rows]
    return [weight / sum(weights) for weight in weights]


def make_ratio(
    row: Estimate, log: float, variance: float, df: float, *, comparisons: int, margin: float
) -> Estimate:
    """Return a row with the ratio whose logarithm is `log`, its interval, p and verdict.

    The variance of the logarithm is 0 if it is exact, and infinite if it is unknown.
    """
    half, p, error = math.inf, 1.0, math.sqrt(variance)
    if not variance:
        half, p = 0.0, float(log == 0)
    elif df > 0:
        half = float(special.stdtrit(df, 1 - ALPHA / 2 / comparisons)) * error
        p = 2 * float(special.stdtr(df, -abs(log) / error))
    return replace(
        row,
        value=exp(log),
        standard_error=finite_or_none(error),
        df=df if variance and math.isfinite(df) else 0.0,
        p=min(1.0, p * comparisons),
        settled_by="" if variance else PROGRAM,
        **make_bounds(log - half, log + half, margin),
    )


def find_shifts(
    series: Collection[Sequence[Estimate]],
    spread_of: Callable[[Estimate], Spread] = lambda _: NO_SPREAD,
    *,
    pooled: bool = False,
    margin: float = MARGIN,
) -> list[Estimate]:
    """Return the changes of series: differences between adjoining stretches of one level.

    Many nights at one level reveal a shift of 1 %, two neighbours do not. Each boundary between two
    nights, where a stretch may end, is a comparison: intervals and p are corrected for all of them
    (Bonferroni), since the search takes the best. In a long series, the error of a difference is at
    least the typical difference between neighbours.

    Args:
        series: Rows of one cell and metric each, in the order of time; `environment` is the time.
        spread_of: Returns a row's variation from run to run, beyond its standard error.
        pooled: Whether the rows' variances are one estimate, as they are of one command.
        margin: Fraction within which two times are equivalent.
    """
    boundaries = sum(len(points) - 1 for points in series)
    compare = partial(compare_ratios, comparisons=boundaries, pooled=pooled, margin=margin)
    rows = []
    for points in series:
        known = [row for row in points if row.standard_error is not None]
        if len(known) < 2:
            continue
        least = estimate_drift(known)
        noise = [
            max(find_variance(row) + spread_of(row).sd ** 2, least.sd**2 / 2, LEAST_VARIANCE)
            for row in known
        ]
        stretches = split_series(known, math.sqrt(float(np.median(noise))), boundaries)
        # A noisy night can be a stretch by itself that does not differ for certain: merge it
        while changes := [
            compare(before, after, max(map(spread_of, (*before, *after))), least=least)
            for before, after in pairwise(stretches)
        ]:
            weakest = max(range(len(changes)), key=lambda i: changes[i].p or 0.0)
            if is_change(changes[weakest]):
                break
            merged = [*stretches[weakest], *stretches[weakest + 1]]
            stretches[weakest : weakest + 2] = [merged]
        rows += changes
    return rows


def split_series(
    points: Sequence[Estimate], sd: float, boundaries: int
) -> list[Sequence[Estimate]]:
    """Return the stretches of one level in a series.

    They are found by PELT (Killick, Fearnhead and Eckley 2012, "Optimal detection of changepoints
    with a linear computational cost"). An end's penalty is the squared critical value of a test of
    `boundaries` boundaries (Bonferroni); `sd` is the standard error of a point's logarithm.
    """
    import ruptures  # takes a third of a second to import

    levels = np.array([log_ratio(row) for row in points]) / sd
    search = ruptures.KernelCPD(kernel="linear", min_size=1).fit(levels[:, None])
    ends = search.predict(pen=float(special.ndtri(ALPHA / 2 / boundaries)) ** 2)
    return [points[start:end] for start, end in pairwise([0, *ends])]


def estimate_drift(points: Sequence[Estimate]) -> Spread:
    """Return the typical difference between neighbours of a series; none for a short one."""
    if len(points) < LONG_SERIES:
        return NO_SPREAD
    steps = np.abs(np.diff([log_ratio(row) for row in points]))
    return Spread(MAD_TO_SD * float(np.median(steps)), EFFICIENCY * steps.size)


def is_change(row: Estimate) -> bool:
    """Tell whether a difference is a change; any false one has the probability `ALPHA`."""
    return row.p is not None and row.p <= ALPHA and row.verdict is not Verdict.INCONCLUSIVE


def estimate_array_costs(rows: Sequence[Estimate], base: str, margin: float) -> Iterator[Estimate]:
    """Yield host costs per array, in seconds and as ratios to `base`, at the deepest workload.

    A call costs the host a fixed part, and a part for each array of parameters. The second part
    alone is the difference between two depths, divided by the difference in their arrays.

    Intervals are corrected for all rows together (Bonferroni). The errors of two depths count as
    independent: noise that a process has at both would make the error of the difference smaller.
    """
    amounts = {(row.environment, row.cell, row.metric): row for row in rows if row.form == "amount"}
    depths = group_by_key(
        ((row.environment, row.cell.backend, row.cell.arm), (arrays.value, call.value, row))
        for row in rows
        if row.metric == HOST and row.against == base and row.df > 0
        if (arrays := amounts.get((row.environment, row.cell, "parameter_arrays")))
        if (call := amounts.get((base, row.cell, HOST)))
    )
    seconds: dict[Key, Estimate] = {}
    ratios: list[Estimate] = []
    for several in depths.values():
        ends = [choose(several, key=itemgetter(0)) for choose in (min, max)]
        (few, short, shallow), (many, long, deep) = ends
        before, after = long - short, long * deep.value - short * shallow.value
        if few == many or before <= 0 or after <= 0:
            continue
        parts = [  # variances of the logarithm of what more arrays cost
            ((call * row.value * (row.standard_error or 0.0) / after) ** 2, row.df)
            for _, call, row in ends
        ]
        row = replace(
            deep,
            metric=HOST_PER_ARRAY,
            workers=min(shallow.workers, deep.workers),
            blocks=min(shallow.blocks, deep.blocks),
        )
        log, variance = math.log(after / before), sum_variances(parts, pooled=False)
        ratios.append(make_ratio(row, log, *variance, comparisons=len(depths), margin=margin))
        for name, cost in ((base, before), (deep.environment, after)):
            unknown = {"low": None, "high": None, "standard_error": None, "df": 0.0}
            about = {"metric": HOST_PER_ARRAY, "value": cost / (many - few)}
            amount = amounts[name, deep.cell, HOST]
            seconds[name, deep.cell] = replace(amount, **about, **unknown)
    yield from (*seconds.values(), *ratios)
