"""Contrasts with simultaneous 95 % intervals: arms to a reference, sides of an A/B, cold samples.

`components` models the noise, `variances` estimates the variance of each arm, and `family` makes
the intervals. `results/selftest/simulation.py` simulates how often they are wrong, with 1 to 25
arms, 1 to 25 workers of 1 to 4 blocks, heavy tails, missing blocks, a noisy arm and optional
stopping; results/selftest/simulation.md has the error rates.

These arguments mean the same in every function:

* `data`, blocks x arms: log of an arm's datum in a block, NaN where it has none;
* `worker`: number of each block's worker or pair of workers;
* `reference`: columns of one program, one or more; blocks that lack one of them do not count;
* `members`: columns of the family. The others only help to estimate the noise;
* `programs`: groups of columns of one program each: they have one effect, and count once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats import components
from bench.stats.family import Dunnett
from bench.stats.variances import MeanSquares, pool_unless_noisy, sum_variances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jaxtyping import Float, Int

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "blocks arms"]
    type Workers = Int[np.ndarray, " blocks"]
    type Columns = Sequence[int]


class Contrast(NamedTuple):
    """A member's difference from the reference, with an interval that holds for its family."""

    difference: float
    """Log-ratio, or seconds where time is added; above zero is slower."""
    standard_error: float
    """Standard error of the difference; infinite where it is unknown."""
    df: float
    """Degrees of freedom of the standard error; zero where that is infinite."""
    low: float
    """Lower end of the interval of the difference; -inf where there is no bound."""
    high: float
    """Upper end of that interval."""
    p: float
    """Adjusted p-value: below 5 % exactly where the interval excludes zero."""
    blocks: int
    """Number of blocks with the member; of a cold metric, its samples."""
    workers: int
    """Number of workers with the member, or of pairs of workers."""
    level: float | None = None
    """Seconds of the references' call, if the difference is in seconds."""


QUIET_WORKERS = 0.1
"""Quantile of the workers' times of a call that stands for a quiet machine: noise only ever adds
time, and of a hundred workers the very fastest is by chance too fast."""
UNKNOWN = Contrast(math.nan, math.inf, 0.0, -math.inf, math.inf, 1.0, 0, 0)
"""Contrast of a member that shares no block with all references."""


def contrast_with_references(
    data: Table,
    worker: Workers,
    reference: Columns,
    members: Columns,
    programs: Sequence[Columns] = (),
) -> list[Contrast]:
    """Return each member's log-ratio to the mean of the references: Dunnett's test, single-step.

    A member of the references' program counts as one of them: its ratio is 1, exactly.

    With one worker, the variance between workers is estimated from the difference of two
    references, with one degree of freedom; a single reference gives an infinite interval.
    """
    used = ~np.isnan(data[:, reference]).any(1)
    if not used.any():
        return [UNKNOWN] * len(members)
    merged, first = _merge_programs(data[used], reference, programs)
    fit = components.fit_workers(merged, worker[used], reference)
    return _contrast_fit(fit, reference, first[members].tolist())


def contrast_pairs(
    difference: Table,
    pair: Workers,
    members: Columns | None = None,
    programs: Sequence[Columns] = (),
) -> list[Contrast]:
    """Return each member's difference between two sides: pairs of workers are the unit.

    Noise that a pair's arms share makes their estimates correlated; that correlation is estimated
    from the same pairs. One arm alone has a t test over pairs, with the variance between blocks as
    a lower bound. With one pair the interval is infinite.

    `difference` is the new side's logarithm less the base's, blocks x arms.
    """
    members = range(difference.shape[1]) if members is None else members
    known = ~np.isnan(difference).all(1)
    if not known.any():
        return [UNKNOWN] * len(members)
    fit = components.fit_pairs(difference[known], pair[known])
    with np.errstate(invalid="ignore", divide="ignore"):
        least = np.min(fit.variance[fit.blocks > 0])
        fit, first = _share_effects(fit, programs)
        share = fit.correlation * np.nan_to_num(least / fit.variance, nan=0.0)
    return _add_intervals(fit, share, first[list(members)].tolist())


def contrast_added_time(
    seconds: Table, worker: Workers, reference: Columns, members: Columns
) -> list[Contrast]:
    """Return the seconds that each member adds to the references': workers are the unit.

    In each block they are a fraction of the references' time there: a core that another guest of
    the host slows down by half slows down both. Fractions are averaged within workers, and vary
    between them; they are scaled by the arm's own level, which makes the noise of all alike enough
    to pool. Differences in seconds vary far more where one worker is slower than the rest. The
    seconds are those of a quiet machine (`QUIET_WORKERS`): a busy one takes up to twice as long for
    both, from one minute to the next, and fractions stay.

    A lower end at which a call would take less than no time is -inf. With one worker, the interval
    is infinite.

    `seconds` are an arm's datum in a block, blocks x arms; NaN where it has none.
    """
    used = ~np.isnan(seconds[:, reference]).any(1)
    if not used.any():
        return [UNKNOWN] * len(members)
    seconds, worker = seconds[used], worker[used]
    reference_seconds = seconds[:, reference].mean(1)
    of_workers = [np.median(reference_seconds[worker == number]) for number in np.unique(worker)]
    level = float(np.quantile(of_workers, QUIET_WORKERS, method="lower"))
    relative = seconds / reference_seconds[:, None]
    known = ~np.isnan(relative).all(0)
    scale = np.ones(known.size)
    scale[known] = np.nanmean(relative[:, known], 0)
    parts = (relative - 1) / scale
    parts[:, reference] = np.nan
    contrasts = contrast_pairs(parts, worker, members)
    units = (level * scale[list(members)]).tolist()
    return [
        contrast._replace(
            difference=unit * contrast.difference,
            standard_error=unit * contrast.standard_error,
            low=unit * contrast.low if unit * contrast.low > -level else -math.inf,
            high=unit * contrast.high,
            level=level,
        )
        for unit, contrast in zip(units, contrasts, strict=True)
    ]


def contrast_cold_samples(
    samples: Iterable[Float[np.ndarray, " samples"]], members: Columns
) -> list[Contrast]:
    """Return each member's log-ratio to the reference, from independent samples: a one-way layout.

    The interval is infinite where no arm has two samples.

    Args:
        samples: Each arm's logs, one sample per process; the first arm is the reference.
        members: Indices of arms; one may be there several times.
    """
    size, effect, variance = np.array(
        [(logs.size, logs.mean(), logs.var(ddof=1) if logs.size > 1 else 0.0) for logs in samples]
    ).T
    squares = MeanSquares(variance, size - 1, float((size - 1).sum()))
    variance, df, _ = pool_unless_noisy(squares, np.zeros(size.size))
    variance = np.where(df > 0, variance, np.inf) / size
    counts = size.astype(int)
    return _contrast_fit(components.Fit(effect, variance, df, counts, counts), [0], members)


def _contrast_fit(fit: components.Fit, reference: Columns, members: Columns) -> list[Contrast]:
    """Return the members' contrasts with the references, whose variance all contrasts share.

    A member that is a reference itself has a ratio of 1, exactly.
    """
    references = list(reference)
    of_reference = float(fit.variance[references].sum()) / len(references) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    # References are one group of the components: they have one variance, and its degrees of freedom
    shared = of_reference, float(fit.df[references[0]])
    parts = zip(fit.variance.tolist(), fit.df.tolist(), strict=True)
    df = np.array([sum_variances([part, shared], pooled=True)[1] for part in parts])
    effect = fit.effect - fit.effect[references].mean()
    for field in (effect, total, df):
        field[references] = 0.0
    return _add_intervals(fit._replace(effect=effect, variance=total, df=df), share, members)


def _add_intervals(fit: components.Fit, share: Arms, members: Columns) -> list[Contrast]:
    """Return each member's contrast, with an interval for their family.

    Args:
        fit: Difference of each arm and its variance.
        share: Fraction of each arm's variance that is common to all.
        members: Arms to return. One that also stands for others of its program counts once in the
            family; one without variance does not count.
    """
    family = [arm for arm in dict.fromkeys(members) if fit.blocks[arm] and fit.variance[arm]]
    tests = Dunnett(share[family], float(fit.df[family].max(initial=0.0)))

    def contrast(arm: int) -> Contrast:
        if not fit.blocks[arm]:
            return UNKNOWN
        middle, df = float(fit.effect[arm]), float(fit.df[arm])
        error = math.sqrt(fit.variance[arm])
        half = tests.critical_value(df) * error if error else 0.0
        p = tests.p_value(middle / error, df) if error else float(middle == 0)
        counts = int(fit.blocks[arm]), int(fit.workers[arm])
        return Contrast(middle, error, df, middle - half, middle + half, p, *counts)

    return [contrast(arm) for arm in members]


def _merge_programs(
    data: Table, reference: Columns, programs: Sequence[Columns]
) -> tuple[Table, Int[np.ndarray, " arms"]]:
    """Return data with one column for each program, and the index of each arm's column.

    A program's column is its first arm's, with the mean of the arms that have a datum: in a round
    of stages, one of them compiles. The references' program keeps a reference's column.
    """
    merged, first = data.copy(), np.arange(data.shape[1])
    for columns in programs:
        at = next((column for column in columns if column in reference), columns[0])
        first[list(columns)] = at
        several = [column for column in columns if column not in reference]
        merged[:, several] = np.nan
        known = ~np.isnan(data[:, several]).all(1)
        if at not in reference:
            merged[known, at] = np.nanmean(data[known][:, several], 1)
    return merged, first


def _share_effects(
    fit: components.Fit, programs: Sequence[Columns]
) -> tuple[components.Fit, Int[np.ndarray, " arms"]]:
    """Return a fit with each program's effect in its first column; and each arm's column."""
    effect, variance, df = fit.effect.copy(), fit.variance.copy(), fit.df.copy()
    first = np.arange(effect.size)
    for columns in programs:
        if known := [column for column in columns if fit.blocks[column]]:
            at, number = known[0], len(known)
            first[list(columns)] = at
            effect[at], df[at] = fit.effect[known].mean(), fit.df[known].min()
            correlated = (1 + (number - 1) * fit.correlation) / number
            variance[at] = fit.variance[known].mean() * correlated
    return fit._replace(effect=effect, variance=variance, df=df), first
