"""Variances: pooled unless one is noisier, averaged robustly, and summed."""

import math

import numpy as np
import pytest

from bench.stats.variances import MeanSquares, average_variances, pool_unless_noisy, sum_variances

NONE = np.zeros(4)


def squares(*variances: float, df: float = 6.0) -> MeanSquares:
    return MeanSquares(np.array(variances), np.full(len(variances), df), df * len(variances))


def test_arms_that_vary_alike_share_one_variance() -> None:
    variance, df, pooled = pool_unless_noisy(squares(1.0, 1.02, 0.98, 1.0), NONE)
    assert variance == pytest.approx(4 * [pooled])
    assert pooled == pytest.approx(1, rel=0.1)
    assert df == pytest.approx(4 * [24])


def test_a_noisy_arm_has_its_own_variance_and_a_quiet_one_the_others() -> None:
    variance, df, pooled = pool_unless_noisy(squares(1.0, 1.0, 20.0, 0.01), NONE)
    assert variance[2] == pytest.approx(20, rel=0.02)
    assert df[2] == pytest.approx(6, rel=0.05)
    assert variance[[0, 1, 3]] == pytest.approx(3 * [pooled], rel=0.01)
    between, between_df, _ = pool_unless_noisy(squares(1.0, 1.0, 2.5, 1.0), NONE)
    assert pooled < between[2] < 2.5
    assert 6 < between_df[2] < 24


def test_an_arm_borrows_little_unless_other_data_show_it_to_be_like_the_rest() -> None:
    ten = MeanSquares(np.ones(11), np.ones(11), 11.0)
    few, many = (pool_unless_noisy(ten, np.full(11, more))[1] for more in (0.0, 4.0))
    assert few == pytest.approx(11 * [4])
    assert many == pytest.approx(11 * [11])


def test_what_is_unknown_and_what_does_not_vary() -> None:
    unknown = MeanSquares(np.ones(4), NONE, 0.0)
    variance, df, pooled = pool_unless_noisy(unknown, NONE)
    assert np.isnan([*variance, pooled]).all()
    assert (df == 0).all()
    still, df, pooled = pool_unless_noisy(squares(0.0, 0.0, 0.0, 0.0), NONE)
    assert (pooled, [*still], [*df]) == (0, 4 * [0], 4 * [24])
    one = MeanSquares(np.array([2.0, 9.0]), np.array([5.0, 0.0]), 5.0)
    variance, df, _ = pool_unless_noisy(one, np.zeros(2))
    assert [*variance] == [2, 2], "an arm without a variance has the others'"
    assert [*df] == [5, 5]


def test_large_variances_count_less_in_the_mean_and_a_normal_sample_is_not_biased() -> None:
    df = np.full(9, 8.0)
    usual = np.array([1.0, 0.7, 1.3, 0.9, 1.1, 0.8, 1.2, 1.0, 1.0])
    busy = np.array([*usual[:-1], 100.0])
    assert average_variances(busy, df) < 1.6 < busy.mean()
    assert average_variances(busy[-2:], df[-2:]) == busy[-2:].mean(), "of two, either may be usual"
    assert average_variances(np.array([1.0, 3.0]), np.array([1.0, 0.0])) == 1
    drawn = np.random.default_rng(0).chisquare(8, (4000, 9)) / 8
    means = [average_variances(row, df) for row in drawn]
    assert np.mean(means) == pytest.approx(1, abs=0.02)


def test_sums_by_hand() -> None:
    assert sum_variances([(2.0, 4.0), (2.0, 4.0)], pooled=False) == pytest.approx((4, 8))
    assert sum_variances([(2.0, 4.0), (2.0, 4.0)], pooled=True) == pytest.approx((4, 4))
    assert sum_variances([(3.0, 5.0), (0.0, 0.0)], pooled=False) == pytest.approx((3, 5))
    assert sum_variances([(3.0, math.inf)], pooled=False) == (3, math.inf)
    assert sum_variances([(3.0, 5.0), (math.inf, 2.0)], pooled=False) == (math.inf, 0)
    assert sum_variances([(3.0, 5.0), (1.0, 0.0)], pooled=False) == (4, 0), "one is a guess"
    assert sum_variances([(0.0, 7.0)], pooled=True) == (0, 0)
