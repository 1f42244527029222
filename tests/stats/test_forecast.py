"""Forecasts of what a budget can tell, from how much calls vary."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from bench.cells import BASELINE, CONTROL, Arm
from bench.samples import Sample
from bench.stats.forecast import estimate_variation, forecast_difference
from bench.worker.turns import Call, make_sample

ARMS = [BASELINE, CONTROL, Arm("haiku", "pure"), Arm("equinox", "pure")]


def samples_of(
    varies: float, *, environments: tuple[str, ...] = ("",), arms: Sequence[Arm] = ARMS
) -> list[Sample]:
    """Return the samples of 40 blocks of eight turns of three calls."""
    rng = np.random.default_rng(0)
    samples = []
    for block in range(40):
        for environment in environments:
            for arm in arms if environments == ("",) else arms[2:]:
                calls = np.exp(rng.normal(0, varies, (8, 3)))
                turns = [[Call(x, 0.0) for x in turn] for turn in calls]
                row = make_sample(arm.make_cell("seed", "cpu"), "step", turns)
                samples.append(row._replace(environment=environment, worker=1, block=block))
    return samples


@pytest.mark.parametrize("varies", [0.01, 0.07])
def test_how_much_calls_vary_is_seen_in_blocks(varies: float) -> None:
    assert estimate_variation(samples_of(varies)) == pytest.approx(varies, rel=0.15)


def test_what_can_be_detected_goes_with_the_root_of_the_time_and_with_how_much_calls_vary() -> None:
    quiet, busy = samples_of(0.01), samples_of(0.07)
    one = forecast_difference(quiet, 1)
    assert forecast_difference(quiet, 4) == pytest.approx(one / 2)
    assert forecast_difference(busy, 1) / one == pytest.approx(7, rel=0.2)
    assert 0.001 < one < 0.01
    sides = samples_of(0.01, environments=("base", "new"))
    two = forecast_difference(sides, 1, base="base")
    assert two == pytest.approx(one * math.sqrt(2 / 1.5), rel=0.15)


def test_what_all_arms_of_a_block_share_does_not_count() -> None:
    rows = samples_of(0.01)
    slowed = [s._replace(value=s.value * (1 + s.block % 3)) for s in rows]
    assert forecast_difference(slowed, 1) == pytest.approx(forecast_difference(rows, 1))


def test_more_arms_that_are_compared_together_need_more() -> None:
    many = [*ARMS, *(Arm("haiku", f"style{i}") for i in range(11))]
    few, several = (forecast_difference(samples_of(0.01, arms=a), 1) for a in (ARMS[:3], many))
    assert several > 1.15 * few


def test_nothing_is_forecast_where_too_little_is_known() -> None:
    rows = samples_of(0.01)
    assert forecast_difference([], 1) == math.inf
    assert forecast_difference([s for s in rows if s.cell.is_baseline], 1) == math.inf
    assert forecast_difference([s for s in rows if s.block == 0], 1) == math.inf
