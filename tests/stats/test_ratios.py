"""Ratios and their intervals: by hand, against tables, and on simulated runs."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.stats import family
from bench.stats.ratios import added, cold, many_to_one, paired_sides
from bench.stats.verdicts import Verdict, verdict
from bench.trials.simulation import Condition, Noise, odds

if TYPE_CHECKING:
    from bench.stats.ratios import Contrasts

MARGIN = 0.02


def arm(contrasts: Contrasts, number: int) -> Any:
    """Return what is known of one arm."""
    row = SimpleNamespace(**{k: float(v[number]) for k, v in contrasts._asdict().items()})
    row.half_width = (row.high - row.low) / 2
    return row


def noisy_run(seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return Noise(Condition(4, 5, 3, missing=missing), seed).table(2)


@pytest.mark.parametrize(
    ("arms", "df", "critical"),  # Dunnett (1964), table 2a: two-sided, 5 %
    [(1, 10, 2.23), (2, 5, 3.03), (3, 10, 2.76), (9, 20, 2.95), (2, 20, 2.38), (5, 60, 2.58)],
)
def test_many_to_one_has_dunnetts_critical_values(arms: int, df: int, critical: float) -> None:
    tests = family.many_to_one([0.5] * arms, df)
    assert tests.critical(df) == pytest.approx(critical, abs=0.013)
    assert tests.p(tests.critical(df), df) == pytest.approx(0.05, abs=1e-6)
    assert tests.critical(3) > 1.2 * critical  # fewer degrees of freedom keep the marginal level
    assert tests.p(tests.critical(3), 3) == pytest.approx(0.05, abs=1e-6)


def test_one_arm_and_one_reference_by_hand() -> None:
    data = np.array([[0.0, 0.01], [0.0, 0.03], [0.0, 0.05]])
    contrasts = many_to_one(data, np.arange(3), [0])
    row, error = arm(contrasts, 1), 0.02 / math.sqrt(3)
    assert contrasts.known.tolist() == [False, True]
    assert (row.log_ratio, row.df, row.standard_error) == pytest.approx((0.03, 2, error))
    assert row.half_width == pytest.approx(4.3027 * error, rel=0.001)
    assert (row.blocks, row.workers, row.p < 0.05) == (3, 3, False)


def test_two_references_by_hand() -> None:
    row = arm(many_to_one(np.array([[-0.01, 0.01, 0.05]]), np.zeros(1), [0, 1]), 2)
    assert row.df == 1  # the references differ by 0.02: variance 0.0002 of either
    assert row.standard_error == pytest.approx(math.sqrt(1.5 * 0.0002))
    assert row.high == pytest.approx(0.05 + 12.706 * row.standard_error, rel=1e-3)


def test_one_worker_with_one_reference_tells_no_error() -> None:
    data = np.array([[0.0, 0.5], [0.01, 0.5], [0.0, 0.6]])
    row = arm(many_to_one(data, np.zeros(3), [0]), 1)
    assert (row.low, row.high, row.p) == (-math.inf, math.inf, 1)
    assert (row.standard_error, row.df) == (math.inf, 0)
    assert verdict(row.log_ratio, row.low, row.high, MARGIN) is Verdict.INCONCLUSIVE


def test_a_lone_arm_of_an_ab_is_a_t_test_over_pairs() -> None:
    new = np.array([[0.02], [0.04], [0.03], [0.07]])
    row, error = arm(paired_sides(np.zeros((4, 1)), new, np.arange(4)), 0), np.std(new, ddof=1) / 2
    assert (row.log_ratio, row.standard_error) == pytest.approx((0.04, error))
    assert row.half_width == pytest.approx(3.1824 * error, rel=1e-3)
    floor = arm(paired_sides(np.zeros((4, 1)), new, np.array([0, 1, 1, 0])), 0)
    of_blocks = (0.05**2 / 2 + 0.01**2 / 2) / 2  # more than what the two pairs differ by
    assert floor.standard_error == pytest.approx(math.sqrt(of_blocks / 4))


def test_order_labels_and_units_do_not_matter() -> None:
    data, worker = noisy_run(5, missing=0.6)
    expected = many_to_one(data, worker, [0, 1])
    order = np.random.default_rng(0).permutation(len(data))
    columns = [3, 0, 5, 2, 1, 4]
    back = [columns.index(arm) for arm in range(6)]
    permuted = many_to_one(data[:, columns], worker, [1, 4])
    variants = {
        "blocks": many_to_one(data[order], worker[order], [0, 1]),
        "labels": many_to_one(data, 7 - 3 * worker, [0, 1]),
        "unit": many_to_one(data + math.log(1e6), worker, [0, 1]),
        "speed of a block": many_to_one(data + np.sin(np.arange(15))[:, None], worker, [1, 0]),
        "columns": type(permuted)(*(values[back] for values in permuted)),
    }
    for name, contrasts in variants.items():
        assert contrasts.known.tolist() == [False, False, True, True, True, True], name
        for ours, theirs in zip(contrasts, expected, strict=True):
            assert ours[2:] == pytest.approx(theirs[2:], rel=1e-5), name


def test_missing_blocks_arms_and_references() -> None:
    data, worker = noisy_run(1)
    before = arm(many_to_one(data, worker, [0, 1]), 4)
    data[4:, 2], data[:, 3], data[0, 0] = np.nan, np.nan, np.nan
    contrasts = many_to_one(data, worker, [0, 1])
    assert not contrasts.known[3]
    few, other = arm(contrasts, 2), arm(contrasts, 4)
    assert (few.blocks, few.workers) == (3, 2)  # the first block has no reference
    assert (other.blocks, before.blocks) == (14, 15)
    assert few.standard_error > other.standard_error
    assert not many_to_one(np.where(data > -9, np.nan, data), worker, [0, 1]).known.any()


def test_a_noisy_arm_widens_its_own_interval_and_members_alone_pay_for_the_family() -> None:
    condition = Condition(13, 12, 3)
    widths = [odds(replace(condition, noisy=factor), 40).half_width for factor in (1, 4)]
    assert widths[1] < 1.1 * widths[0]
    data = Noise(replace(condition, noisy=4), 0).table(2)
    whole = many_to_one(*data, [0, 1])
    noisy, usual = arm(whole, 2), arm(whole, 3)
    assert noisy.standard_error > 2 * usual.standard_error
    assert noisy.df < 15 < usual.df
    two, alone = (arm(many_to_one(*data, [0, 1], members=m), 2) for m in ([2, 3], [2]))
    assert noisy.half_width > two.half_width > alone.half_width


def test_nothing_that_is_said_contradicts_another() -> None:
    verdicts = set()
    for seed in range(80):
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
        contrasts = many_to_one(data, worker, [0, 1])
        for number in np.flatnonzero(contrasts.known).tolist():
            row = arm(contrasts, number)
            said = verdict(row.log_ratio, row.low, row.high, MARGIN)
            verdicts.add(said)
            differs = row.low > 0 or row.high < 0
            assert (row.p < 0.05) is differs
            assert differs or said in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
            assert said is not Verdict.SLOWER or 0 < row.low <= row.log_ratio
            assert said is not Verdict.FASTER or 0 > row.high >= row.log_ratio
    assert verdicts == set(Verdict)


@pytest.mark.parametrize(
    ("log_ratio", "half", "said"),
    [
        (0.010, 0.005, Verdict.EQUIVALENT),  # leaves out 1, and is inside
        (0.003, 0.005, Verdict.EQUIVALENT),
        (0.030, 0.005, Verdict.SLOWER),
        (-0.03, 0.005, Verdict.FASTER),
        (0.010, 0.015, Verdict.INCONCLUSIVE),
        (0.000, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(log_ratio: float, half: float, said: Verdict) -> None:
    assert verdict(log_ratio, log_ratio - half, log_ratio + half, MARGIN) is said


def test_added_seconds_by_hand() -> None:
    """Two references of 80 us; 4, 6 and 8 us more in three workers; another arm of 160 us."""
    us = np.array([[79, 81, 84, 160], [80, 80, 86, 160], [81, 79, 88, 160]]) * 1e-6
    contrasts, level = added(us, np.arange(3), [0, 1])
    assert level == pytest.approx(80e-6)
    assert level * np.expm1(contrasts.log_ratio[2:]) == pytest.approx([6e-6, 80e-6])
    assert (contrasts.blocks[2], contrasts.workers[2]) == (3, 3)
    # In a family of one, it is Student's t interval of the three differences.
    alone = arm(added(us[:, :3], np.arange(3), [0, 1])[0], 2)
    half = 4.3027 * 2e-6 / math.sqrt(3)
    ends = [level * math.expm1(end) for end in (alone.low, alone.high)]
    assert ends == pytest.approx([6e-6 - half, 6e-6 + half], rel=1e-3)
    # One worker tells nothing about others.
    lone = arm(added(us[:1, :3], np.zeros(1), [0, 1])[0], 2)
    assert (lone.low, lone.high, lone.p) == (-math.inf, math.inf, 1)


def test_a_worker_on_a_slowed_core_adds_no_more() -> None:
    """All arms of one worker take twice as long: what they add is the same part of the time."""
    us = np.array([[80.0, 80, 84, 160], [80, 80, 86, 164], [80, 80, 88, 156]]) * 1e-6
    quick, level = added(us, np.arange(3), [0, 1])
    slow, other = added(us * [[1], [2], [1]], np.arange(3), [0, 1])
    assert other == level == pytest.approx(80e-6)
    assert slow.low[2:] == pytest.approx(quick.low[2:])
    assert slow.high[2:] == pytest.approx(quick.high[2:])


def test_arms_that_rest_may_be_the_most() -> None:
    """Far from the baseline, and in two blocks of eight: what they take is no outlier."""
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 0.0, *np.log([3.0, 3.3, 3.6, 1.5])])
    data = rng.normal(scale=0.01, size=(32, 6)) + truth + rng.normal(scale=0.3, size=(32, 1))
    data[np.arange(32) % 4 > 0, 2:5] = np.nan
    contrasts = many_to_one(data, np.repeat(np.arange(4), 8), [0, 1])
    assert contrasts.log_ratio[2:] == pytest.approx(truth[2:], abs=0.015)


@pytest.mark.parametrize("sides", [False, True])
def test_a_block_far_from_its_workers_others_counts_less(sides: bool) -> None:
    def slowed(by: float) -> Any:
        data = np.random.default_rng(1).normal(scale=0.01, size=(28, 3))
        data[10, 2] += by
        worker = np.repeat(np.arange(4), 7)
        if sides:
            return arm(paired_sides(np.zeros((28, 1)), data[:, 2:], worker), 0)
        return arm(many_to_one(data, worker, [0, 1]), 2)

    usual = slowed(0.0)
    for by in (0.4, 4.0):
        assert abs(slowed(by).log_ratio - usual.log_ratio) < 0.2 * 0.4 / 28
        assert slowed(by).standard_error < 2 * usual.standard_error


def test_cold_samples_by_hand() -> None:
    contrasts = cold([np.array(v) for v in ([0.0, 0.2], [1, 1.2], [2], [])], 0)
    assert contrasts.known.tolist() == [False, True, True, False]
    first, second = arm(contrasts, 1), arm(contrasts, 2)
    assert (first.log_ratio, first.blocks) == pytest.approx((1.0, 2))
    assert first.standard_error == pytest.approx(math.sqrt((0.02 + 0.02) / 2))
    assert (second.log_ratio, second.blocks) == pytest.approx((1.9, 1))


ADDED = {"kind": "added", "rows": 0.01, "common": 0.02}


@pytest.mark.parametrize("noisy", [1, 4])
@pytest.mark.parametrize(
    ("shape", "about"),
    [
        ((1, 4, 3), {}),
        ((13, 3, 2), {}),
        ((13, 8, 4), ADDED),
        ((3, 3, 2), {"kind": "ab", "common": 0.005}),
    ],
)
def test_identical_arms_are_seldom_called_different(
    shape: tuple[int, int, int], about: dict[str, Any], noisy: int
) -> None:
    rates = odds(Condition(*shape, noisy=noisy, **about), 300)
    assert rates.false_calls <= 0.075  # 5 %, and nearly twice the error of 300 runs
    assert rates.noisy_covered >= 0.92
