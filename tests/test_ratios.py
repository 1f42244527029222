"""Ratios, their intervals and verdicts: by hand, against tables, and on simulated runs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from bench.stats import family
from bench.stats.estimates import Estimate, detectable
from bench.stats.ratios import (
    Contrasts,
    added,
    cold,
    many_to_one,
    of_added,
    paired_sides,
    pairwise,
)
from bench.stats.verdicts import Verdict, decided, tied, ties, verdict
from bench.trials.simulation import Condition, Noise, odds

MARGIN = 0.02


def known(estimates: list[Estimate | None]) -> list[Estimate]:
    return [estimate for estimate in estimates if estimate is not None]


def noisy_run(seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return Noise(Condition(4, 5, 3, missing=missing), seed).table(2)


@pytest.mark.parametrize(
    ("arms", "df", "critical"),  # Dunnett (1964), table 2a: two-sided, 5 %
    [(1, 10, 2.23), (2, 5, 3.03), (3, 10, 2.76), (9, 20, 2.95), (2, 20, 2.38), (5, 60, 2.58)],
)
def test_many_to_one_has_dunnetts_critical_values(arms: int, df: int, critical: float) -> None:
    found = family.many_to_one([0.5] * arms, df)
    assert found.critical(df) == pytest.approx(critical, abs=0.013)
    assert found.p(found.critical(df), df) == pytest.approx(0.05, abs=1e-6)
    assert found.critical(3) > 1.2 * critical  # fewer degrees of freedom keep the marginal level
    assert found.p(found.critical(3), 3) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("arms", "df", "q"), [(3, 10, 3.88), (10, 20, 5.01), (2, 4, 3.93)])
def test_all_pairs_has_tukeys_critical_values(arms: int, df: int, q: float) -> None:
    found = family.all_pairs(arms, df).critical(df) * math.sqrt(2)
    assert found == pytest.approx(q, abs=0.02)


def test_one_arm_and_one_reference_by_hand() -> None:
    data = np.array([[0.0, 0.01], [0.0, 0.03], [0.0, 0.05]])
    estimate = known(many_to_one(data, np.arange(3), [0]))[0]
    error = 0.02 / math.sqrt(3)
    found = (estimate.log_ratio, estimate.df, estimate.standard_error)
    assert found == pytest.approx((0.03, 2, error))
    assert estimate.half_width == pytest.approx(4.3027 * error, rel=0.001)
    assert estimate.ratio == pytest.approx(math.exp(0.03))
    assert (estimate.blocks, estimate.workers, estimate.differs) == (3, 3, False)


def test_two_references_by_hand() -> None:
    data = np.array([[-0.01, 0.01, 0.05]])
    estimate = known(many_to_one(data, np.zeros(1), [0, 1]))[0]
    assert estimate.df == 1  # the references differ by 0.02: variance 0.0002 of either
    assert estimate.standard_error == pytest.approx(math.sqrt(1.5 * 0.0002))
    assert estimate.high == pytest.approx(0.05 + 12.706 * estimate.standard_error, rel=1e-3)


def test_one_worker_with_one_reference_tells_no_error() -> None:
    data = np.array([[0.0, 0.5], [0.01, 0.5], [0.0, 0.6]])
    estimate = known(many_to_one(data, np.zeros(3), [0]))[0]
    assert (estimate.low, estimate.high, estimate.p) == (-math.inf, math.inf, 1)
    assert (estimate.standard_error, estimate.df) == (math.inf, 0)
    assert detectable([estimate, None]) == math.inf
    assert verdict(estimate, MARGIN) is Verdict.INCONCLUSIVE


def test_a_lone_arm_of_an_ab_is_a_t_test_over_pairs() -> None:
    new = np.array([[0.02], [0.04], [0.03], [0.07]])
    estimate = known(paired_sides(np.zeros((4, 1)), new, np.arange(4)))[0]
    error = np.std(new, ddof=1) / 2
    assert (estimate.log_ratio, estimate.standard_error) == pytest.approx((0.04, error))
    assert estimate.half_width == pytest.approx(3.1824 * error, rel=1e-3)
    floor = known(paired_sides(np.zeros((4, 1)), new, np.array([0, 1, 1, 0])))[0]
    of_blocks = (0.05**2 / 2 + 0.01**2 / 2) / 2  # more than what the two pairs differ by
    assert floor.standard_error == pytest.approx(math.sqrt(of_blocks / 4))


def test_order_labels_and_units_do_not_matter() -> None:
    data, worker = noisy_run(5, missing=0.6)
    expected = many_to_one(data, worker, [0, 1])
    order = np.random.default_rng(0).permutation(len(data))
    columns = [3, 0, 5, 2, 1, 4]
    permuted = many_to_one(data[:, columns], worker, [1, 4])
    variants = {
        "blocks": many_to_one(data[order], worker[order], [0, 1]),
        "labels": many_to_one(data, 7 - 3 * worker, [0, 1]),
        "unit": many_to_one(data + math.log(1e6), worker, [0, 1]),
        "speed of a block": many_to_one(data + np.sin(np.arange(15))[:, None], worker, [1, 0]),
        "columns": [permuted[columns.index(arm)] for arm in range(6)],
    }
    for name, found in variants.items():
        assert found[:2] == [None, None], name
        for ours, theirs in zip(known(found), known(expected), strict=True):
            assert vars(ours) == pytest.approx(vars(theirs), rel=1e-5), name


def test_missing_blocks_arms_and_references() -> None:
    data, worker = noisy_run(1)
    full = many_to_one(data, worker, [0, 1])
    data[4:, 2], data[:, 3], data[0, 0] = np.nan, np.nan, np.nan
    found = many_to_one(data, worker, [0, 1])
    assert found[3] is None
    few, other, before = known([found[2], found[4], full[4]])
    assert (few.blocks, few.workers) == (3, 2)  # the first block has no reference
    assert (other.blocks, before.blocks) == (14, 15)
    assert few.standard_error > other.standard_error
    assert many_to_one(np.where(data > -9, np.nan, data), worker, [0, 1]) == [None] * 6


def test_a_noisy_arm_widens_its_own_interval_and_members_alone_pay_for_the_family() -> None:
    condition = Condition(13, 12, 3)
    widths = [odds(replace(condition, noisy=factor), 40).half_width for factor in (1, 4)]
    assert widths[1] < 1.1 * widths[0]
    data = Noise(replace(condition, noisy=4), 0).table(2)
    own = known(many_to_one(*data, [0, 1]))
    assert own[0].standard_error > 2 * own[1].standard_error
    assert own[0].df < 15 < own[1].df
    two, alone = (known(many_to_one(*data, [0, 1], members=m))[0] for m in ([2, 3], [2]))
    assert own[0].half_width > two.half_width > alone.half_width


def runs() -> list[tuple[Contrasts, list[Estimate | None]]]:
    out = []
    for seed in range(160):
        random = np.random.default_rng(seed)
        condition = Condition(
            int(random.integers(1, 9)),
            int(random.integers(2, 9)),
            int(random.integers(1, 4)),
            noisy=(1, 4)[seed % 2],
            tails=("normal", "t3")[seed // 2 % 2],
            missing=(0, 0.6)[seed // 4 % 2],
        )
        data, worker = Noise(condition, seed).table(2)
        data[:, 2:] += random.choice([0, 0.01, -0.03, 0.5], condition.arms)
        out.append((pairwise(data, worker, [0, 1]), many_to_one(data, worker, [0, 1])))
    return out


def test_nothing_that_is_said_contradicts_another() -> None:
    seen = set()
    for contrasts, estimates in runs():
        groups = ties(contrasts)
        order = [contrasts.log_ratio[arm] for group in groups for arm in group]
        assert order == sorted(order)
        half = {0: 0.0} | {a: e.half_width for a, e in enumerate(estimates) if e}
        assert sorted(arm for group in groups for arm in group) == sorted(half)
        for group in groups:
            for i, j in combinations(group, 2):
                gap = abs(contrasts.log_ratio[i] - contrasts.log_ratio[j])
                assert tied(contrasts, i, j)
                assert gap <= half[i] + half[j]
        for arm, e in enumerate(estimates):
            if e is not None:
                seen.add(said := verdict(e, MARGIN))
                assert tied(contrasts, 0, arm) is not e.differs
                assert (e.p < 0.05) is e.differs
                assert e.differs or said in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
                assert said is not Verdict.SLOWER or 1 < e.interval[0] <= e.ratio
                assert said is not Verdict.FASTER or 1 > e.interval[1] >= e.ratio
                assert said is not Verdict.INCONCLUSIVE or not decided(e, MARGIN)
    assert seen == set(Verdict)


def estimate(log_ratio: float, half: float, workers: int = 5) -> Estimate:
    ends = (log_ratio - half, log_ratio + half)
    return Estimate(log_ratio, half / 2, 50.0, *ends, 0.5, 10, workers)


@pytest.mark.parametrize(
    ("log_ratio", "half", "said", "is_decided"),
    [
        (0.010, 0.005, Verdict.EQUIVALENT, False),  # leaves out 1, and is inside
        (0.003, 0.005, Verdict.EQUIVALENT, True),
        (0.030, 0.005, Verdict.SLOWER, False),
        (-0.03, 0.005, Verdict.FASTER, False),
        (0.500, 0.100, Verdict.SLOWER, True),
        (0.010, 0.015, Verdict.INCONCLUSIVE, False),
    ],
)
def test_verdicts(log_ratio: float, half: float, said: Verdict, is_decided: bool) -> None:
    assert verdict(estimate(log_ratio, half), MARGIN) is said
    assert decided(estimate(log_ratio, half), MARGIN) is is_decided
    assert not decided(estimate(log_ratio, half, workers=2), MARGIN)


def test_added_seconds_by_hand() -> None:
    """Two references of 80 us; 4, 6 and 8 us more in three workers; another arm of 160 us."""
    us = np.array([[79, 81, 84, 160], [80, 80, 86, 160], [81, 79, 88, 160]]) * 1e-6
    found, level = added(us, np.arange(3), [0, 1])
    assert level == pytest.approx(80e-6)
    assert found[:2] == [None, None]
    small, large = known(found)
    assert level * (small.ratio - 1) == pytest.approx(6e-6)
    assert large.ratio == pytest.approx(2)
    assert (small.blocks, small.workers) == (3, 3)
    # In a family of one, it is Student's t interval of the three differences.
    [alone] = known(added(us[:, :3], np.arange(3), [0, 1])[0])
    half = 4.3027 * 2e-6 / math.sqrt(3)
    ends = [level * (end - 1) for end in alone.interval]
    assert ends == pytest.approx([6e-6 - half, 6e-6 + half], rel=1e-3)
    # One worker tells nothing about others.
    [lone] = known(added(us[:1, :3], np.zeros(1), [0, 1])[0])
    assert (lone.low, lone.high, lone.p) == (-math.inf, math.inf, 1)


def test_a_worker_on_a_slowed_core_adds_no_more() -> None:
    """All arms of one worker take twice as long: what they add is the same part of the time."""
    us = np.array([[80.0, 80, 84, 160], [80, 80, 86, 164], [80, 80, 88, 156]]) * 1e-6
    quick, level = added(us, np.arange(3), [0, 1])
    slow = added(us * [[1], [2], [1]], np.arange(3), [0, 1])
    assert slow[1] == level == pytest.approx(80e-6)
    assert [each.interval for each in known(slow[0])] == [
        pytest.approx(each.interval) for each in known(quick)
    ]


def slowed(by: float) -> tuple[np.ndarray, np.ndarray]:
    """Return four workers of seven blocks, in one of which the last arm's turns were slower."""
    data = np.random.default_rng(1).normal(scale=0.01, size=(28, 3))
    data[10, 2] += by
    return data, np.repeat(np.arange(4), 7)


def test_arms_that_rest_may_be_the_most() -> None:
    """Far from the baseline, and in two blocks of eight: what they take is no outlier."""
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 0.0, *np.log([3.0, 3.3, 3.6, 1.5])])
    data = rng.normal(scale=0.01, size=(32, 6)) + truth + rng.normal(scale=0.3, size=(32, 1))
    data[np.arange(32) % 4 > 0, 2:5] = np.nan
    found = known(many_to_one(data, np.repeat(np.arange(4), 8), [0, 1]))
    assert [each.log_ratio for each in found] == pytest.approx(list(truth[2:]), abs=0.015)


@pytest.mark.parametrize("sides", [False, True])
def test_a_block_far_from_its_workers_others_counts_less(sides: bool) -> None:
    def estimate(by: float) -> Estimate:
        data, worker = slowed(by)
        if sides:
            return known(paired_sides(np.zeros((28, 1)), data[:, 2:], worker))[0]
        return known(many_to_one(data, worker, [0, 1]))[0]

    usual = estimate(0.0)
    for by in (0.4, 4.0):
        assert abs(estimate(by).log_ratio - usual.log_ratio) < 0.2 * 0.4 / 28
        assert estimate(by).standard_error < 2 * usual.standard_error


def test_ties_of_added_time_follow_both_intervals() -> None:
    us = np.array([[80, 80, 84, 85, 180], [80, 80, 86, 84, 178], [80, 80, 88, 89, 183]]) * 1e-6
    found, _ = added(us, np.arange(3), [0, 1])
    between = of_added(found, [0, 1])
    halves = [0.0, 0.0, *((e.interval[1] - e.interval[0]) / 2 for e in known(found))]
    assert between.half_width[2, 3] == pytest.approx(halves[2] + halves[3])
    assert tied(between, 0, 2) is not found[2].differs  # type: ignore[union-attr]
    assert tied(between, 2, 3)
    assert not tied(between, 3, 4)


def test_the_detectable_difference_by_hand() -> None:
    assert detectable([estimate(0.3, 0.02)]) == pytest.approx(
        math.exp(0.02 + 0.8489 * 0.01) - 1, rel=1e-4
    )


def test_cold_samples_by_hand() -> None:
    found = cold([np.array(v) for v in ([0.0, 0.2], [1, 1.2], [2], [])], 0)
    assert [each is None for each in found] == [True, False, False, True]
    first, second = known(found)
    assert (first.log_ratio, first.blocks) == pytest.approx((1.0, 2))
    assert first.standard_error == pytest.approx(math.sqrt((0.02 + 0.02) / 2))
    assert (second.log_ratio, second.blocks) == pytest.approx((1.9, 1))


ADDED = {"kind": "added", "rows": 0.01, "common": 0.02}


@pytest.mark.parametrize("noisy", [1, 4])
@pytest.mark.parametrize(
    ("shape", "about"), [((1, 4, 3), {}), ((13, 3, 2), {}), ((13, 8, 4), ADDED)]
)
def test_identical_arms_are_seldom_called_different(
    shape: tuple[int, int, int], about: dict[str, Any], noisy: int
) -> None:
    found = odds(Condition(*shape, noisy=noisy, **about), 300)
    assert found.false_calls <= 0.075  # 5 %, and nearly twice the error of 300 runs
    assert found.noisy_covered >= 0.92
