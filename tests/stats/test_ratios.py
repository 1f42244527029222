"""Ratios and their intervals: by hand, against tables, and on simulated runs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.stats.ratios import (
    Contrast,
    contrast_added_time,
    contrast_cold_samples,
    contrast_pairs,
    contrast_with_references,
)
from tests.commands import script

SIMULATION = script("results/selftest/simulation.py")
Condition, Noise, odds = SIMULATION.Condition, SIMULATION.Noise, SIMULATION.odds

REFERENCES = [0, 1]


def member(contrasts: Sequence[Contrast], number: int) -> Any:
    row = SimpleNamespace(**contrasts[number]._asdict())
    row.half_width = (row.high - row.low) / 2
    return row


def contrast(data: Any, worker: Any, arm: int = 2, reference: Sequence[int] = REFERENCES) -> Any:
    """Return the contrast of an arm in a family of its own."""
    return member(contrast_with_references(data, worker, reference, [arm]), 0)


def differences(contrasts: Sequence[Contrast]) -> list[float]:
    return [contrast.difference for contrast in contrasts]


def test_one_far_round_among_workers_of_one_block_widens_its_arm_a_little() -> None:
    """Stages have such rounds, where another guest of the host had the core for an arm's turn."""
    random = np.random.default_rng(0)
    data = random.normal(0, 0.03, (10, 8))
    usual = member(contrast_with_references(data, np.arange(10), REFERENCES, [2, 3]), 0)
    data[4, 2] += 0.5
    far = member(contrast_with_references(data, np.arange(10), REFERENCES, [2, 3]), 0)
    assert far.half_width < 1.5 * usual.half_width
    assert abs(far.difference - usual.difference) < usual.half_width / 2


def noisy_run(seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return Noise(Condition(4, 5, 3, missing=missing), seed).table(2)


def test_one_arm_and_one_reference_by_hand() -> None:
    data = np.array([[0.0, 0.01], [0.0, 0.03], [0.0, 0.05]])
    row, error = contrast(data, np.arange(3), 1, [0]), 0.02 / math.sqrt(3)
    assert (row.difference, row.df, row.standard_error) == pytest.approx((0.03, 2, error))
    assert row.half_width == pytest.approx(4.3027 * error, rel=0.001)
    assert (row.blocks, row.workers, row.p < 0.05) == (3, 3, False)


def test_two_references_by_hand_and_one_tells_no_error_of_a_lone_worker() -> None:
    row = contrast(np.array([[-0.01, 0.01, 0.05]]), np.zeros(1))
    assert row.df == 1  # the references differ by 0.02: variance 0.0002 of either
    assert row.standard_error == pytest.approx(math.sqrt(1.5 * 0.0002))
    assert row.high == pytest.approx(0.05 + 12.706 * row.standard_error, rel=1e-3)
    data = np.array([[0.0, 0.5], [0.01, 0.5], [0.0, 0.6]])
    lone = contrast(data, np.zeros(3), 1, [0])
    assert (lone.low, lone.high, lone.p) == (-math.inf, math.inf, 1)


def test_a_lone_arm_of_an_ab_is_a_t_test_over_pairs() -> None:
    difference = np.array([[0.02], [0.04], [0.03], [0.07]])
    row, error = member(contrast_pairs(difference, np.arange(4)), 0), np.std(difference, ddof=1) / 2
    assert (row.difference, row.standard_error) == pytest.approx((0.04, error))
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
            assert ours[:-1] == pytest.approx(theirs[:-1], rel=1e-5), name  # without a level


def test_missing_blocks_arms_and_references() -> None:
    data, worker = noisy_run(1)
    before = contrast(data, worker, 4)
    data[4:, 2] = data[:, 3] = data[0, 0] = np.nan
    contrasts = contrast_with_references(data, worker, REFERENCES, [2, 3, 4])
    few, none, other = (member(contrasts, i) for i in range(3))
    assert math.isnan(none.difference)
    assert (few.blocks, few.workers) == (3, 2)  # the first block has no reference
    assert (other.blocks, before.blocks) == (14, 15)
    assert few.standard_error > other.standard_error
    nothing = np.where(data > -9, np.nan, data)
    for empty in (
        contrast_with_references(nothing, worker, REFERENCES, [2]),
        contrast_pairs(nothing, worker, [2]),
    ):
        assert np.isnan(differences(empty)).all()


def test_a_noisy_arm_widens_its_own_interval_and_members_alone_pay_for_the_family() -> None:
    condition = Condition(13, 12, 3)
    widths = [odds(replace(condition, noisy=factor), 40).half_width for factor in (1, 4)]
    assert widths[1] < 1.1 * widths[0]
    data, worker = Noise(replace(condition, noisy=4), 0).table(2)
    whole = contrast_with_references(data, worker, REFERENCES, range(2, 15))
    noisy, usual = member(whole, 0), member(whole, 1)
    assert noisy.standard_error > 2 * usual.standard_error
    assert noisy.df < 15 < usual.df
    alone = contrast(data, worker)
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
    assert all((c.p < 0.05) == (c.low > 0 or c.high < 0) for c in contrasts)


def test_added_seconds_by_hand() -> None:
    """Two references of 80 us; 4, 6 and 8 us more in three workers; another arm of 160 us."""
    us = np.array([[79, 81, 84, 160], [80, 80, 86, 160], [81, 79, 88, 160]]) * 1e-6
    contrasts = contrast_added_time(us, np.arange(3), REFERENCES, [2, 3])
    assert contrasts[0].level == pytest.approx(80e-6)
    assert differences(contrasts) == pytest.approx([6e-6, 80e-6])
    assert (contrasts[0].blocks, contrasts[0].workers) == (3, 3)
    # In a family of one, it is Student's t interval of the three differences.
    alone = member(contrast_added_time(us[:, :3], np.arange(3), REFERENCES, [2]), 0)
    half = 4.3027 * 2e-6 / math.sqrt(3)
    assert alone.standard_error == pytest.approx(2e-6 / math.sqrt(3), rel=1e-3)
    assert (alone.low, alone.high) == pytest.approx((6e-6 - half, 6e-6 + half), rel=1e-3)
    # Where all arms of a worker take twice as long, what they add is the same part of the time;
    # the seconds are those of the quietest worker.
    slow = contrast_added_time(us * [[2], [2], [1]], np.arange(3), REFERENCES, [2, 3])
    for ours, theirs in zip(slow, contrasts, strict=True):
        assert ours == pytest.approx(theirs)


def test_a_call_takes_more_than_no_time() -> None:
    """An interval that reaches below it has no lower end: nothing can be that much faster."""
    seconds = np.array([[80, 80, 20], [80, 80, 160], [80, 80, 300]]) * 1e-6
    [known] = contrast_added_time(seconds, np.arange(3), REFERENCES, [2])
    assert known.difference == pytest.approx(80e-6)
    assert known.low == -math.inf
    assert known.high > 160e-6
    [unknown] = contrast_added_time(seconds * np.nan, np.arange(3), REFERENCES, [2])
    assert math.isnan(unknown.difference)


def test_arms_that_rest_may_be_the_most() -> None:
    """Far from the baseline, and in two blocks of eight: what they take is no outlier."""
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 0.0, *np.log([3.0, 3.3, 3.6, 1.5])])
    data = rng.normal(scale=0.01, size=(32, 6)) + truth + rng.normal(scale=0.3, size=(32, 1))
    data[np.arange(32) % 4 > 0, 2:5] = np.nan
    contrasts = contrast_with_references(data, np.repeat(np.arange(4), 8), REFERENCES, range(2, 6))
    assert differences(contrasts) == pytest.approx(truth[2:], abs=0.015)


@pytest.mark.parametrize("sides", [False, True])
def test_a_block_far_from_its_workers_others_counts_less(sides: bool) -> None:
    def slowed(by: float) -> Any:
        data = np.random.default_rng(1).normal(scale=0.01, size=(28, 3))
        data[10, 2] += by
        worker = np.repeat(np.arange(4), 7)
        return member(contrast_pairs(data, worker, [2]), 0) if sides else contrast(data, worker)

    usual = slowed(0.0)
    for by in (0.4, 4.0):
        assert abs(slowed(by).difference - usual.difference) < 0.2 * 0.4 / 28
        assert slowed(by).standard_error < 2 * usual.standard_error


def test_cold_samples_by_hand() -> None:
    samples = [np.array([0.0, 0.2]), np.array([1, 1.2]), np.array([2.0])]
    first, second = contrast_cold_samples(samples, [1, 2])
    assert (first.difference, first.blocks) == pytest.approx((1.0, 2))
    assert first.standard_error == pytest.approx(math.sqrt((0.02 + 0.02) / 2))
    assert (second.difference, second.blocks) == pytest.approx((1.9, 1))


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
