"""Contrasts with simultaneous 95 % intervals: arms to a reference, sides of an A/B, cold samples.

The model of noise: a log datum of an arm in a block is the arm's effect + the block's (common to
all its arms) + the worker's luck with this arm (variance `tau^2`) + the block's (variance
`sigma^2`): the nested random-effects model of Kalibera & Jones (2013, "Rigorous benchmarking in
reasonable time") with block effects (intrablock analysis, Yates 1940). Blocks are fitted within
each worker, after their outliers are moved towards the others (`winsorise_blocks`); then workers
are the rows of a second table, whose cells weigh 1 / (tau^2 + sigma^2 / blocks). Arms share one
variance, unless an arm is noisier than the rest (`variances`). `family` makes the intervals.
`results/selftest/simulation.py` simulates how often they are wrong, with 1 to 25 arms, 1 to 25
workers of 1 to 4 blocks, heavy tails, missing blocks, a noisy arm and optional stopping;
results/selftest/simulation.md has the error rates.

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

from bench.stats.family import Dunnett
from bench.stats.variances import (
    MeanSquares,
    average_variances,
    pool_unless_noisy,
    sum_variances,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jaxtyping import Float, Int

    type Arms = Float[np.ndarray, " arms"]
    type Table = Float[np.ndarray, "*batch rows arms"]
    """Blocks x arms, or workers x arms; a batch of tables has an axis more."""
    type Workers = Int[np.ndarray, " blocks"]
    type Columns = Sequence[int]
    type WorkerFit = tuple[Arms, MeanSquares, float]
    """Workers x arms fitted with given weights: effects, residuals, correlation of two effects."""

QUIET_WORKERS = 0.1
"""Quantile of the workers' times of a call that stands for a quiet machine: noise only ever adds
time, and of a hundred workers the very fastest is by chance too fast."""
MAD_TO_SD = 1.4826
"""Standard deviation of a normal variable, divided by its median absolute deviation."""
FAR_RESIDUAL = 2.0
"""Bound of residuals in standard deviations: a larger residual counts as this."""
FAR_RESIDUAL_ALONE = 3.0
"""Bound of residuals where each worker has one block. Bounded residuals alone give their variance
then: with 2, simulated families were covered in 90 to 97 %, with this in 92 to 98 %."""
ZERO_RESIDUAL = 1e-12
"""Size up to which a residual is zero but for rounding."""


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


UNKNOWN = Contrast(math.nan, math.inf, 0.0, -math.inf, math.inf, 1.0, 0, 0)
"""Contrast of a member that shares no block with all references."""


class Fit(NamedTuple):
    """Effect of each arm."""

    effect: Arms
    """Effect as a logarithm; of a one-sided table up to a constant. NaN for an arm without data."""
    variance: Arms
    """Variance of the effect, without the part that all arms share; infinite where unknown."""
    df: Arms
    """Degrees of freedom of `variance`; zero where that is infinite."""
    blocks: Int[np.ndarray, " arms"]
    workers: Int[np.ndarray, " arms"]
    correlation: float = 0.0
    """Correlation of two arms' effects."""


# contrasts


def contrast_with_references(
    data: Table,
    worker: Workers,
    reference: Columns,
    members: Columns,
    programs: Sequence[Columns] = (),
) -> list[Contrast]:
    """Return each member's log-ratio to the mean of the references: Dunnett's test, single-step.

    A member of the references' program is a reference, too: its ratio is 1, exactly.

    With one worker, the variance between workers is estimated from the difference of two
    references, with one degree of freedom; a single reference gives an infinite interval.
    """
    used = ~np.isnan(data[:, reference]).any(1)
    if not used.any():
        return [UNKNOWN] * len(members)
    merged, column_of = _merge_programs(data[used], reference, programs)
    fit = fit_workers(merged, worker[used], reference)
    return _contrast_fit(fit, reference, column_of[members].tolist())


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
    fit = fit_pairs(difference[known], pair[known])
    with np.errstate(invalid="ignore", divide="ignore"):
        least = np.min(fit.variance[fit.blocks > 0])
        fit, column_of = _share_effects(fit, programs)
        share = fit.correlation * np.nan_to_num(least / fit.variance, nan=0.0)
    return _add_intervals(fit, share, column_of[list(members)].tolist())


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
    return _contrast_fit(Fit(effect, variance, df, counts, counts), [0], members)


def _contrast_fit(fit: Fit, reference: Columns, members: Columns) -> list[Contrast]:
    """Return the members' contrasts with the references, whose variance all contrasts share.

    A member that is a reference itself has a ratio of 1, exactly.
    """
    references = list(reference)
    of_reference = float(fit.variance[references].sum()) / len(references) ** 2
    total = fit.variance + of_reference
    finite = np.isfinite(total) & (total > 0)
    share = np.where(finite, of_reference / np.where(finite, total, 1), 0.0)
    # References share one variance, and its degrees of freedom (`fit_workers`)
    shared = of_reference, float(fit.df[references[0]])
    parts = zip(fit.variance.tolist(), fit.df.tolist(), strict=True)
    df = np.array([sum_variances([part, shared], pooled=True)[1] for part in parts])
    effect = fit.effect - fit.effect[references].mean()
    for field in (effect, total, df):
        field[references] = 0.0
    return _add_intervals(fit._replace(effect=effect, variance=total, df=df), share, members)


def _add_intervals(fit: Fit, share: Arms, members: Columns) -> list[Contrast]:
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

    A program's column is its first arm's. Each program has one datum in a block where its stages
    are timed, since only one of its arms compiles; else, the mean of its arms counts. The
    references' program keeps a reference's column.
    """
    merged, column_of = data.copy(), np.arange(data.shape[1])
    for columns in programs:
        at = next((column for column in columns if column in reference), columns[0])
        column_of[list(columns)] = at
        merged_columns = [column for column in columns if column not in reference]
        merged[:, merged_columns] = np.nan
        has_datum = ~np.isnan(data[:, merged_columns]).all(1)
        if at not in reference:
            merged[has_datum, at] = np.nanmean(data[has_datum][:, merged_columns], 1)
    return merged, column_of


def _share_effects(fit: Fit, programs: Sequence[Columns]) -> tuple[Fit, Int[np.ndarray, " arms"]]:
    """Return a fit with each program's effect in its first column; and each arm's column."""
    effect, variance, df = fit.effect.copy(), fit.variance.copy(), fit.df.copy()
    column_of = np.arange(effect.size)
    for columns in programs:
        if known := [column for column in columns if fit.blocks[column]]:
            at, number = known[0], len(known)
            column_of[list(columns)] = at
            effect[at], df[at] = fit.effect[known].mean(), fit.df[known].min()
            correlated = (1 + (number - 1) * fit.correlation) / number
            variance[at] = fit.variance[known].mean() * correlated
    return fit._replace(effect=effect, variance=variance, df=df), column_of


# the model of noise


def fit_two_way(table: Table, weight: Table) -> tuple[Arms, Table]:
    """Return weighted least-squares effects of arms, free of row effects, and the residuals.

    Args:
        table: Data, which are ignored where the weight is zero.
        weight: Inverse variances; a batch of tables is fitted one by one.

    Returns:
        Effects, which sum to zero over the arms that have one and are NaN for the others, and
        residuals, zero where there is no datum. Arms must be linked by rows that they share.
    """
    table = np.where(weight > 0, table, 0.0)
    share = _divide(weight, weight.sum(-1, keepdims=True))
    column = weight.sum(-2)
    idle = column == 0
    matrix = -np.swapaxes(share, -1, -2) @ weight
    diagonal = np.arange(weight.shape[-1])
    matrix[..., diagonal, diagonal] += column + idle
    size = column.mean(-1)[..., None, None] / weight.shape[-1]
    matrix += size * (~idle[..., :, None] & ~idle[..., None, :])  # the sum of effects is zero
    right = (weight * (table - (share * table).sum(-1, keepdims=True))).sum(-2)
    effect = np.linalg.solve(matrix, right[..., None])[..., 0]
    residuals = table - effect[..., None, :]
    residuals = np.where(weight > 0, residuals - (share * residuals).sum(-1, keepdims=True), 0)
    return np.where(idle, np.nan, effect), residuals


def fit_workers(data: Table, worker: Int[np.ndarray, " blocks"], reference: Sequence[int]) -> Fit:
    """Fit arms that were measured next to each other; row effects are free.

    The references are one program: they share a variance. The differences of their effects add one
    degree of freedom to it for each reference after the first. So two references give a variance
    even with one worker.

    Args:
        data: Blocks x arms; NaN where an arm was not measured. Every block has all references.
        worker: Worker of each block.
        reference: Columns of the references.
    """
    arms, reference = data.shape[1], list(reference)
    padded = _winsorise_two_way(stack_by_worker(data, worker))
    known = ~np.isnan(padded)
    table, residuals = fit_two_way(padded, known.astype(float))
    counts = known.sum(1)
    present = counts > 0
    index = np.arange(arms)
    index[reference] = first = reference[0]

    def sum_shared(values: Arms) -> Arms:
        return np.bincount(index, values, minlength=arms).astype(float)

    free = sum_shared((counts - present).sum(0))
    total = float(known.sum() - known.any(2).sum() - present.sum() + len(padded))
    of_blocks = _average_squares(sum_shared((residuals**2).sum((0, 1))), free, total)

    def fit_means(weight: Table) -> WorkerFit:
        effect, residuals = fit_two_way(table, weight)
        squares = sum_shared((weight * residuals**2).sum(0))
        free = sum_shared(np.maximum(present.sum(0) - 1, 0))
        total = float(present.sum() - len(table) - present.any(0).sum() + 1)
        mean, df, total = _average_squares(squares, free, total)
        if more := len(reference) - 1:
            level = effect[reference]
            extra = (weight.sum(0)[reference] * (level - level.mean()) ** 2).sum()
            mean[first] = (mean[first] * df[first] + extra) / (df[first] + more)
            df[first] += more
            total += more
        return effect, MeanSquares(mean, df, total), 0.0

    return _fit_components(fit_means, counts, of_blocks, index)


def fit_pairs(data: Table, pair: Int[np.ndarray, " blocks"]) -> Fit:
    """Fit differences between two sides; the common effect of a pair counts as noise.

    Args:
        data: Blocks x arms, new less base; NaN where an arm was not measured on both.
        pair: Pair of workers of each block.
    """
    padded = stack_by_worker(data, pair)
    known = ~np.isnan(padded)
    counts = known.sum(1)
    padded = winsorise_blocks(padded, np.nan_to_num(padded))
    table = _divide(np.where(known, padded, 0).sum(1), counts)
    residuals = np.where(known, padded - table[:, None], 0)
    free = (counts - (counts > 0)).sum(0).astype(float)
    of_blocks = _average_squares((residuals**2).sum((0, 1)), free, free.sum())

    def fit_means(weight: Table) -> WorkerFit:
        column = weight.sum(0)
        effect = np.where(column > 0, _divide((weight * table).sum(0), column), np.nan)
        scaled = np.sqrt(weight) * np.where(weight > 0, table - effect, 0)
        squares, arms = (scaled**2).sum(0), int((column > 0).sum())
        # The square of the sum over arms, less their squares: twice the products of any two
        products = (scaled.sum(1) ** 2).sum() - squares.sum()
        correlation = products / ((arms - 1) * squares.sum()) if arms > 1 and squares.any() else 0
        correlation = min(max(float(correlation), 0.0), 1.0)
        df = np.maximum((weight > 0).sum(0) - 1, 0).astype(float)
        # Arms that move together say less about their variance than so many independent ones
        total = df.sum() / (1 + (arms - 1) * correlation**2)
        return effect, MeanSquares(_divide(squares, df), df, total), correlation

    return _fit_components(fit_means, counts, of_blocks, np.arange(free.size))


def winsorise_blocks(
    table: Table, residuals: Table, axes: Sequence[int] = (1,), far: float = FAR_RESIDUAL
) -> Table:
    """Return blocks whose outliers are moved towards the others of their worker.

    Another guest of the host may slow one arm's turns of a block down by half and leave the others
    alone. Residuals without their medians (Tukey 1977, median polish) are limited to `far` robust
    standard deviations of their arm, or of all arms if these vary more. An arm with one or two
    blocks in a worker keeps its mean: either block may be the outlier.

    Args:
        table: Workers x blocks x arms; NaN where there is no datum.
        residuals: Residuals of the table, which are ignored where it is NaN.
        axes: Axes along which medians are removed: 1 for those of an arm in a worker, 2 for those
            of a block.
        far: Limit in standard deviations.
    """
    known = ~np.isnan(table)
    residuals = np.where(known, residuals, 0.0)
    for axis in axes:
        some = np.where(known | ~known.any(axis, keepdims=True), residuals, np.nan)
        residuals = np.where(known, residuals - np.nanmedian(some, axis, keepdims=True), 0.0)
    sizes = np.abs(residuals)
    sizes = np.where(sizes > ZERO_RESIDUAL, sizes, np.nan)  # a median itself has none
    middles = [
        np.median(column[~np.isnan(column)]) if (column > 0).any() else 0.0 for column in sizes.T
    ]
    overall = np.median(sizes[~np.isnan(sizes)]) if (sizes > 0).any() else 0.0
    bound = far * MAD_TO_SD * np.maximum(middles, overall)
    return table - np.where(bound > 0, residuals - np.clip(residuals, -bound, bound), 0.0)


def stack_by_worker(data: Table, worker: Int[np.ndarray, " blocks"]) -> Table:
    """Return workers x blocks x arms, padded with NaN for workers with fewer blocks."""
    blocks = [data[worker == label] for label in np.unique(worker)]
    out = np.full((len(blocks), max(map(len, blocks)), data.shape[1]), np.nan)
    for table, rows in zip(out, blocks, strict=True):
        table[: len(rows)] = rows
    return out


def _winsorise_two_way(table: Table) -> Table:
    """Return workers x blocks x arms without outliers, free of the effects of blocks."""
    alone = table.shape[1] == 1  # such workers are like blocks of one worker
    blocks = table.swapaxes(0, 1) if alone else table
    residuals = fit_two_way(blocks, (~np.isnan(blocks)).astype(float))[1]
    far = FAR_RESIDUAL_ALONE if alone else FAR_RESIDUAL
    blocks = winsorise_blocks(blocks, residuals, (1, 2, 1), far)
    return blocks.swapaxes(0, 1) if alone else blocks


def _average_squares(squares: Arms, df: Arms, total: float) -> MeanSquares:
    """Return mean squares; rows and effects take degrees of freedom from all arms alike."""
    all_free = df.sum()
    df = df * (total / all_free if all_free else 0.0)
    return MeanSquares(_divide(squares, df), df, total)


def _fit_components(
    fit_table: Callable[[Table], WorkerFit],
    counts: Int[np.ndarray, "workers arms"],
    of_blocks: MeanSquares,
    index: Int[np.ndarray, " arms"],
) -> Fit:
    """Return effects and variances: tau^2 by moments, then up to three rounds of reweighting.

    Args:
        fit_table: Fits workers x arms with given weights.
        counts: Blocks of each worker and arm.
        of_blocks: Mean squares of blocks within workers.
        index: Index of each arm's variance; arms that share one have the same.
    """
    present = counts > 0
    blocks, workers = counts.sum(0), present.sum(0)
    nothing = np.zeros(blocks.shape)
    effect, squares, correlation = fit_table(present.astype(float))
    if not (squares.df > 0).any():
        return Fit(effect, nothing + np.inf, nothing, blocks, workers)
    sigma2 = np.nan_to_num(pool_unless_noisy(of_blocks, nothing)[0][index])
    explained = np.where(present, _divide(sigma2, counts), 0)
    between = average_variances(squares.mean, squares.df)
    tau2 = max(between - float(explained.sum() / present.sum()), 0.0)
    if tau2 == 0 and not explained.any():
        return Fit(effect, nothing, nothing + squares.total, blocks, workers, correlation)
    weight = present / np.where(present, tau2 + explained, 1)
    factor = np.ones(blocks.shape)
    for _ in range(3):
        effect, squares, correlation = fit_table(weight / factor)
        scaled = squares._replace(mean=squares.mean * factor)
        variance, df, pooled = pool_unless_noisy(scaled, of_blocks.df)
        variance = np.maximum(variance, 1.0)
        last, factor = factor, (variance / max(pooled, 1.0))[index]
        if np.allclose(last, factor):
            break
    with np.errstate(divide="ignore"):
        variance = variance[index] / weight.sum(0)
    return Fit(effect, variance, df[index], blocks, workers, correlation)


def _divide(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return values / sizes; where a size is zero, the value itself."""
    return values / np.where(sizes > 0, sizes, 1)
