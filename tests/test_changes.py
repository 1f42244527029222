"""Changes along a series: found where they are, and seldom where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats.changes import (
    Observations,
    changes,
    comparisons,
    holm,
    points,
    steps,
    widths,
    windows,
)

ERROR, WOBBLE = 0.008, 0.005


def visited(
    rng: np.random.Generator, means: np.ndarray, sweeps: int, sd: float, of_sweep: float = 0.0
) -> np.ndarray:
    luck = rng.normal(0, of_sweep, sweeps) if of_sweep else np.zeros(sweeps)
    return means[:, None] + luck[None, :] + rng.normal(0, sd, (means.size, sweeps))


def known(values: np.ndarray, error: float = ERROR, wobble: float = WOBBLE) -> Observations:
    size = values.size
    own, df = np.full(size, error**2), np.full(size, 12.0)
    return Observations(values, own, df, np.full(size, wobble**2), 10)


def noise(rng: np.random.Generator, size: int, wander: float = 0.0, moods: float = 1) -> np.ndarray:
    """Return points; each goes on from where the last one had wandered to, that much of it."""
    own, fresh = rng.normal(0, ERROR, size), rng.normal(0, moods * WOBBLE, size)
    walk = np.zeros(size)
    for i in range(size):
        walk[i] = (wander * walk[i - 1] if i else 0) + np.sqrt(1 - wander**2) * fresh[i]
    return own + walk


def test_holm() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1, 1])
    assert holm(np.array([])).size == 0
    assert holm(np.array([0.01, 0.005]), more=2) == pytest.approx([0.03, 0.02])
    p = np.random.default_rng(0).uniform(size=50) ** 3
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert ((adjusted >= p) & (adjusted <= 1)).all()


# days that were visited in sweeps


def test_means_and_spread_are_those_of_the_visits() -> None:
    rng = np.random.default_rng(0)
    found = [points(visited(rng, np.linspace(0, 1, 15), 2, 0.03, of_sweep=0.2)) for _ in range(300)]
    assert np.mean([each.sd**2 for each in found]) == pytest.approx(0.03**2, rel=0.1)
    assert {each.df for each in found} == {15 * 2 - 15 - 1}
    steps = np.mean([np.diff(each.mean) for each in found], axis=0)
    assert steps == pytest.approx(np.full(14, 1 / 14), abs=0.01)


def test_a_missing_visit_does_not_bring_the_luck_of_a_sweep_into_a_mean() -> None:
    logs = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, np.nan], [0.0, 1.0]])
    found = points(logs)
    assert found.mean == pytest.approx(np.full(4, 0.5))
    assert found.visits.tolist() == [2, 2, 1, 2]
    assert found.sd == pytest.approx(0, abs=1e-12)


def test_days_without_a_value_are_passed_over() -> None:
    rng = np.random.default_rng(1)
    logs = visited(rng, np.array([0.0, 0.0, 0.0, 0.7, 0.7]), 3, 0.02)
    logs[2] = np.nan
    [[change]] = changes([points(logs)])
    assert (change.before, change.after) == (1, 3)
    assert change.low < 0.7 < change.high


def test_one_sweep_or_nothing_tells_nothing() -> None:
    found = points(np.array([[0.0], [5.0]])), points(np.full((3, 2), np.nan))
    assert [each.df for each in found] == [0, 0]
    assert np.isnan(found[1].mean).all()
    assert changes(found) == [[], []]


def test_false_alarms_are_as_rare_as_is_said() -> None:
    """25 series of 15 days, nothing changes: some alarm in at most 5 % of the histories."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        series = [
            points(visited(rng, np.zeros(15), 2, sd, of_sweep=0.01))
            for sd in rng.uniform(0.01, 0.05, 25)
        ]
        wrong += any(changes(series))
    assert wrong / 400 < 0.08  # 5 %, and three standard errors


def test_a_change_of_half_is_always_found_and_is_the_only_one() -> None:
    rng = np.random.default_rng(3)
    means = np.where(np.arange(15) < 9, 0.0, np.log(1.5))
    for _ in range(50):
        others = [points(visited(rng, np.zeros(15), 2, 0.03)) for _ in range(20)]
        found = changes([points(visited(rng, means, 2, 0.03)), *others])
        assert [(c.before, c.after) for c in found[0]] == [(8, 9)]


def test_a_change_has_the_interval_that_it_should() -> None:
    """Of a large change, so that it is always there to look at."""
    rng = np.random.default_rng(4)
    means = np.where(np.arange(6) < 3, 0.0, 2.0)
    inside = 0
    for _ in range(1000):
        [found] = changes([points(visited(rng, means, 2, 0.05))])
        [change] = [each for each in found if each.after == 3]
        inside += change.low < 2 < change.high
    assert inside / 1000 == pytest.approx(0.95, abs=0.025)


def test_a_day_that_varies_by_far_more_than_the_others_is_named() -> None:
    rng = np.random.default_rng(7)
    logs = visited(rng, np.zeros(16), 3, 0.02)
    logs[5] += [-0.4, 0, 0.4]
    assert points(logs).unlike == (5,)
    named = [points(visited(rng, np.zeros(16), 3, 0.02)).unlike for _ in range(200)]
    assert sum(map(bool, named)) <= 2 + 3 * np.sqrt(2)


def test_comparisons_are_counted() -> None:
    rng = np.random.default_rng(6)
    one_sweep = points(np.zeros((16, 1)))
    counts = [2, 64]
    series = [points(visited(rng, np.zeros(count), 2, 0.03)) for count in counts]
    looks = [windows(known(np.zeros(count)), w) for count in counts for w in widths(count)]
    assert comparisons([*series, one_sweep]) == sum(look.p.size for look in looks)
    assert comparisons(series) == 1 + 63 + 61 + 57 + 49


# windows of several widths


def test_widths_double_while_there_is_room_for_eight_windows() -> None:
    found = [list(widths(count)) for count in (0, 1, 2, 31, 32, 64)]
    assert found == [[], [], [1], [1], [1, 2, 4], [1, 2, 4, 8]]
    assert list(widths(3000))[-1] == 256


def test_differences_are_those_of_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 70)
    look = windows(known(values), 4)
    for first, difference in zip(look.first, look.difference, strict=True):
        means = values[first - 4 : first].mean(), values[first : first + 4].mean()
        assert difference == pytest.approx(means[1] - means[0])
    narrow = windows(known(values), 1, floor=2)
    assert narrow.error == pytest.approx(np.full(69, np.sqrt(2 * (ERROR**2 + WOBBLE**2))))


def test_neighbours_have_the_odds_of_a_t_test() -> None:
    """The variances of both and what they share, as Satterthwaite adds them."""
    from scipy import stats

    [p] = windows(known(np.array([0.0, 0.03])), 1).p
    parts = [(ERROR**2, 12), (ERROR**2, 12), (2 * WOBBLE**2, 10)]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / df for part, df in parts)
    assert p == pytest.approx(2 * stats.t.sf(0.03 / np.sqrt(variance), df))


@pytest.mark.parametrize(("wander", "moods"), [(0.0, 1), (0.8, 1), (0.0, 3), (0.8, 2)])
def test_false_alarms_are_rare_where_the_machine_wanders(wander: float, moods: float) -> None:
    """Ten series of 128 runs in which nothing changes: also where the machine drifts, or has more
    moods than it is known to have, and where each run has only an estimate of its own doubt."""
    rng = np.random.default_rng(1)

    def one() -> Observations:
        given = known(noise(rng, 128, wander, moods))
        return given._replace(own=given.own * rng.chisquare(12, 128) / 12)

    wrong = sum(any(steps([one() for _ in range(10)])) for _ in range(200))
    assert wrong / 200 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_small_step_shows_in_a_long_series_and_not_between_neighbours() -> None:
    rng = np.random.default_rng(2)
    found = narrow = wrong = 0
    for _ in range(100):
        jump = np.where(np.arange(256) < 100, 0, 0.03)
        rest = [known(noise(rng, 256)) for _ in range(9)]
        [first, *others] = steps([known(jump + noise(rng, 256)), *rest])
        near = [step for step in first if abs(step.after - 100) < step.width]
        found += len(near) == 1
        narrow += any(step.width == 1 for step in first)
        wrong += any(others)
    assert found >= 90
    assert wrong <= 5 + 3 * np.sqrt(5)
    assert narrow <= 2


def test_steps_are_in_order_and_each_is_said_once_by_the_narrowest_windows() -> None:
    rng = np.random.default_rng(4)
    place = np.arange(512)
    jumps = np.where(place < 100, 0, 0.3) + np.where(place < 300, 0, 0.03)
    [[large, small]] = steps([known(jumps + noise(rng, 512))])
    assert large[:3] == (99, 100, 1)
    assert large.low < 0.3 < large.high
    assert abs(small.after - 300) < small.width


def test_what_has_no_doubt_says_nothing() -> None:
    assert steps([known(np.array([0.0, 1.0, 1.0]), error=0, wobble=0)]) == [[]]
    assert steps([known(np.zeros(n)) for n in (0, 1)]) == [[], []]
    assert steps([]) == []
