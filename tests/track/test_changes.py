"""Differences of rows that were made apart: coverage, power, and false changes, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from bench.cells import Cell
from bench.estimates import Estimate
from bench.stats.changes import ALPHA, LONG, Spread, difference, holm, is_change, neighbours
from bench.stats.verdicts import Verdict
from bench.track.between_runs import (
    BETWEEN,
    Variation,
    at_speed,
    chosen,
    learned,
    scale,
    spread,
    variation,
)

HAIKU = Cell("haiku", "pure", "seed", "cpu")


def ratio(
    value: float, error: float | None = 0.004, df: float = 10.0, cell: Cell = HAIKU, at: str = "x"
) -> Estimate:
    return Estimate(
        cell=cell,
        metric="step",
        form="ratio",
        environment=at,
        against="pure_jax/pure",
        value=value,
        standard_error=error,
        df=df,
        workers=5,
    )


def drawn(rng: np.random.Generator, middle: float, sd: float, at: str = "x") -> Estimate:
    """Return a row that varies by `sd` from run to run, and by what it knows."""
    df, error = 10.0, 0.004
    log = math.log(middle) + rng.normal(0, sd) + rng.normal(0, error)
    return ratio(math.exp(log), error * math.sqrt(rng.chisquare(df) / df), df, at=at)


@pytest.mark.parametrize("bases", [1, 3])
def test_intervals_of_differences_cover_and_find(bases: int) -> None:
    rng, sd = np.random.default_rng(0), 0.01
    inside, found, times = 0, 0, 800
    for _ in range(times):
        before = [drawn(rng, 1.05, sd) for _ in range(bases)]
        row = difference(before, drawn(rng, 1.05 * 1.06, sd), Spread(sd, 40), comparisons=5)
        assert row.low is not None
        assert row.high is not None
        inside += row.low < 1.06 < row.high
        found += row.verdict is Verdict.SLOWER
        assert (row.p is not None and row.p < ALPHA) is row.differs
    assert inside / times > 0.985  # corrected for five: 99 %
    assert found / times > 0.8


def test_what_is_not_known_is_inconclusive_and_what_is_exact_needs_no_test() -> None:
    open_ = difference([ratio(1.0, None, 0.0)], ratio(9.0))
    assert (open_.low, open_.high, open_.verdict) == (None, None, Verdict.INCONCLUSIVE)
    assert open_.value == pytest.approx(9)
    assert open_.p == 1
    one_known = difference([ratio(1.0, None, 0.0), ratio(3.0)], ratio(3.0))
    assert one_known.value == pytest.approx(1)
    assert one_known.high is not None
    same = difference([ratio(1.0, 0.0, 0.0)], ratio(1.0, 0.0, 0.0), Spread(0.01, 10))
    assert (same.low, same.high, same.p, same.exact) == (1, 1, 1, True)
    moved = difference([ratio(1.0, 0.0, 0.0)], ratio(1.2), Spread(0.001, 10))
    assert moved.differs


def test_what_is_added_is_compared_in_seconds_with_a_margin_of_the_call() -> None:
    def added(seconds: float) -> Estimate:
        return replace(ratio(seconds, 2e-7, 30), metric="host_cost", form="added", unit="s")

    row = difference([added(20e-6)], added(21e-6), level=120e-6)
    assert row.value == pytest.approx(1e-6)
    assert (row.form, row.unit, row.differs) == ("added", "s", True)
    assert row.verdict is Verdict.EQUIVALENT  # less than 2 % of the call
    assert difference([added(20e-6)], added(30e-6), level=120e-6).verdict is Verdict.SLOWER
    assert difference([added(20e-6)], added(20.1e-6)).verdict is Verdict.INCONCLUSIVE
    assert at_speed(added(20e-6), 1e-4, 1.1e-4).value == pytest.approx(22e-6)
    assert at_speed(ratio(1.2), 1e-4, 1.1e-4).value == 1.2


@pytest.mark.parametrize(("days", "pooled"), [(4, True), (16, True), (40, False)])
def test_any_false_change_in_a_history_is_rare_and_a_real_one_is_found(
    days: int, pooled: bool
) -> None:
    rng, times, false, found = np.random.default_rng(days), 300, 0, 0
    for _ in range(times):
        # All days of a history share one variance, which is known as well as all are together.
        luck = math.sqrt(rng.chisquare(days) / days)
        series = [
            [
                replace(row, standard_error=0.004 * luck, df=float(days)) if pooled else row
                for day in range(days)
                for row in [drawn(rng, 1.08 if planted and day >= 2 else 1.0, 0.0, f"{day:02d}")]
            ]
            for planted in (True, False, False)
        ]
        rows = neighbours(series, lambda _: Spread(0.0, math.inf), pooled=pooled)
        assert len(rows) == 3 * (days - 1)
        changes = [row for row in rows if is_change(row)]
        real = [row for row in changes if (row.against, row.environment) == ("01", "02")]
        found += bool(real)
        false += len(changes) > len(real)
    assert false / times < 0.075  # 5 %, and two standard errors
    assert found / times > 0.9


def test_a_machine_with_moods_is_no_change() -> None:
    rng = np.random.default_rng(3)
    moody = [drawn(rng, 1.0, 0.05, f"{i:02d}") for i in range(4 * LONG)]
    assert not any(map(is_change, neighbours([moody], lambda _: Spread(0.0, math.inf))))
    calm = [replace(row, value=math.exp(math.log(row.value) / 20)) for row in moody]
    calm[40:] = [replace(row, value=row.value * 1.1) for row in calm[40:]]
    [change] = filter(is_change, neighbours([calm], lambda _: Spread(0.0, math.inf)))
    assert (change.against, change.environment) == ("39", "40")


def test_holm_is_the_sequential_rejection() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).size == 0
    assert holm(np.array([0.9, 0.8])).max() == 1


# between runs


def arms(count: int) -> list[Cell]:
    return [Cell(f"e{i}", "s", "seed", "cpu") for i in range(count)]


@pytest.mark.parametrize("sd", [0.0, 0.04, 0.1])
def test_what_runs_of_the_same_code_vary_by_is_learned_from_them(sd: float) -> None:
    rng = np.random.default_rng(1)
    runs = []
    for _ in range(12):
        run = {}
        for cell in arms(12):
            row = drawn(rng, 1.5, sd * scale(ratio(1.5), 0.0))
            run[cell, "step"] = replace(row, cell=cell)
        runs.append(run)
    known = learned(runs, {})[Variation.STEP]
    assert known.sd == pytest.approx(sd, rel=0.15, abs=0.006)
    assert chosen({Variation.STEP: known})[Variation.STEP].sd == known.sd or known.df < 6


def test_an_uncertain_spread_only_widens_the_table() -> None:
    table = BETWEEN[Variation.STEP]
    assert chosen({Variation.STEP: Spread(0.0, 2)})[Variation.STEP] == table
    assert chosen({Variation.STEP: Spread(1.0, 2)})[Variation.STEP] == Spread(1.0, table.df)
    assert learned([{(HAIKU, "step"): ratio(1.0)}], {}) == {}


def test_a_row_varies_by_what_its_arm_adds() -> None:
    same, several = spread(ratio(1.0), 0.0), spread(ratio(9.0), 0.0)
    assert 5 * same.sd < several.sd < 12 * same.sd
    host = replace(ratio(1e-4), metric="host_cost", form="added", unit="s")
    assert spread(host, 1e-4).sd == pytest.approx(0.03 * 1.1e-4)
    kinds = {"step": Variation.STEP, "peak_rss": Variation.MEMORY, "compile": Variation.COLD}
    kinds |= {"import": Variation.LIBRARY}
    for metric, kind in kinds.items():
        assert variation(replace(ratio(1.0), metric=metric)) is kind
