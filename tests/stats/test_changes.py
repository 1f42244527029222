"""Differences of rows: coverage, power, and false changes, by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from bench.estimates import ALPHA, Estimate, Verdict
from bench.stats.changes import (
    LONG_SERIES,
    Spread,
    compare_ratios,
    estimate_array_costs,
    find_shifts,
    find_spread,
    is_change,
)
from tests import estimates


def ratio(value: float, error: float | None = 0.004, df: float = 10.0, at: str = "x") -> Estimate:
    row: Estimate = estimates.ratio(value, environment=at, standard_error=error, df=df, workers=5)
    return row


def drawn(rng: np.random.Generator, middle: float, sd: float, at: str = "x") -> Estimate:
    """Return a row that varies by `sd` from run to run, and by what it knows."""
    df, error = 10.0, 0.004
    log = math.log(middle) + rng.normal(0, sd) + rng.normal(0, error)
    return ratio(math.exp(log), error * math.sqrt(rng.chisquare(df) / df), df, at=at)


@pytest.mark.parametrize("bases", [1, 3])
def test_intervals_of_differences_cover_and_find(bases: int) -> None:
    rng, sd = np.random.default_rng(0), 0.01
    inside, slower, times = 0, 0, 800
    for _ in range(times):
        before = [drawn(rng, 1.05, sd) for _ in range(bases)]
        row = compare_ratios(before, [drawn(rng, 1.05 * 1.06, sd)], Spread(sd, 40), comparisons=5)
        assert row.low is not None
        assert row.high is not None
        inside += row.low < 1.06 < row.high
        slower += row.verdict is Verdict.SLOWER
        assert (row.p is not None and row.p < ALPHA) is row.differs
    assert inside / times > 0.985  # corrected for five: 99 %
    assert slower / times > 0.8


def test_what_is_not_known_is_inconclusive_and_what_is_exact_needs_no_test() -> None:
    unknown = compare_ratios([ratio(1.0, None, 0.0)], [ratio(9.0)])
    assert (unknown.low, unknown.high, unknown.verdict) == (None, None, Verdict.INCONCLUSIVE)
    assert unknown.value == pytest.approx(9)
    assert unknown.p == 1
    one_known = compare_ratios([ratio(1.0, None, 0.0), ratio(3.0)], [ratio(3.0)])
    assert one_known.value == pytest.approx(1)
    assert one_known.high is not None
    same = compare_ratios([ratio(1.0, 0.0, 0.0)], [ratio(1.0, 0.0, 0.0)], Spread(0.01, 10))
    assert (same.low, same.high, same.p, same.is_noiseless) == (1, 1, 1, True)
    assert compare_ratios([ratio(1.0, 0.0, 0.0)], [ratio(1.2)], Spread(0.001, 10)).differs


@pytest.mark.parametrize("days", [4, 16])
def test_any_false_change_in_a_history_is_rare_and_a_real_one_is_found(days: int) -> None:
    rng, times, false, true = np.random.default_rng(days), 300, 0, 0
    for _ in range(times):
        # All days of a history share one variance, which is known as well as all are together.
        luck = math.sqrt(rng.chisquare(days) / days)
        series = [
            [
                replace(row, standard_error=0.004 * luck, df=float(days))
                for day in range(days)
                for row in [drawn(rng, 1.08 if planted and day >= 2 else 1.0, 0.0, f"{day:02d}")]
            ]
            for planted in (True, False, False)
        ]
        changes = [row for row in find_shifts(series, pooled=True) if is_change(row)]
        real = [row for row in changes if (row.against, row.environment) == ("01", "02")]
        true += bool(real)
        false += len(changes) > len(real)
    assert false / times < 0.075  # 5 %, and two standard errors
    assert true / times > 0.9


@pytest.mark.parametrize("nights", [6, 60])
def test_a_shift_that_stays_shows_among_nights_and_a_quiet_series_has_none(nights: int) -> None:
    rng, sd, times, false, near = np.random.default_rng(nights), 0.006, 200, 0, 0
    at, shift = nights // 2, 1.08 if nights < LONG_SERIES else 1.02  # neighbours differ by 1 %
    for _ in range(times):
        quiet, shifted = (
            [drawn(rng, more if n >= at else 1.0, sd, f"{n:02d}") for n in range(nights)]
            for more in (1.0, shift)
        )
        false += any(map(is_change, find_shifts([quiet], lambda _: Spread(sd, 40))))
        changes = filter(is_change, find_shifts([shifted], lambda _: Spread(sd, 40)))
        near += any(abs(int(row.environment) - at) <= 3 and row.value > 1 for row in changes)
    assert false / times < 0.08  # 5 %, and two standard errors
    assert near / times > 0.9


def test_each_night_has_its_noise() -> None:
    rng, times, false, found = np.random.default_rng(5), 100, 0, 0
    for _ in range(times):
        # Ten nights of a style that took twice as long; it varied by more then
        levels = [2.0] * 8 + [1.0] * 2
        sds = [find_spread(ratio(level)).sd for level in levels]
        rows = [
            drawn(rng, *both, f"{n:02d}") for n, both in enumerate(zip(levels, sds, strict=True))
        ]
        changes = find_shifts([rows], find_spread)
        assert changes[-1].environment == "08"
        false += len(changes) > 1
        # A shift that begins in a noisy night, which looks like a level of its own
        nights = [drawn(rng, 1.03 if n >= 30 else 1.0, 0.0, f"{n:02d}") for n in range(60)]
        nights[30] = replace(nights[30], value=nights[30].value * 0.98, standard_error=0.024)
        found += [row.environment for row in find_shifts([nights])] in (["30"], ["31"])
    assert false / times < 0.1  # 5 %, and two standard errors
    assert found / times > 0.9


def test_a_machine_with_moods_is_no_change() -> None:
    rng = np.random.default_rng(3)
    moody = [drawn(rng, 1.0, 0.05, f"{i:02d}") for i in range(4 * LONG_SERIES)]
    calm = [replace(row, value=math.exp(math.log(row.value) / 20)) for row in moody]
    calm[40:] = [replace(row, value=row.value * 1.1) for row in calm[40:]]
    assert not any(map(is_change, find_shifts([moody])))
    [change] = filter(is_change, find_shifts([calm]))
    assert (change.against, change.environment) == ("39", "40")


ARRAYS = {"toy": 8, "depth12": 26}
CALL, ARRAY = 60e-6, 2e-6
"""Seconds that a call costs by itself, and for each array."""


def measure_depths(
    rng: np.random.Generator, call: float, array: float, error: float = 0.01
) -> list[Estimate]:
    """Return what a comparison measures where the new side costs so many seconds more."""
    out = []
    for workload, arrays in ARRAYS.items():
        cell, before = estimates.HAIKU._replace(workload=workload), CALL + ARRAY * arrays
        log = math.log1p((call + array * arrays) / before) + rng.normal(0, error)
        for side in ("base", "new"):
            about: dict[str, Any] = {"cell": cell, "environment": side}
            out.append(estimates.amount(before, metric="host_cost", **about))
            out.append(estimates.amount(arrays, "", metric="parameter_arrays", **about))
        about |= {"metric": "host_cost", "against": "base", "workers": 4, "blocks": 9}
        known = error * math.sqrt(rng.chisquare(8) / 8)
        out.append(estimates.ratio(math.exp(log), standard_error=known, df=8.0, **about))
    return out


@pytest.mark.parametrize(("call", "array"), [(0.0, 0.0), (10e-6, 0.0), (0.0, 0.2e-6)])
def test_the_interval_of_a_ratio_of_array_costs_covers(call: float, array: float) -> None:
    rng, times, inside = np.random.default_rng(0), 400, 0
    for _ in range(times):
        *amounts, row = estimate_array_costs(measure_depths(rng, call, array), "base", 0.02)
        assert [amount.environment for amount in amounts] == ["base", "new"]
        assert (row.metric, row.cell.workload) == ("host_cost_per_array", "depth12")
        assert row.low is not None
        assert row.high is not None
        inside += row.low <= 1 + array / ARRAY <= row.high
    assert inside / times > 0.93  # 95 %, and two standard errors
    exact = measure_depths(rng, call, array, error=1e-6)
    base, new, row = estimate_array_costs(exact, "base", 0.02)
    assert base.value == pytest.approx(ARRAY)
    assert new.value == pytest.approx(ARRAY + array, rel=1e-3)
    assert row.value == pytest.approx(1 + array / ARRAY, rel=1e-3)
    assert (row.workers, row.blocks) == (4, 9)


def test_one_depth_or_a_cost_that_falls_with_arrays_has_no_cost_per_array() -> None:
    rng = np.random.default_rng(1)
    one = [row for row in measure_depths(rng, 0.0, 0.0) if row.cell.workload == "toy"]
    assert not [*estimate_array_costs(one, "base", 0.02)]
    falling = measure_depths(rng, 0.0, -1.5 * ARRAY)
    assert not [*estimate_array_costs(falling, "base", 0.02)]
