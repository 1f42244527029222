"""Effects of arms and their variances: by hand, and on tables with known effects."""

import numpy as np
import pytest

from bench.stats.ratios import (
    FAR_RESIDUAL,
    MAD_TO_SD,
    fit_pairs,
    fit_two_way,
    fit_workers,
    winsorise_blocks,
)


def test_weights_count_and_idle_arms_have_no_effect() -> None:
    table = np.array([[0.0, 1.0, 9.0], [0.0, 2.0, 9.0]])
    weight = np.array([[1.0, 1.0, 0.0], [3.0, 3.0, 0.0]])
    effect, residuals = fit_two_way(table, weight)
    assert effect[1] - effect[0] == pytest.approx((1 + 3 * 2) / 4)
    assert np.isnan(effect[2])
    assert residuals[0] == pytest.approx([0.375, -0.375, 0])
    both = fit_two_way(np.stack([table, 2 * table]), np.stack([weight, weight]))[0]
    assert both[1][:2] == pytest.approx(2 * effect[:2]), "a batch is fitted one by one"


def test_an_outlier_is_moved_to_the_bound_and_two_blocks_stay() -> None:
    residuals = np.array([[-1.0], [1.0], [-2.0], [2.0], [40.0]])[None]
    expected = residuals.copy()
    sizes = np.abs(residuals - 1)  # without their median, which is 1
    expected[0, -1] = 1 + FAR_RESIDUAL * MAD_TO_SD * np.median(sizes[sizes > 0])
    assert winsorise_blocks(5 + residuals, residuals) == pytest.approx(5 + expected)
    two = np.array([[0.0], [9.0]])[None]
    assert winsorise_blocks(two, two) == pytest.approx(two)


def test_pairs_by_hand() -> None:
    """The mean over pairs, and what these differ by; what a pair's arms share is told."""
    data = np.array([[0.02, 0.05], [0.04, 0.07], [0.03, 0.06], [0.07, 0.10]])
    fit = fit_pairs(data, np.arange(4))
    assert fit.effect == pytest.approx([0.04, 0.07])
    assert fit.variance == pytest.approx(2 * [np.var(data[:, 0], ddof=1) / 4])
    assert fit.correlation == pytest.approx(1)
    assert fit.df == pytest.approx(2 * [3]), "two arms that go together tell no more than one"
    against = fit_pairs(data * [1, -1], np.arange(4))
    assert against.correlation == 0
    assert against.df == pytest.approx([6, 6])
    assert ([*fit.blocks], [*fit.workers]) == ([4, 4], [4, 4])
    still = fit_pairs(np.full((4, 2), 0.1), np.arange(4) // 2)
    assert [*still.variance] == [0, 0], "what does not vary is exact"
    lone = fit_pairs(data[:1], np.zeros(1))
    assert ([*lone.variance], [*lone.df]) == ([np.inf] * 2, [0, 0]), "one pair has no variance"


def test_references_share_a_variance() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(0, 0.01, (48, 4)) * [5, 0.2, 1, 1]
    fit = fit_workers(data, np.repeat(np.arange(12), 4), [0, 1])
    assert fit.variance[0] == fit.variance[1] > 2 * fit.variance[2]
    assert fit.variance[2] == pytest.approx(fit.variance[3])


def test_luck_of_workers_and_noise_of_blocks_add_up() -> None:
    """An effect's variance is (tau^2 + sigma^2 / blocks) / workers, in the mean of many runs.

    An arm that is noisier by chance has more: that is a tenth.
    """
    rng, workers, blocks, tau, sigma = np.random.default_rng(1), 8, 3, 0.02, 0.01
    worker = np.repeat(np.arange(workers), blocks)
    variances = []
    for _ in range(200):
        luck, noise = rng.normal(0, tau, (workers, 6)), rng.normal(0, sigma, (worker.size, 6))
        rows = rng.normal(0, 0.3, (worker.size, 1))  # a slow block slows all arms down
        variances.append(fit_workers(luck[worker] + noise + rows, worker, [0, 1]).variance.mean())
    expected = (tau**2 + sigma**2 / blocks) / workers
    assert np.mean(variances) == pytest.approx(1.1 * expected, rel=0.05)
