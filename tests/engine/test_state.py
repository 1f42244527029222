"""Deaths and failures on a made-up machine: they cost the cells whose fault they are."""

from collections import Counter
from typing import Any

import pytest

from bench.cells import BASELINE, CONTROL
from bench.engine.actions import Action, Do
from bench.engine.process import WorkerFailedError
from bench.engine.task import COLD_DEATHS
from bench.estimates import MIN_COLD
from bench.metrics import STAGES, STEP
from tests.engine.plans import (
    BAD,
    BAD_CELL,
    BOTH,
    FEW_ARMS,
    FEW_AT_SEED,
    FEW_WITH_COLD,
    GOOD_CELL,
    ab,
    run,
)
from tests.engine.simulated import FEW, LANES, Machine, dies, needed, side

DOINGS: tuple[Do, ...] = ("load", "prove", "open", "block", "count", "train", "cold")


@pytest.mark.parametrize(
    ("do", "arm"),
    [*((do, "") for do in DOINGS), *((do, str(BASELINE)) for do in ("prove", "block"))],
)
def test_one_death_costs_no_cell(do: Do, arm: str) -> None:
    wanted = needed(styles=FEW)
    plan, machine = run(wanted, 200, Machine(dies(do, arm)))
    assert not plan.failed
    blocks = {(s.worker, s.block) for s in plan.state.samples if s.metric in (STEP, "host_cost")}
    others = [action for action in machine.actions() if action.kind != STAGES]
    assert len(blocks) == len(others) - (do == "block"), "no other block is lost"
    assert all(cell in plan.counts(STEP) for cell in wanted if cell.workload == "seed")
    assert len(plan.state.sides[0].notes) == 1
    two, _ = ab(FEW_WITH_COLD, 200, Machine(dies(do, arm, environment="new")))
    assert not two.failed
    assert all(two.counts(STEP, side)[BAD_CELL] > 3 for side in BOTH)


@pytest.mark.parametrize("do", ["prove", "open", "block"])
def test_two_deaths_in_a_row_fail_that_arm_alone(do: Do) -> None:
    plan, _ = run(FEW_AT_SEED, machine=Machine(dies(do, BAD, times=2)))
    assert plan.failed == {BAD}
    result = plan.state.sides[0].cells[BAD_CELL]
    assert result.failure == "worker failed (exit status -9), twice in a row"
    assert result.stderr == "last words"
    assert plan.counts(STEP)[GOOD_CELL] > 3
    plan, _ = ab(machine=Machine(dies(do, BAD, times=99, environment="new")))
    [base], [new] = ([s for s in plan.state.sides if s.environment == name] for name in BOTH)
    assert [cell for cell in new.cells if new.cells[cell].failure] == [BAD_CELL]
    assert not any(row.failure for row in base.cells.values())
    assert plan.counts(STEP, "base")[GOOD_CELL] > 3


def test_an_arm_that_dies_in_each_worker_fails_whatever_its_first_blocks_were() -> None:
    def third_block(action: Action) -> Any:
        blocks[action.worker] += action.do == "block"
        return dies("block", BAD)(action) if blocks[action.worker] == 3 else None

    blocks: Counter[int] = Counter()
    plan, _ = run(FEW_AT_SEED, machine=Machine(third_block))
    assert plan.failed == {BAD}
    assert plan.counts(STEP)[GOOD_CELL] > 3


def test_deaths_with_a_success_in_between_fail_nothing() -> None:
    deaths = iter([True, False] * 1000)

    def every_other(action: Action) -> Any:
        if action.do != "block" or not next(deaths):
            return None
        return dies("block", BAD)(action)

    plan, _ = run(FEW_AT_SEED, machine=Machine(every_other), blocks=1, processes=6)
    assert len(plan.state.sides[0].notes) > 3
    assert not plan.failed


def test_cold_processes_that_die_cost_their_own_samples() -> None:
    plan, _ = run(FEW_WITH_COLD, 300, Machine(dies("cold", str(BASELINE))))
    assert min(plan.counts("first_step").values()) >= MIN_COLD
    plan, machine = run(FEW_WITH_COLD, 300, Machine(dies("cold", BAD, times=99)))
    assert not plan.failed
    assert {*plan.counts("first_step")} == {*FEW_WITH_COLD, CONTROL.make_cell("seed", "cpu")} - {
        BAD_CELL
    }
    died = sum(BAD in action.arms for action in machine.actions("cold"))
    assert COLD_DEATHS <= died < COLD_DEATHS + len(LANES), "none begins after that"
    plan, machine = run(FEW_WITH_COLD, 300, Machine(dies("cold", times=10_000)))
    assert len(machine.actions("cold")) < 2 * COLD_DEATHS * len(FEW_ARMS), "and the run ends"


def test_cold_processes_that_the_budgets_end_has_ended_have_not_died() -> None:
    def ends(action: Action) -> WorkerFailedError | None:
        if action.do != "cold":
            return None
        return WorkerFailedError("it was still at work", "", None, is_late=True)

    plan, _ = run(FEW_WITH_COLD, 60, Machine(ends))
    [state] = plan.state.sides
    assert not state.notes
    assert not any("at work" in why for row in state.cells.values() for why in row.missing.values())


@pytest.mark.parametrize("do", ["load", "block"])
@pytest.mark.parametrize("two", [False, True])
def test_workers_that_always_die_are_given_up(do: Do, two: bool) -> None:
    machine = Machine(dies(do, times=10_000, environment="new" if two else None))
    plan, machine = ab(machine=machine) if two else run(budget=100, machine=machine)
    assert len(machine.actions("load")) < 30
    [state] = [s for s in plan.state.sides if s.environment == ("new" if two else "")]
    assert do == "block" or state.given_up
    assert do == "block" or all(row.failure and "-9" in row.failure for row in state.cells.values())
    assert not plan.counts(STEP)


@pytest.mark.parametrize(
    ("do", "arm", "workload", "expected"),
    [
        ("block", BAD, "seed", {(BAD, "seed")}),
        ("load", BAD, "", {(BAD, "toy"), (BAD, "seed")}),
        ("prove", BAD, "toy", {(BAD, "toy")}),
        ("train", BAD, "seed", {(BAD, "seed")}),
        ("prove", str(BASELINE), "toy", {(arm, "toy") for arm in FEW_ARMS}),
    ],
)
def test_an_arm_that_fails_costs_its_own_cells(
    do: Do, arm: str, workload: str, expected: set[tuple[str, str]]
) -> None:
    """Of a baseline, all of its workload: there is nothing to compare with."""

    def fault(action: Action) -> str | None:
        same = (action.do, action.workload) == (do, workload)
        return arm if same and arm in action.arms else None

    plan, _ = run(needed(styles=FEW), 60, Machine(fault), processes=1, blocks=2)
    cells = plan.state.sides[0].cells
    failures = {(str(c.arm), c.workload) for c, row in cells.items() if row.failure}
    assert failures == expected
    assert plan.counts(STEP)[GOOD_CELL] == 2


def test_without_a_baseline_nothing_begins() -> None:
    groups = [(side(needed(), problems={"pure_jax": "import failed"}),)]
    plan, machine = run(groups, 60)
    assert not machine.log
    for row in plan.state.sides[0].cells.values():
        assert row.cell.is_control or "import failed" in str(row.failure)
