"""From samples to what is said of them: what cells share, and what a proof settles."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.actions import Options
from bench.engine.run_plan import RunPlan
from bench.estimates import (
    REFERENCE,
    Group,
    Settled,
    beside,
    datum,
    differences,
    groups_of,
    table,
)
from bench.report.choices import choices
from bench.report.findings import sentences
from bench.runfile import PlanOfRun
from bench.runfile.section import GROWTH, section
from bench.runfile.warnings import pinned
from bench.samples import Found, Samples, State
from bench.stats.ratios import detectable
from bench.stats.verdicts import PROGRAM
from tests.simulated import LANES, PROOF, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.runfile import BakeoffSection, Metric

STEP = Group("step", "seed", "cpu")
PLAIN, OTHER = Cell(*BASELINE, "seed", "cpu"), Cell(*CONTROL, "seed", "cpu")
FILTERED = Cell("equinox", "filter_jit", "seed", "cpu")
EQUINOX, HAIKU = Cell("equinox", "pure", "seed", "cpu"), Cell("haiku", "pure", "seed", "cpu")


def cold(first: int, values: list[float]) -> list[Samples]:
    """Return samples of processes with numbers from `first` on."""
    return [Samples(n, n, 0.0, [value]) for n, value in enumerate(values, first)]


def cells(metric: str, programs: Mapping[Cell, str]) -> dict[Cell, Found]:
    """Return cells with five cold samples each, 1 % apart, from 1 s to 1.04 s."""
    return {
        cell: Found(
            {metric: cold(100 * i, [1 + 0.01 * j for j in range(5)])},
            facts={"fingerprint": program},
        )
        for i, (cell, program) in enumerate(programs.items())
    }


def test_arms_with_the_same_program_share_what_compiling_it_took() -> None:
    found = cells("compile", {PLAIN: "a", OTHER: "a", EQUINOX: "a", HAIKU: "a", FILTERED: "b"})
    group = Group("compile", "seed", "cpu")
    arms = groups_of(found)[group]
    assert arms[EQUINOX] is arms[PLAIN] is arms[HAIKU]
    assert [len(arms[cell]) for cell in (PLAIN, OTHER, FILTERED)] == [15, 5, 5]
    estimates = beside(group, arms)
    assert estimates[EQUINOX].interval == (1, 1)
    assert estimates[EQUINOX].df == math.inf
    low, high = estimates[FILTERED].interval
    assert low < 1 < high
    few = {cell: found[cell].blocks["compile"] for cell in (PLAIN, OTHER, FILTERED)}
    assert estimates[FILTERED].half_width < 0.9 * beside(group, few)[FILTERED].half_width
    # What is exact has no part in what can be detected.
    assert detectable(list(estimates.values())) == detectable([estimates[FILTERED]])


def test_slow_calls_do_not_move_what_a_block_says_of_an_arm() -> None:
    quiet = [1.0 + 0.001 * call for call in range(40)]
    disturbed = quiet[:20] + [9.0] * 20
    assert datum(quiet) == pytest.approx(1.0039)
    assert datum(disturbed) == pytest.approx(datum(quiet))


def test_the_control_is_in_no_family() -> None:
    whole = table(groups_of(cells("step", dict.fromkeys([PLAIN, OTHER, HAIKU], "")))[STEP])
    assert whole.compared(REFERENCE) == ([0, 1], [2])
    assert whole.compared([PLAIN.arm]) == ([0], [2])
    assert whole.compared([HAIKU.arm]) == ([2], [0])


def test_styles_share_what_importing_their_library_took_and_nothing_else() -> None:
    cell_programs = dict.fromkeys([PLAIN, OTHER, EQUINOX, FILTERED, HAIKU], "a")
    found = cells("import", cell_programs)
    # What was taken over from another style is not counted twice.
    found[FILTERED].blocks["import"] += found[EQUINOX].blocks["import"]
    arms = groups_of(found)[Group("import", "seed", "cpu")]
    assert arms[EQUINOX] is arms[FILTERED]
    assert [len(arms[cell]) for cell in (PLAIN, EQUINOX, HAIKU)] == [5, 10, 5]
    found = cells("first_step", cell_programs)
    before = copy.deepcopy(found)
    arms = groups_of(found)[Group("first_step", "seed", "cpu")]
    assert [len(samples) for samples in arms.values()] == [5] * 5
    assert found == before


def test_of_too_few_cold_samples_nothing_is_said() -> None:
    found = cells("first_step", dict.fromkeys([PLAIN, OTHER, EQUINOX], "a"))
    found[EQUINOX].blocks["first_step"].pop()
    for fewest, shown in ((4, True), (5, False)):
        asked = {EQUINOX: {"first_step"}}
        made = section(State(found), asked, plan=PlanOfRun(), fewest_cold=fewest)
        rows = {c.entrant: c.metrics["first_step"] for c in made.cells}
        assert bool(rows["equinox"].median) is shown
        assert bool(rows["equinox"].missing) is not shown
        assert rows["pure_jax"].median
        assert len(made.samples.cold) == 14  # all are kept


# what a proof settles


def measured(
    noise: float = 0.03,
    metrics: tuple[str, ...] = ("step", "host_cost"),
    same: bool = True,
    seed: int = 0,
    **effects: float,
) -> tuple[State, BakeoffSection]:
    """Return a run, and what it says where all arms have the baseline's program, or others."""
    wanted = needed(metrics=metrics)
    plan = RunPlan(wanted, Options(200, seed=seed), lanes=LANES, settled=Settled(0.02))
    named = {("", name.replace("__", "/")): factor for name, factor in effects.items()}
    Machine(noise=noise, effects=named, seed=seed).drive(plan)
    state = plan.state
    for found in state.cells.values():
        found.proof = {**PROOF, "whole_step": True, "same_program_as_baseline": same}
    return state, section(state, wanted, plan=PlanOfRun())


def said_of(run: BakeoffSection, cell: Cell, metric: str = "step") -> Metric:
    """Return what is said of a cell's metric."""
    [row] = [each for each in run.cells if each.cell == cell]
    return row.metrics[metric]


def test_a_proof_settles_what_timing_leaves_open() -> None:
    """The bound is the host cost, which may grow by so much in a larger program."""
    state, found = measured()
    _, seconds = differences(groups_of(state.cells)[STEP])
    for cell in (HAIKU, EQUINOX):
        step = said_of(found, cell)
        assert step.low
        assert step.high
        assert not (step.low >= 0.98 and step.high <= 1.02)
        assert (step.verdict, step.settled_by) == ("equivalent", PROGRAM)
        added = said_of(found, replace(cell, workload="toy"), "host_cost").added
        assert added
        most = max(abs(added.low or 0), abs(added.high or 0))
        assert step.bound
        assert step.bound == pytest.approx(GROWTH * most / seconds)
        assert 0 < step.bound < 0.02


@pytest.mark.parametrize(
    ("about", "bound", "settled_by"),
    [
        ({"same": False}, False, None),
        ({"metrics": ("step",)}, False, None),  # without a host cost
        ({"haiku__pure": 1.2}, True, "timing"),  # against timing
    ],
)
def test_nothing_is_settled_without_a_proof_and_a_host_cost_or_against_timing(
    about: dict[str, Any], bound: bool, settled_by: str | None
) -> None:
    step = said_of(measured(**about)[1], HAIKU)
    assert (step.bound is not None, step.settled_by) == (bound, settled_by)
    assert step.verdict == ("slower" if settled_by else "inconclusive")


def test_what_host_costs_predict_is_beside_what_was_measured() -> None:
    rows = {(r.entrant, r.style): r for r in measured(noise=0.01)[1].additivity}
    nnx = rows["flax_nnx", "jit"]
    assert nnx.predicted_seconds == pytest.approx(7e-4, rel=0.1)  # 8 times 0.1 ms at `toy`
    assert nnx.measured_low
    assert nnx.measured_high
    assert nnx.measured_low < 0 < nnx.measured_high  # and nothing at `seed`: a machine's lie


@pytest.mark.parametrize("seed", range(4))
def test_answers_and_sentences_do_not_contradict_each_other(seed: int) -> None:
    """All are proven equal, timing is noisy: it is never said that it cannot be known."""
    _, found = measured(noise=0.02, seed=seed)
    at_seed = [cell for cell in found.cells if cell.workload == "seed"]
    verdicts = {cell.metrics["step"].verdict for cell in at_seed} - {None}
    said = [str(finding) for finding in choices(found, "cpu")]
    [step] = [text for text in said if text.startswith("Training at seed")]
    whole = " ".join(sentences(found))
    if verdicts == {"equivalent"}:
        assert "all within ±2 % of pure_jax" in step
    assert ("Inconclusive" in whole) is ("inconclusive" in verdicts)


def test_a_step_that_uses_several_cores_is_not_quoted_from_one() -> None:
    wanted = needed(("seed", "wide"), ("step",))
    said = {}
    for cores in ("all", "one"):
        plan = RunPlan(wanted, Options(600, cores=cores), lanes=LANES)
        Machine().drive(plan)
        said[cores] = list(pinned(plan.state))
    assert said["all"] == []
    [text] = said["one"]
    assert "wide use several cores" in text
    assert "seed" not in text
