"""Ratios and their intervals: by hand, against tables, and on simulated runs."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.estimates import Verdict
from bench.stats.family import Dunnett
from bench.stats.ratios import (
    Contrasts,
    contrast_added_time,
    contrast_cold_samples,
    contrast_pairs,
    contrast_with_references,
)
from bench.stats.verdicts import verdict
from tests.commands import script

SIMULATION = script("results/selftest/simulation.py")
Condition, Noise, odds = SIMULATION.Condition, SIMULATION.Noise, SIMULATION.odds

MARGIN = 0.02
REFERENCES = [0, 1]


def member(contrasts: Contrasts, number: int) -> Any:
    row = SimpleNamespace(**{k: float(v[number]) for k, v in contrasts._asdict().items()})
    row.half_width = (row.high - row.low) / 2
    return row


def test_one_far_round_among_workers_of_one_block_widens_its_arm_a_little() -> None:
    """As in stages, where another guest of the host had the core for one arm's turn."""
    random = np.random.default_rng(0)
    data = random.normal(0, 0.03, (10, 8))
    usual = member(contrast_with_references(data, np.arange(10), REFERENCES, [2, 3]), 0)
    data[4, 2] += 0.5
    far = member(contrast_with_references(data, np.arange(10), REFERENCES, [2, 3]), 0)
    assert far.half_width < 1.5 * usual.half_width
    assert abs(far.log_ratio - usual.log_ratio) < usual.half_width / 2


def noisy_run(seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return Noise(Condition(4, 5, 3, missing=missing), seed).table(2)


@pytest.mark.parametrize(
    ("arms", "df", "critical"),  # Dunnett (1964), table 2a: two-sided, 5 %
    [(1, 10, 2.23), (2, 5, 3.03), (3, 10, 2.76), (9, 20, 2.95), (2, 20, 2.38), (5, 60, 2.58)],
)
def test_critical_values_are_dunnetts(arms: int, df: int, critical: float) -> None:
    tests = Dunnett(np.full(arms, 0.5), df)
    assert tests.critical_value(df) == pytest.approx(critical, abs=0.013)
    assert (
        tests.critical_value(3) > 1.2 * critical
    )  # fewer degrees of freedom keep the marginal level
    for own in (df, 3):
        assert tests.p_value(tests.critical_value(own), own) == pytest.approx(0.05, abs=1e-6)


def test_one_arm_and_one_reference_by_hand() -> None:
    data = np.array([[0.0, 0.01], [0.0, 0.03], [0.0, 0.05]])
    row, error = (
        member(contrast_with_references(data, np.arange(3), [0], [1]), 0),
        0.02 / math.sqrt(3),
    )
    assert (row.log_ratio, row.df, row.standard_error) == pytest.approx((0.03, 2, error))
    assert row.half_width == pytest.approx(4.3027 * error, rel=0.001)
    assert (row.blocks, row.workers, row.p < 0.05) == (3, 3, False)


def test_two_references_by_hand_and_one_tells_no_error_of_a_lone_worker() -> None:
    row = member(
        contrast_with_references(np.array([[-0.01, 0.01, 0.05]]), np.zeros(1), REFERENCES, [2]), 0
    )
    assert row.df == 1  # the references differ by 0.02: variance 0.0002 of either
    assert row.standard_error == pytest.approx(math.sqrt(1.5 * 0.0002))
    assert row.high == pytest.approx(0.05 + 12.706 * row.standard_error, rel=1e-3)
    data = np.array([[0.0, 0.5], [0.01, 0.5], [0.0, 0.6]])
    lone = member(contrast_with_references(data, np.zeros(3), [0], [1]), 0)
    assert (lone.low, lone.high, lone.p) == (-math.inf, math.inf, 1)


def test_a_lone_arm_of_an_ab_is_a_t_test_over_pairs() -> None:
    difference = np.array([[0.02], [0.04], [0.03], [0.07]])
    row, error = member(contrast_pairs(difference, np.arange(4)), 0), np.std(difference, ddof=1) / 2
    assert (row.log_ratio, row.standard_error) == pytest.approx((0.04, error))
    assert row.half_width == pytest.approx(3.1824 * error, rel=1e-3)
    floor = member(contrast_pairs(difference, np.array([0, 1, 1, 0])), 0)
    of_blocks = (0.05**2 / 2 + 0.01**2 / 2) / 2  # more than what the two pairs differ by
    assert floor.standard_error == pytest.approx(math.sqrt(of_blocks / 4))


def test_order_labels_and_units_do_not_matter() -> None:
    data, worker = noisy_run(5, missing=0.6)
    members = [2, 3, 4, 5]
    expected = contrast_with_references(data, worker, REFERENCES, members)
    order = np.random.default_rng(0).permutation(len(data))
    columns = [3, 0, 5, 2, 1, 4]
    places = [columns.index(arm) for arm in members]
    variants = {
        "blocks": contrast_with_references(data[order], worker[order], REFERENCES, members),
        "labels": contrast_with_references(data, 7 - 3 * worker, REFERENCES, members),
        "unit": contrast_with_references(data + math.log(1e6), worker, REFERENCES, members),
        "speed": contrast_with_references(
            data + np.sin(np.arange(15))[:, None], worker, [1, 0], members
        ),
        "columns": contrast_with_references(data[:, columns], worker, [1, 4], places),
    }
    for name, contrasts in variants.items():
        for ours, theirs in zip(contrasts, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5), name


def test_missing_blocks_arms_and_references() -> None:
    data, worker = noisy_run(1)
    before = member(contrast_with_references(data, worker, REFERENCES, [4]), 0)
    data[4:, 2] = data[:, 3] = data[0, 0] = np.nan
    contrasts = contrast_with_references(data, worker, REFERENCES, [2, 3, 4])
    few, none, other = (member(contrasts, i) for i in range(3))
    assert math.isnan(none.log_ratio)
    assert (few.blocks, few.workers) == (3, 2)  # the first block has no reference
    assert (other.blocks, before.blocks) == (14, 15)
    assert few.standard_error > other.standard_error
    nothing = np.where(data > -9, np.nan, data)
    for empty in (
        contrast_with_references(nothing, worker, REFERENCES, [2]),
        contrast_pairs(nothing, worker, [2]),
    ):
        assert np.isnan(empty.log_ratio).all()


def test_a_noisy_arm_widens_its_own_interval_and_members_alone_pay_for_the_family() -> None:
    condition = Condition(13, 12, 3)
    widths = [odds(replace(condition, noisy=factor), 40).half_width for factor in (1, 4)]
    assert widths[1] < 1.1 * widths[0]
    data, worker = Noise(replace(condition, noisy=4), 0).table(2)
    whole = contrast_with_references(data, worker, REFERENCES, range(2, 15))
    noisy, usual = member(whole, 0), member(whole, 1)
    assert noisy.standard_error > 2 * usual.standard_error
    assert noisy.df < 15 < usual.df
    alone = member(contrast_with_references(data, worker, REFERENCES, [2]), 0)
    assert noisy.half_width > alone.half_width


@pytest.mark.parametrize("seed", range(16))
def test_p_and_interval_agree(seed: int) -> None:
    random = np.random.default_rng(seed)
    condition = Condition(
        arms=int(random.integers(1, 9)),
        workers=int(random.integers(2, 9)),
        blocks=int(random.integers(1, 4)),
        noisy=(1, 4)[seed % 2],
        tails=("normal", "t3")[seed // 2 % 2],
        missing=(0, 0.6)[seed // 4 % 2],
    )
    data, worker = Noise(condition, seed).table(2)
    data[:, 2:] += random.choice([0, 0.01, -0.03, 0.5], condition.arms)
    contrasts = contrast_with_references(data, worker, REFERENCES, range(2, condition.arms + 2))
    assert ((contrasts.p < 0.05) == ((contrasts.low > 0) | (contrasts.high < 0))).all()


@pytest.mark.parametrize(
    ("log_ratio", "half", "result"),
    [
        (0.010, 0.005, Verdict.EQUIVALENT),  # leaves out 1, and is inside
        (0.030, 0.005, Verdict.SLOWER),
        (-0.03, 0.005, Verdict.FASTER),
        (0.010, 0.015, Verdict.INCONCLUSIVE),
        (0.000, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(log_ratio: float, half: float, result: Verdict) -> None:
    assert verdict(log_ratio, log_ratio - half, log_ratio + half, MARGIN) is result


def test_added_seconds_by_hand() -> None:
    """Two references of 80 us; 4, 6 and 8 us more in three workers; another arm of 160 us."""
    us = np.array([[79, 81, 84, 160], [80, 80, 86, 160], [81, 79, 88, 160]]) * 1e-6
    contrasts, level = contrast_added_time(us, np.arange(3), REFERENCES, [2, 3])
    assert level is not None
    assert level == pytest.approx(80e-6)
    assert level * np.expm1(contrasts.log_ratio) == pytest.approx([6e-6, 80e-6])
    assert (contrasts.blocks[0], contrasts.workers[0]) == (3, 3)
    # In a family of one, it is Student's t interval of the three differences.
    alone = member(contrast_added_time(us[:, :3], np.arange(3), REFERENCES, [2])[0], 0)
    half = 4.3027 * 2e-6 / math.sqrt(3)
    ends = [level * math.expm1(end) for end in (alone.low, alone.high)]
    assert ends == pytest.approx([6e-6 - half, 6e-6 + half], rel=1e-3)
    # Where all arms of a worker take twice as long, what they add is the same part of the time.
    slow, other = contrast_added_time(us * [[1], [2], [1]], np.arange(3), REFERENCES, [2, 3])
    assert other == level
    for ours, theirs in ((slow.low, contrasts.low), (slow.high, contrasts.high)):
        assert ours == pytest.approx(theirs)


def test_arms_that_rest_may_be_the_most() -> None:
    """Far from the baseline, and in two blocks of eight: what they take is no outlier."""
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 0.0, *np.log([3.0, 3.3, 3.6, 1.5])])
    data = rng.normal(scale=0.01, size=(32, 6)) + truth + rng.normal(scale=0.3, size=(32, 1))
    data[np.arange(32) % 4 > 0, 2:5] = np.nan
    contrasts = contrast_with_references(data, np.repeat(np.arange(4), 8), REFERENCES, range(2, 6))
    assert contrasts.log_ratio == pytest.approx(truth[2:], abs=0.015)


@pytest.mark.parametrize("sides", [False, True])
def test_a_block_far_from_its_workers_others_counts_less(sides: bool) -> None:
    def slowed(by: float) -> Any:
        data = np.random.default_rng(1).normal(scale=0.01, size=(28, 3))
        data[10, 2] += by
        worker = np.repeat(np.arange(4), 7)
        contrasts = (
            contrast_pairs(data, worker, [2])
            if sides
            else contrast_with_references(data, worker, [0, 1], [2])
        )
        return member(contrasts, 0)

    usual = slowed(0.0)
    for by in (0.4, 4.0):
        assert abs(slowed(by).log_ratio - usual.log_ratio) < 0.2 * 0.4 / 28
        assert slowed(by).standard_error < 2 * usual.standard_error


def test_cold_samples_by_hand() -> None:
    contrasts = contrast_cold_samples(
        [np.array([0.0, 0.2]), np.array([1, 1.2]), np.array([2.0])], [1, 2]
    )
    first, second = member(contrasts, 0), member(contrasts, 1)
    assert (first.log_ratio, first.blocks) == pytest.approx((1.0, 2))
    assert first.standard_error == pytest.approx(math.sqrt((0.02 + 0.02) / 2))
    assert (second.log_ratio, second.blocks) == pytest.approx((1.9, 1))


@pytest.mark.parametrize("noisy", [1, 4])
@pytest.mark.parametrize(
    ("shape", "about"),
    [
        ((5, 3, 2), {}),
        ((5, 8, 4), {"kind": "added", "rows": 0.01, "common": 0.02}),
        ((3, 3, 2), {"kind": "ab", "common": 0.005}),
    ],
)
def test_identical_arms_are_seldom_called_different(
    shape: tuple[int, int, int], about: dict[str, Any], noisy: int
) -> None:
    rates = odds(Condition(*shape, noisy=noisy, **about), 200)
    assert rates.false_calls <= 0.08  # 5 %, and twice the error of 200 runs
    assert rates.noisy_covered >= 0.92
