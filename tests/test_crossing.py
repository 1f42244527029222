"""Where a difference stops mattering."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.stats.crossing import crossing
from bench.stats.ratios import Estimate, corrected

BOUND = math.log1p(0.02)


def exactly(*log_ratios: float, error: float = 1e-9) -> list[Estimate]:
    """Return estimates with next to no doubt."""
    return [corrected(value, error, 50.0, 10, 5) for value in log_ratios]


@pytest.mark.parametrize(
    ("sizes", "log_ratios", "at"),
    [
        ([10, 1000], (3 * BOUND, 0), 10 * 100 ** (2 / 3)),
        ([8, 16, 32, 64], (2 * BOUND, 0, 2 * BOUND, 0), 32 * math.sqrt(2)),  # for good
        ([8, 16], (0.3, 0.2), math.inf),
        ([8, 16], (0.001, 0.2), math.inf),
        ([8, 16], (0.001, -0.001), 8),
    ],
)
def test_a_crossing_is_where_the_line_meets_the_margin(
    sizes: list[int], log_ratios: tuple[float, ...], at: float
) -> None:
    found = crossing(sizes, exactly(*log_ratios), 0.02)
    assert found == pytest.approx((at, at, at), rel=1e-3)


def test_the_interval_of_a_crossing_covers_it() -> None:
    random, covered = np.random.default_rng(0), 0
    truth, sizes = np.array([4 * BOUND, 2 * BOUND, 0.5 * BOUND, 0]), [8, 32, 128, 512]
    exact = crossing(sizes, exactly(*truth), 0.02).at
    for _ in range(200):
        drawn = exactly(*(truth + random.normal(0, 0.004, 4)), error=0.004)
        low, high = crossing(sizes, drawn, 0.02)[1:]
        covered += low <= exact <= high
    assert covered >= 180
