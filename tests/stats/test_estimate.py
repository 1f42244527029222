"""From samples to estimates: the samples that cells share, and comparisons."""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import pytest

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.estimates import PROGRAM, Estimate, Verdict, find_detectable_difference
from bench.metrics import HOST, STEP
from bench.samples import Sample
from bench.stats.estimate import estimate
from tests.estimates import ratio_within

PLAIN, OTHER = BASELINE.make_cell("seed", "cpu"), CONTROL.make_cell("seed", "cpu")
EQUINOX, FILTERED, HAIKU = (
    Arm.parse(name).make_cell("seed", "cpu")
    for name in ("equinox/pure", "equinox/filter_jit", "haiku/pure")
)
ALL = [PLAIN, OTHER, EQUINOX, FILTERED, HAIKU]


def cold(metric: str, cells: Sequence[Cell], samples: int = 5) -> list[Sample]:
    """Return samples of each cell, 1 % apart, from 1 s on, each of a process of its own."""
    return [
        Sample(cell, metric, 1 + 0.01 * j, worker=100 * i + j, block=100 * i + j)
        for i, cell in enumerate(cells)
        for j in range(samples)
    ]


def warm(
    metric: str = STEP,
    ratios: Mapping[Cell, float] | None = None,
    environment: str = "",
    noise: float = 0.01,
    seed: int = 0,
) -> list[Sample]:
    """Return four workers of three blocks in which cells take so many times the baseline's time."""
    rng = np.random.default_rng(seed)
    ratios = {PLAIN: 1.0, OTHER: 1.0, **(ratios or {HAIKU: 1.0})}
    return [
        Sample(cell, metric, value, 20, 1.1 * value, None, environment, block // 3, block)
        for block in range(12)
        for cell, ratio in ratios.items()
        for value in [1e-3 * ratio * math.exp(rng.normal(0, noise))]
    ]


def compared(rows: Iterable[Estimate], metric: str = "") -> dict[Cell, Estimate]:
    rows = (row for row in rows if metric in ("", row.metric))
    return {row.cell: row for row in rows if row.form != "amount"}


PROGRAMS = {PLAIN: "a", OTHER: "a", EQUINOX: "a", FILTERED: "b", HAIKU: "b"}
APART = {EQUINOX: 0.97, FILTERED: 1.04, HAIKU: 1.06}


def test_arms_with_the_same_program_share_what_compiling_it_took() -> None:
    samples = warm("compile", APART, noise=1e-6)
    rows = estimate(samples, programs=PROGRAMS)
    same, one, other = (compared(rows)[cell] for cell in (EQUINOX, FILTERED, HAIKU))
    assert (same.value, same.low, same.high, same.is_noiseless) == (1, 1, 1, True)
    assert (same.settled_by, same.verdict) == (PROGRAM, Verdict.EQUIVALENT)
    assert msgspec.structs.replace(one, cell=HAIKU) == other
    assert one.value == pytest.approx(math.sqrt(1.04 * 1.06), rel=1e-4)
    amounts = {row.cell: (row.value, row.blocks) for row in rows if row.form == "amount"}
    assert amounts[PLAIN] == amounts[EQUINOX] != amounts[OTHER]
    assert {blocks for _, blocks in amounts.values()} == {12}
    assert find_detectable_difference(rows) == find_detectable_difference([one]), (
        "what is exact has no part in it"
    )
    # where one arm of a program has compiled it, the others have the time, too
    traced = warm("trace", APART, noise=1e-6)
    few = [s for s in samples if s.cell not in (EQUINOX, HAIKU)]
    rows = estimate([*few, *traced], programs=PROGRAMS)
    same, one, other = (compared(rows, "compile")[cell] for cell in (EQUINOX, FILTERED, HAIKU))
    assert same.is_noiseless
    assert msgspec.structs.replace(one, cell=HAIKU) == other
    assert one.value == pytest.approx(1.04, rel=1e-4)
    for metric in ("trace", STEP):
        rows = estimate(warm(metric, APART, noise=1e-6), programs=PROGRAMS)
        assert compared(rows)[HAIKU].value == pytest.approx(1.06, rel=1e-4)


def test_each_day_of_a_history_compiles_its_programs_itself() -> None:
    samples = []
    for day, factor in enumerate((1.0, 1.5)):  # each day has its own blocks of the reference
        sides = [(warm("compile", {HAIKU: 1.0}, "base"), 1.0)]
        sides += [(warm("compile", {HAIKU: 1.0}, f"day {day}"), factor)]
        samples += [
            s._replace(value=by * s.value, worker=s.worker + 10 * day, block=s.block + 100 * day)
            for rows, by in sides
            for s in rows
        ]
    rows = estimate(samples, "base", programs=dict.fromkeys(ALL, "a"))
    ratios = {(r.environment, r.cell): r.value for r in rows if r.form == "ratio"}
    assert {cell: ratios["day 1", cell] / ratios["day 0", cell] for cell in (PLAIN, HAIKU)} == {
        cell: pytest.approx(1.5) for cell in (PLAIN, HAIKU)
    }


def test_arms_with_the_same_program_have_narrower_intervals() -> None:
    samples = warm("compile", dict.fromkeys(APART, 1.0), noise=0.03)
    alone = compared(estimate(samples))
    shared = compared(estimate(samples, programs=PROGRAMS))
    assert (shared[HAIKU].standard_error or 0) < 0.8 * (alone[HAIKU].standard_error or 0)
    assert shared[OTHER] == alone[OTHER], "the control is compared with the baseline alone"
    late = [s for s in samples if s.cell != EQUINOX or s.block > 8]
    assert compared(estimate(late, programs=PROGRAMS))[HAIKU].blocks == 12
    unknown = compared(estimate(samples, programs={HAIKU: "b", FILTERED: ""}))
    assert unknown[EQUINOX] == alone[EQUINOX]
    both = [*warm("compile", APART, "base"), *warm("compile", APART, "new", seed=1)]
    pairs = compared(r for r in estimate(both, "base", programs=PROGRAMS) if r.form == "ratio")
    lone = compared(r for r in estimate(both, "base") if r.form == "ratio")
    assert msgspec.structs.replace(pairs[FILTERED], cell=HAIKU) == pairs[HAIKU]
    middle = math.sqrt(lone[FILTERED].value * lone[HAIKU].value)
    assert pairs[HAIKU].value == pytest.approx(middle)
    assert (pairs[HAIKU].standard_error or 0) < 0.9 * (lone[HAIKU].standard_error or 0)


def test_styles_share_what_importing_their_library_took_and_nothing_else() -> None:
    def sizes(metric: str, samples: list[Sample]) -> list[int]:
        rows = estimate(samples, programs=dict.fromkeys(ALL, "a"))
        return [row.blocks for row in rows if row.form == "amount" and row.metric == metric]

    assert sizes("import", cold("import", ALL)) == [5, 5, 10, 10, 5]
    assert sizes("first_step", cold("first_step", ALL)) == [5] * 5
    again = cold("import", ALL)
    shared = [s._replace(cell=FILTERED) for s in again if s.cell == EQUINOX]
    assert sizes("import", [*again, *shared]) == [5, 5, 10, 10, 5], "a process counts once"


@pytest.mark.parametrize(("samples", "cells"), [(2, 0), (3, 5)])
def test_too_few_cold_samples_give_no_estimate(samples: int, cells: int) -> None:
    rows = estimate(cold("first_step", ALL, samples))
    assert len({row.cell for row in rows}) == cells
    few = estimate(cold("first_step", ALL, samples), least_cold=1)
    assert {row.blocks for row in few if row.form == "amount"} == {samples}


def test_both_references_count_and_the_control_is_in_no_family() -> None:
    samples = warm(ratios={HAIKU: 1.1, EQUINOX: 1.0})
    rows = compared(estimate(samples))
    haiku, control = rows[HAIKU], rows[OTHER]
    assert (haiku.verdict, haiku.settled_by) == (Verdict.SLOWER, "")
    assert haiku.value == pytest.approx(1.1, rel=0.01)
    assert (haiku.workers, haiku.blocks) == (4, 12)
    apart = compared(estimate(warm(ratios={OTHER: 1.2, HAIKU: 1.1}, noise=0.001)))
    assert apart[HAIKU].value == pytest.approx(1.1 / math.sqrt(1.2), rel=0.002)
    widths = [row.half_width / (row.standard_error or 0) for row in (control, haiku)]
    assert widths[0] < widths[1], "the control is corrected for no other"


def test_host_costs_are_added_seconds() -> None:
    cells = [cell.arm.make_cell("toy", "cpu") for cell in (PLAIN, OTHER, HAIKU)]
    ratios = dict(zip(cells, (1.0, 1.0, 1.5), strict=True))
    samples = [s for s in warm(HOST, ratios) if s.cell.workload == "toy"]
    row = compared(estimate(samples))[cells[2]]
    assert (row.form, row.unit, row.verdict) == ("added", "s", Verdict.SLOWER)
    assert row.value == pytest.approx(5e-4, rel=0.05)


def test_an_environment_is_compared_with_another_in_the_same_pairs() -> None:
    base, new = warm(environment="base"), warm(environment="new", ratios={HAIKU: 1.05}, seed=1)
    rows = [row for row in estimate([*base, *new], "base") if row.form == "ratio"]
    assert {(row.environment, row.against) for row in rows} == {("new", "base")}
    by_cell = compared(rows)
    assert (by_cell[HAIKU].verdict, by_cell[HAIKU].workers) == (Verdict.SLOWER, 4)
    assert by_cell[PLAIN].differs is False


def test_an_entrant_in_its_own_environment_is_compared_with_the_baseline_there() -> None:
    """All blocks of the baseline count, and a slower environment's by their ratios."""
    away = [
        s._replace(environment="keras", worker=s.worker + 9, block=s.block + 99) for s in warm()
    ]
    away = [s._replace(value=2 * s.value) for s in away]
    rows = compared(estimate([*warm(ratios={EQUINOX: 1.0}), *away]))
    assert rows[HAIKU].value == pytest.approx(1, abs=0.02)
    assert (rows[HAIKU].environment, rows[OTHER].workers) == ("keras", 8)


def test_the_detectable_difference_by_hand() -> None:
    expected = math.exp(0.02 + 0.8489 * 0.01) - 1
    rows = [ratio_within(1.3, 0.02), ratio_within(1.0, 9.0, cell=OTHER)]
    assert find_detectable_difference(rows) == pytest.approx(expected, rel=1e-4)
    assert find_detectable_difference([]) == math.inf
