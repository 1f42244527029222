"""The law of costs: a line in each worker, and the doubt of its parts."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats.law import law

SIZES = np.array([8.0, 14, 26, 50, 98, 194])


def test_a_line_is_found_with_whatever_is_missing() -> None:
    costs = np.tile(5e-6 + 2e-6 * SIZES, (4, 1))
    costs[0, 3], costs[1, :5] = np.nan, np.nan  # the second worker has one size: no line
    found = law(SIZES, costs, costs[2])
    assert found is not None
    assert (found.fixed, found.each) == pytest.approx((5e-6, 2e-6))
    assert found.workers == 3
    assert found.at(100) == pytest.approx((2.05e-4,) * 3)
    assert found.misfit < 1e-9
    assert law(SIZES, costs[:3], costs[2]) is None


def test_the_misfit_is_the_largest_distance_from_the_line() -> None:
    costs = np.tile(1e-6 * SIZES**1.2, (3, 1))
    found = law(SIZES, costs, costs[0])
    assert found is not None
    line = found.fixed + found.each * SIZES
    assert found.misfit == pytest.approx(np.max(np.abs(costs[0] / line - 1)))
    assert found.misfit > 0.02


@pytest.mark.parametrize("workers", [4, 12])
def test_intervals_cover_what_was_planted(workers: int) -> None:
    rng, runs = np.random.default_rng(workers), 400
    truth = np.array([2e-5, 3e-6])
    expected = truth[0] + truth[1] * SIZES
    covered = np.zeros(3)
    for _ in range(runs):
        own = rng.normal(1, 0.03, (workers, 1))  # of a worker, the same at all sizes
        costs = expected * own * rng.normal(1, 0.01, (workers, SIZES.size))
        found = law(SIZES, costs, expected)
        assert found is not None
        ranges = found.of_fixed, found.of_each, found.at(147)
        values = *truth, truth[0] + truth[1] * 147
        covered += [r.low <= v <= r.high for r, v in zip(ranges, values, strict=True)]
    assert (covered / runs > 0.92).all()
    assert (covered / runs < 0.98).all()
