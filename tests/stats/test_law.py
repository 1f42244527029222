"""The law of costs: a line in each worker, and the doubt of its parts."""

from __future__ import annotations

import numpy as np
import pytest

from bench.cells import Cell
from bench.metrics import HOST
from bench.stats.law import Law, fit

SIZES = np.array([8.0, 14, 26, 50, 98, 194])
CELL = Cell("flax_nnx", "jit", "depth", "cpu")
TRUTH = 2e-5, 3e-6


def points(workers: int, sizes: int, *, one: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return sizes and workers: each worker measures all sizes, or one of them in turn."""
    if one:
        number = np.arange(workers * sizes)
        return SIZES[number % sizes], number
    return np.tile(SIZES[:sizes], workers), np.repeat(np.arange(workers), sizes)


@pytest.mark.parametrize("one", [False, True])
def test_a_line_is_found(one: bool) -> None:
    sizes, workers = points(3, 4, one=one)
    costs = 5e-6 + 2e-6 * sizes
    law = fit(sizes, costs, costs, workers)
    assert law is not None
    assert (law.fixed, law.each) == pytest.approx((5e-6, 2e-6))
    assert law.workers == (12 if one else 3)
    assert law.misfit < 1e-9
    assert law.estimate(CELL, HOST, arrays=100).half_width < 1e-9


@pytest.mark.parametrize(
    ("sizes", "workers", "known"),
    [
        ([8, 14, 8, 14], [0, 0, 1, 1], True),
        ([8, 8, 14, 14], [0, 1, 2, 3], True),
        ([8, 14], [0, 0], False),  # without the only worker there is nothing
        ([8, 8, 14], [0, 1, 2], False),  # without the last one there is one size
        ([8, 8, 8], [0, 1, 2], False),
    ],
)
def test_a_law_needs_a_line_whichever_worker_is_left_out(
    sizes: list[int], workers: list[int], known: bool
) -> None:
    costs = np.array(sizes) * 1e-6
    law = fit(np.array(sizes, float), costs, costs, np.array(workers))
    assert (law is not None) is known


def test_lines_of_workers_that_measure_all_sizes_vary_as_a_mean_of_them_does() -> None:
    rng = np.random.default_rng(0)
    sizes, workers = points(6, 6, one=False)
    costs = 1e-6 * sizes * rng.normal(1, 0.1, 6)[workers]
    law = fit(sizes, costs, np.ones(sizes.size), workers)
    lines = [np.polyfit(SIZES, costs[workers == w], 1) for w in range(6)]
    each, fixed = np.mean(lines, 0)
    assert law is not None
    assert (law.fixed, law.each) == pytest.approx((fixed, each))
    assert law.covariance[2] == pytest.approx(np.var(lines, 0, ddof=1)[0] / 6)


def test_the_misfit_is_the_largest_distance_from_the_line() -> None:
    sizes, workers = points(3, 6, one=False)
    costs = 1e-6 * sizes**1.2
    law = fit(sizes, costs, costs, workers)
    assert law is not None
    expected = law.fixed + law.each * sizes
    assert law.misfit == pytest.approx(np.max(np.abs(costs / expected - 1)))
    assert law.misfit > 0.02


def test_estimates_of_a_law() -> None:
    law = Law(fixed=1e-5, each=2e-6, covariance=(4.0, 1.0, 9.0), workers=5, t=2.0, misfit=0.0)
    for fixed, arrays, value, error in ((1, 0, 1e-5, 2), (0, 1, 2e-6, 3), (1, 2, 1.4e-5, 44**0.5)):
        row = law.estimate(CELL, HOST, fixed=fixed, arrays=arrays)
        assert (row.form, row.unit, row.against) == ("added", "s", "pure_jax/pure")
        assert (row.value, row.standard_error) == pytest.approx((value, error))
        assert (row.low, row.high) == pytest.approx((value - 2 * error, value + 2 * error))
        assert (row.df, row.workers) == (3, 5)


@pytest.mark.parametrize(("workers", "one"), [(4, False), (12, False), (3, True)])
def test_intervals_cover_what_was_planted(workers: int, one: bool) -> None:
    rng, runs = np.random.default_rng(workers), 300
    sizes, numbers = points(workers, 6, one=one)
    expected = TRUTH[0] + TRUTH[1] * sizes
    covered = np.zeros(3)
    for _ in range(runs):
        speed = rng.normal(1, 0.03, numbers.max() + 1)  # of a worker, the same at all sizes
        costs = expected * speed[numbers] * rng.normal(1, 0.01, sizes.size)
        law = fit(sizes, costs, expected, numbers)
        assert law is not None
        rows = [
            law.estimate(CELL, HOST, fixed=fixed, arrays=n)
            for fixed, n in ((1, 0), (0, 1), (1, 147))
        ]
        values = *TRUTH, TRUTH[0] + TRUTH[1] * 147
        covered += [r.low <= v <= r.high for r, v in zip(rows, values, strict=True)]  # type: ignore[operator]
    assert (covered / runs > 0.92).all(), covered / runs
