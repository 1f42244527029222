"""Changes along the visits of days: found where they are, and seldom where they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.compare.history import changed
from bench.compare.series import SeriesKey
from bench.compare.visits import Visits, visits

if TYPE_CHECKING:
    from bench.compare.series import SeriesChange


def logs(
    rng: np.random.Generator, means: np.ndarray, sweeps: int, sd: float, of_sweep: float = 0.0
) -> np.ndarray:
    luck = rng.normal(0, of_sweep, sweeps) if of_sweep else np.zeros(sweeps)
    return means[:, None] + luck[None, :] + rng.normal(0, sd, (means.size, sweeps))


def changes(*series: Visits) -> list[list[SeriesChange]]:
    """Return the changes of each series."""
    keys = [SeriesKey("", f"e{i}", "pure", "toy", "cpu", "step", "s", False) for i in range(99)]
    found = changed(dict(zip(keys, series, strict=False)))
    return [[c for c in found if c.key == key] for key, _ in zip(keys, series, strict=False)]


def test_means_and_spread_are_those_of_the_visits() -> None:
    rng = np.random.default_rng(0)
    found = [visits(logs(rng, np.linspace(0, 1, 15), 2, 0.03, of_sweep=0.2)) for _ in range(300)]
    assert np.mean([each.sd**2 for each in found]) == pytest.approx(0.03**2, rel=0.1)
    assert {each.df for each in found} == {15 * 2 - 15 - 1}
    steps = np.mean([np.diff(each.mean) for each in found], axis=0)
    assert steps == pytest.approx(np.full(14, 1 / 14), abs=0.01)


def test_a_missing_visit_does_not_bring_the_luck_of_a_sweep_into_a_mean() -> None:
    found = visits(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, np.nan], [0.0, 1.0]]))
    assert found.mean == pytest.approx(np.full(4, 0.5))
    assert found.visits.tolist() == [2, 2, 1, 2]
    assert found.sd == pytest.approx(0, abs=1e-12)


def test_days_without_a_value_are_passed_over() -> None:
    rng = np.random.default_rng(1)
    found = logs(rng, np.array([0.0, 0.0, 0.0, 0.7, 0.7]), 3, 0.02)
    found[2] = np.nan
    [[change]] = changes(visits(found))
    assert (change.before, change.after) == (1, 3)
    assert np.log(change.low) < 0.7 < np.log(change.high)


@pytest.mark.parametrize("few", [np.array([[0.0], [5.0]]), np.full((3, 2), np.nan)])
def test_too_few_visits_tell_nothing(few: np.ndarray) -> None:
    found = visits(few)
    assert (found.df, found.tells_changes) == (0, False)
    assert changes(found) == [[]]


def test_false_alarms_are_as_rare_as_is_said() -> None:
    """25 series of 15 days, nothing changes: some alarm in at most 5 % of the histories."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        sds = rng.uniform(0.01, 0.05, 25)
        series = [visits(logs(rng, np.zeros(15), 2, sd, of_sweep=0.01)) for sd in sds]
        wrong += any(changes(*series))
    assert wrong / 400 < 0.08  # 5 %, and three standard errors


def test_a_change_of_half_is_always_found_and_is_the_only_one() -> None:
    rng = np.random.default_rng(3)
    means = np.where(np.arange(15) < 9, 0.0, np.log(1.5))
    for _ in range(50):
        others = [visits(logs(rng, np.zeros(15), 2, 0.03)) for _ in range(20)]
        found = changes(visits(logs(rng, means, 2, 0.03)), *others)
        assert [(c.before, c.after) for c in found[0]] == [(8, 9)]


def test_a_change_has_the_interval_that_it_should() -> None:
    """Of a large change, so that it is always there to look at."""
    rng = np.random.default_rng(4)
    means = np.where(np.arange(6) < 3, 0.0, 2.0)
    inside = 0
    for _ in range(1000):
        [found] = changes(visits(logs(rng, means, 2, 0.05)))
        [change] = [each for each in found if each.after == 3]
        inside += np.log(change.low) < 2 < np.log(change.high)
    assert inside / 1000 == pytest.approx(0.95, abs=0.025)


def test_a_day_that_varies_by_far_more_than_the_others_is_named() -> None:
    rng = np.random.default_rng(7)
    found = logs(rng, np.zeros(16), 3, 0.02)
    found[5] += [-0.4, 0, 0.4]
    assert visits(found).unlike == (5,)
    named = [visits(logs(rng, np.zeros(16), 3, 0.02)).unlike for _ in range(200)]
    assert sum(map(bool, named)) <= 2 + 3 * np.sqrt(2)
