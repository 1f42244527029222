"""Windows along a series: steps too small for two neighbours are found, and drift is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.compare import windows
from bench.compare.series import SeriesChange, SeriesKey
from bench.compare.windows import Points

ERROR, WOBBLE = 0.008, 0.005


def known(values: np.ndarray, error: float = ERROR, wobble: float = WOBBLE) -> Points:
    size = values.size
    own, df = np.full(size, error**2), np.full(size, 12.0)
    return Points(np.arange(size), values, own, df, np.full(size, wobble**2), 10)


def changes(*series: Points) -> list[list[SeriesChange]]:
    """Return the changes of each series."""
    keys = [SeriesKey("", f"e{i}", "", "toy", "", "step", "", False) for i in range(len(series))]
    found = windows.changes(dict(zip(keys, series, strict=True)))
    return [[change for change in found if change.key == key] for key in keys]


def noise(rng: np.random.Generator, size: int, wander: float = 0.0, moods: float = 1) -> np.ndarray:
    """Return points; each goes on from where the last one had wandered to, that much of it."""
    own, fresh = rng.normal(0, ERROR, size), rng.normal(0, moods * WOBBLE, size)
    walk = np.zeros(size)
    for i in range(size):
        walk[i] = (wander * walk[i - 1] if i else 0) + np.sqrt(1 - wander**2) * fresh[i]
    return own + walk


def test_widths_double_while_there_is_room_for_eight_windows() -> None:
    counts = (0, 1, 2, 31, 32, 64)
    assert [list(windows.widths(count)) for count in counts] == [
        *([], [], [1], [1], [1, 2, 4], [1, 2, 4, 8])
    ]
    family = [known(np.zeros(count)) for count in (2, 64)]
    looks = [windows.windows(each, w) for each in family for w in windows.widths(each.value.size)]
    compared = sum(look.p.size for look in looks)
    assert windows.comparisons([2, 64]) == compared == 1 + 63 + 61 + 57 + 49


def test_differences_are_those_of_means() -> None:
    values = np.random.default_rng(0).normal(0, 1, 70)
    look = windows.windows(known(values), 4)
    for first, difference in zip(look.first, look.difference, strict=True):
        means = values[first - 4 : first].mean(), values[first : first + 4].mean()
        assert difference == pytest.approx(means[1] - means[0])
    narrow = windows.windows(known(values), 1, floor=2)
    assert narrow.error == pytest.approx(np.full(69, np.sqrt(2 * (ERROR**2 + WOBBLE**2))))


def test_neighbours_have_the_odds_of_a_t_test() -> None:
    """The variances of both and what they share, as Satterthwaite adds them."""
    [p] = windows.windows(known(np.array([0.0, 0.03])), 1).p
    parts = [(ERROR**2, 12), (ERROR**2, 12), (2 * WOBBLE**2, 10)]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / df for part, df in parts)
    assert p == pytest.approx(2 * stats.t.sf(0.03 / np.sqrt(variance), df))


@pytest.mark.parametrize(("wander", "moods"), [(0.0, 1), (0.8, 1), (0.0, 3), (0.8, 2)])
def test_false_alarms_are_as_rare_as_is_said(wander: float, moods: float) -> None:
    """Ten series of 128 runs in which nothing changes: also where the machine drifts, or has more
    moods than it is known to have, and where each run has only an estimate of its own doubt."""
    rng = np.random.default_rng(1)

    def one() -> Points:
        given = known(noise(rng, 128, wander, moods))
        return given._replace(own=given.own * rng.chisquare(12, 128) / 12)

    wrong = sum(any(changes(*[one() for _ in range(10)])) for _ in range(200))
    assert wrong / 200 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_small_step_shows_in_a_long_series_and_not_between_neighbours() -> None:
    rng = np.random.default_rng(2)
    found = narrow = wrong = 0
    for _ in range(100):
        jump = np.where(np.arange(256) < 100, 0, 0.03)
        rest = [known(noise(rng, 256)) for _ in range(9)]
        [first, *others] = changes(known(jump + noise(rng, 256)), *rest)
        near = [step for step in first if abs(step.after - 100) < step.width]
        found += len(near) == 1
        narrow += any(step.width == 1 for step in first)
        wrong += any(others)
    assert found >= 90
    assert wrong <= 5 + 3 * np.sqrt(5)
    assert narrow <= 2


def test_a_large_step_is_said_once_and_a_small_one_elsewhere_beside_it() -> None:
    rng = np.random.default_rng(4)
    place = np.arange(512)
    jumps = np.where(place < 100, 0, 0.3) + np.where(place < 300, 0, 0.03)
    [[large, small]] = changes(known(jumps + noise(rng, 512)))
    assert (large.before, large.after, large.width) == (99, 100, 1)
    assert np.log(large.low) < 0.3 < np.log(large.high)
    assert abs(small.after - 300) < small.width


def test_what_has_no_doubt_says_nothing() -> None:
    assert changes(known(np.array([0.0, 1.0, 1.0]), error=0, wobble=0)) == [[]]
    assert changes(known(np.zeros(0)), known(np.zeros(1))) == [[], []]
    assert changes() == []
