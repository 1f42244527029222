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


def line() -> np.ndarray:
    return np.tile(5e-6 + 2e-6 * SIZES, (4, 1))


def test_a_line_whatever_is_missing() -> None:
    costs = line()
    costs[0, 3], costs[1, :5] = np.nan, np.nan  # the second worker has one size: no line
    law = fit(SIZES, costs, costs[2])
    assert law is not None
    assert (law.fixed, law.each) == pytest.approx((5e-6, 2e-6))
    assert law.workers == 3
    assert law.misfit < 1e-9
    assert fit(SIZES, costs[:3], costs[2]) is None, "two lines tell no doubt"


def test_the_misfit_is_the_largest_distance_from_the_line() -> None:
    costs = np.tile(1e-6 * SIZES**1.2, (3, 1))
    law = fit(SIZES, costs, costs[0])
    assert law is not None
    expected = law.fixed + law.each * SIZES
    assert law.misfit == pytest.approx(np.max(np.abs(costs[0] / expected - 1)))
    assert law.misfit > 0.02


def test_estimates_of_a_law() -> None:
    law = Law(fixed=1e-5, each=2e-6, covariance=(4.0, 1.0, 9.0), workers=5, t=2.0, misfit=0.0)
    for fixed, arrays, value, error in ((1, 0, 1e-5, 2), (0, 1, 2e-6, 3), (1, 2, 1.4e-5, 44**0.5)):
        row = law.estimate(CELL, HOST, fixed=fixed, arrays=arrays)
        assert (row.form, row.unit, row.against) == ("added", "s", "pure_jax/pure")
        assert (row.value, row.standard_error) == pytest.approx((value, error))
        assert (row.low, row.high) == pytest.approx((value - 2 * error, value + 2 * error))
        assert (row.df, row.workers) == (4, 5)


@pytest.mark.parametrize("workers", [4, 12])
def test_intervals_cover_what_was_planted(workers: int) -> None:
    rng, runs = np.random.default_rng(workers), 400
    expected = TRUTH[0] + TRUTH[1] * SIZES
    covered = np.zeros(3)
    for _ in range(runs):
        speed = rng.normal(1, 0.03, (workers, 1))  # of a worker, the same at all sizes
        law = fit(SIZES, expected * speed * rng.normal(1, 0.01, (workers, SIZES.size)), expected)
        assert law is not None
        rows = [
            law.estimate(CELL, HOST, fixed=fixed, arrays=n)
            for fixed, n in ((1, 0), (0, 1), (1, 147))
        ]
        values = *TRUTH, TRUTH[0] + TRUTH[1] * 147
        covered += [r.low <= v <= r.high for r, v in zip(rows, values, strict=True)]  # type: ignore[operator]
    assert (covered / runs > 0.92).all()
    assert (covered / runs < 0.98).all()
