"""Effects of arms and their variances: blocks nested in workers, or in pairs of workers.

A log datum of an arm in a block is the arm's effect + the block's (common to all its arms) + the
worker's luck with this arm (variance `tau^2`) + the block's (variance `sigma^2`): the nested
random-effects model of Kalibera & Jones (2013, "Rigorous benchmarking in reasonable time") with
block effects (intrablock analysis, Yates 1940). Blocks are fitted within each worker, after their
outliers are moved towards the others (`winsorise_blocks`); then workers are the rows of a second
table, whose cells weigh 1 / (tau^2 + sigma^2 / blocks). Arms share one variance, unless an arm is
noisier than the rest (`bench.stats.variances`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats.variances import MeanSquares, average_variances, pool_unless_noisy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float, Int

    type Table = Float[np.ndarray, "*batch rows arms"]
    type Arms = Float[np.ndarray, " arms"]
    type WorkerFit = tuple[Arms, MeanSquares, float]
    """Workers x arms fitted with given weights: effects, residuals, correlation of two effects."""

MAD_TO_SD = 1.4826
"""Standard deviation of a normal variable, divided by its median absolute deviation."""
FAR_RESIDUAL = 2.0
"""Bound of residuals in standard deviations: a larger residual counts as this."""
FAR_RESIDUAL_ALONE = 3.0
"""Bound of residuals where each worker has one block. Bounded residuals alone give their variance
then: with 2, simulated families were covered in 90 to 97 %, with this in 92 to 98 %."""
ZERO_RESIDUAL = 1e-12
"""Size up to which a residual is zero but for rounding."""


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
    group = np.arange(arms)
    group[reference] = first = reference[0]

    def sum_groups(values: Arms) -> Arms:
        return np.bincount(group, values, minlength=arms).astype(float)

    free = sum_groups((counts - present).sum(0))
    total = float(known.sum() - known.any(2).sum() - present.sum() + len(padded))
    of_blocks = _average_squares(sum_groups((residuals**2).sum((0, 1))), free, total)

    def fit_means(weight: Table) -> WorkerFit:
        effect, residuals = fit_two_way(table, weight)
        squares = sum_groups((weight * residuals**2).sum(0))
        free = sum_groups(np.maximum(present.sum(0) - 1, 0))
        total = float(present.sum() - len(table) - present.any(0).sum() + 1)
        mean, df, total = _average_squares(squares, free, total)
        if more := len(reference) - 1:
            level = effect[reference]
            extra = (weight.sum(0)[reference] * (level - level.mean()) ** 2).sum()
            mean[first] = (mean[first] * df[first] + extra) / (df[first] + more)
            df[first] += more
            total += more
        return effect, MeanSquares(mean, df, total), 0.0

    return _fit_components(fit_means, counts, of_blocks, group)


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
    group: Int[np.ndarray, " arms"],
) -> Fit:
    """Return effects and variances: tau^2 by moments, then up to three rounds of reweighting.

    Args:
        fit_table: Fits workers x arms with given weights.
        counts: Blocks of each worker and arm.
        of_blocks: Mean squares of blocks within workers.
        group: Arms that share a variance have one number; its place is in `of_blocks`.
    """
    present = counts > 0
    blocks, workers = counts.sum(0), present.sum(0)
    nothing = np.zeros(blocks.shape)
    effect, squares, correlation = fit_table(present.astype(float))
    if not (squares.df > 0).any():
        return Fit(effect, nothing + np.inf, nothing, blocks, workers)
    sigma2 = np.nan_to_num(pool_unless_noisy(of_blocks, nothing)[0][group])
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
        last, factor = factor, (variance / max(pooled, 1.0))[group]
        if np.allclose(last, factor):
            break
    with np.errstate(divide="ignore"):
        variance = variance[group] / weight.sum(0)
    return Fit(effect, variance, df[group], blocks, workers, correlation)


def _divide(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return values / sizes; where a size is zero, the value itself."""
    return values / np.where(sizes > 0, sizes, 1)
