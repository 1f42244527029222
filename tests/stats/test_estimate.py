"""From samples to estimates: what cells share, what is compared, and what a proof settles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.estimates import PROGRAM, TIMING, Estimate, EstimateTable, detectable
from bench.metrics import HOST, STEP
from bench.samples import Sample
from bench.stats.estimate import (
    Family,
    estimate,
    families_of_environments,
    families_of_run,
)
from bench.stats.settle import GROWTH, settled_by_program
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAIN, OTHER = BASELINE.at("seed", "cpu"), CONTROL.at("seed", "cpu")
EQUINOX, FILTERED = (
    Cell("equinox", "pure", "seed", "cpu"),
    Cell("equinox", "filter_jit", "seed", "cpu"),
)
HAIKU = Cell("haiku", "pure", "seed", "cpu")
ALL = [PLAIN, OTHER, EQUINOX, FILTERED, HAIKU]


def cold(metric: str, cells: Sequence[Cell], samples: int = 5) -> list[Sample]:
    """Return samples of each cell, 1 % apart, from 1 s on, each of a process of its own."""
    return [
        Sample("", cell, metric, 100 * i + j, 100 * i + j, 0.0, 1, 1 + 0.01 * j)
        for i, cell in enumerate(cells)
        for j in range(samples)
    ]


def warm(
    metric: str = STEP,
    ratios: Mapping[Cell, float] | None = None,
    environment: str = "",
    noise: float = 0.01,
    seed: int = 0,
    level: float = 1e-3,
) -> list[Sample]:
    """Return four workers of three blocks in which cells take so many times the baseline's time."""
    rng = np.random.default_rng(seed)
    ratios = {PLAIN: 1.0, OTHER: 1.0, **(ratios or {HAIKU: 1.0})}
    return [
        Sample(environment, cell, metric, block // 3, block, 0.0, 1, value, 20, 1.1 * value)
        for block in range(12)
        for cell, ratio in ratios.items()
        for value in [level * ratio * math.exp(rng.normal(0, noise))]
    ]


def compared(rows: Sequence[Estimate]) -> dict[Cell, Estimate]:
    return {row.cell: row for row in rows if row.form != "amount"}


def of_run(samples: list[Sample], programs: Mapping[Cell, str] | None = None) -> list[Estimate]:
    return estimate(samples, families_of_run(samples), programs=programs)


def test_arms_with_the_same_program_share_what_compiling_it_took() -> None:
    samples = cold("compile", ALL)
    rows = of_run(samples, {**dict.fromkeys(ALL, "a"), FILTERED: "b"})
    sizes = {row.cell: row.blocks for row in rows if row.form == "amount"}
    assert sizes == {PLAIN: 15, EQUINOX: 15, HAIKU: 15, OTHER: 5, FILTERED: 5}
    same, other = compared(rows)[EQUINOX], compared(rows)[FILTERED]
    assert (same.value, same.low, same.high, same.exact) == (1, 1, 1, True)
    assert (same.settled_by, same.verdict) == (PROGRAM, Verdict.EQUIVALENT)
    assert other.differs is False
    alone = compared(of_run([s for s in samples if s.cell in (PLAIN, OTHER, FILTERED)]))
    assert other.half_width < 0.9 * alone[FILTERED].half_width
    assert detectable(rows) == detectable([other]), "what is exact has no part in it"


def test_styles_share_what_importing_their_library_took_and_nothing_else() -> None:
    def sizes(metric: str, samples: list[Sample]) -> list[int]:
        rows = of_run(samples, dict.fromkeys(ALL, "a"))
        return [row.blocks for row in rows if row.form == "amount" and row.metric == metric]

    assert sizes("import", cold("import", ALL)) == [5, 5, 10, 10, 5]
    assert sizes("first_step", cold("first_step", ALL)) == [5] * 5
    again = cold("import", ALL)
    shared = [s._replace(cell=FILTERED) for s in again if s.cell == EQUINOX]
    assert sizes("import", [*again, *shared]) == [5, 5, 10, 10, 5], "a process counts once"


@pytest.mark.parametrize(("samples", "cells"), [(4, 0), (5, 5)])
def test_of_too_few_cold_samples_nothing_is_said(samples: int, cells: int) -> None:
    rows = of_run(cold("first_step", ALL, samples))
    assert len({row.cell for row in rows}) == cells
    few = estimate(cold("first_step", ALL, samples), [], least_cold=1)
    assert {row.blocks for row in few} == {samples}


def test_the_control_is_in_no_family_and_both_references_count() -> None:
    samples = warm(ratios={HAIKU: 1.1, EQUINOX: 1.0})
    rows = compared(of_run(samples))
    assert rows[HAIKU].verdict is Verdict.SLOWER
    assert rows[HAIKU].value == pytest.approx(1.1, rel=0.01)
    assert (rows[HAIKU].workers, rows[HAIKU].blocks, rows[HAIKU].settled_by) == (4, 12, TIMING)
    lone = compared(of_run([s for s in samples if s.cell != OTHER]))
    assert rows[HAIKU].half_width < lone[HAIKU].half_width
    t = rows[OTHER].half_width / (rows[OTHER].standard_error or 0)
    assert t < rows[HAIKU].half_width / (rows[HAIKU].standard_error or 0), (
        "it is corrected for none"
    )


def test_host_costs_are_added_seconds() -> None:
    cells = [Cell(*cell.arm, "toy", "cpu") for cell in (PLAIN, OTHER, HAIKU)]
    ratios = dict(zip(cells, (1.0, 1.0, 1.5), strict=True))
    samples = [s for s in warm(HOST, ratios) if s.cell.workload == "toy"]
    [row] = [row for cell, row in compared(of_run(samples)).items() if cell == cells[2]]
    assert (row.form, row.unit, row.verdict) == ("added", "s", Verdict.SLOWER)
    assert row.value == pytest.approx(5e-4, rel=0.05)


def test_an_environment_is_compared_with_another_in_the_same_pairs() -> None:
    base, new = warm(environment="base"), warm(environment="new", ratios={HAIKU: 1.05}, seed=1)
    samples = [*base, *new]
    families = families_of_environments(samples, "base")
    assert families == [Family(STEP, "seed", "cpu", "base")]
    rows = [row for row in estimate(samples, families) if row.form == "ratio"]
    assert {row.environment for row in rows} == {"new"}
    found = compared(rows)
    assert found[HAIKU].verdict is Verdict.SLOWER
    assert found[PLAIN].differs is False
    assert found[HAIKU].workers == 4


def test_an_amount_is_the_median_of_calls_with_an_interval_over_workers() -> None:
    [row] = [r for r in of_run(warm(noise=0.0)) if r.cell == HAIKU and r.form == "amount"]
    assert (row.unit, row.workers) == ("s", 4)
    assert row.value == pytest.approx(1.1e-3)
    assert row.low == pytest.approx(row.high) == pytest.approx(1.1e-3)
    [exact] = estimate([Sample("", HAIKU, "flops", 0, 0, 0.0, 0, 7.0)], [])
    assert (exact.value, exact.low, exact.standard_error) == (7.0, None, None)


def ratio(value: float, half: float, cell: Cell = HAIKU) -> Estimate:
    return Estimate(
        cell=cell,
        metric=STEP,
        form="ratio",
        against=str(BASELINE),
        value=value,
        low=value * math.exp(-half),
        high=value * math.exp(half),
        standard_error=half / 2,
        df=50.0,
    )


def test_the_detectable_difference_by_hand() -> None:
    expected = math.exp(0.02 + 0.8489 * 0.01) - 1
    assert detectable([ratio(1.3, 0.02)]) == pytest.approx(expected, rel=1e-4)
    assert detectable([]) == math.inf
    table = EstimateTable([ratio(1.3, 0.02), ratio(1.0, 9.0, OTHER)])
    assert table.detectable(STEP, "seed", "cpu") == pytest.approx(expected, rel=1e-4)


INCONCLUSIVE, SLOWER = Verdict.INCONCLUSIVE, Verdict.SLOWER


@pytest.mark.parametrize(
    ("host", "step", "same", "verdict"),
    [
        (2e-6, ratio(1.01, 0.05), True, Verdict.EQUIVALENT),
        (2e-6, ratio(1.01, 0.05), False, INCONCLUSIVE),  # another program
        (None, ratio(1.01, 0.05), True, INCONCLUSIVE),  # no host cost
        (2e-5, ratio(1.01, 0.05), True, INCONCLUSIVE),  # the host costs more than the margin
        (2e-6, ratio(1.20, 0.05), True, INCONCLUSIVE),  # timing contradicts
    ],
)
def test_what_a_proof_settles(
    host: float | None, step: Estimate, same: bool, verdict: Verdict
) -> None:
    toy = Arm("haiku", "pure").at("toy", "cpu")
    level = Estimate(cell=PLAIN, metric=STEP, form="amount", value=1e-3)
    step = msgspec.structs.replace(step, verdict=INCONCLUSIVE)
    rows = [level, step]
    if host is not None:
        rows.append(
            Estimate(cell=toy, metric=HOST, form="added", value=0.0, low=-host / 2, high=host)
        )
    [row] = [
        row
        for row in settled_by_program(rows, [HAIKU] if same else [], 0.02)
        if row.form == "ratio"
    ]
    assert row.verdict is verdict
    assert (row.settled_by == PROGRAM) is (verdict is Verdict.EQUIVALENT)
    if same and host:
        assert row.bound == pytest.approx(GROWTH * host / 1e-3)
    slower = msgspec.structs.replace(step, verdict=SLOWER)
    [kept] = settled_by_program([slower], [HAIKU], 0.02)
    assert kept.verdict is SLOWER, "a verdict of timing stays"
