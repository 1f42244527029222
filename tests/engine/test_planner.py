"""The planner that is to replace the other one, on the made-up machine."""

from typing import Any

import pytest

from bench.cells import BASELINE, REFERENCE
from bench.engine.planner.durations import GUESSES, Durations
from bench.engine.planner.plan import FIRST_WORKERS, Plan
from bench.engine.planner.state import RunState
from bench.metrics import HOST, STEP
from bench.options import Options
from tests.engine.simulated import LANES, Machine, dies, needed, side


def run(budget: float, machine: Machine, workloads: tuple[str, ...] = ("toy", "seed")) -> Any:
    state = RunState([(side(needed(workloads)),)], Options(budget=budget), LANES, "")
    state.rng.seed(1)
    plan: Any = Plan(state, lambda _: False)
    machine.drive(plan)
    return plan


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [40, 120, 300])
def test_a_budget_is_kept_and_used(budget: float, slowness: float) -> None:
    machine = Machine(slowness=slowness, noise=0.01)
    run(budget, machine, ("toy", "seed", "wide"))
    assert 0.85 * budget < machine.now <= 1.02 * budget


def test_first_answers_come_in_the_order_in_which_people_ask() -> None:
    machine = Machine(noise=0.01)
    plan = run(300, machine)
    order = list(dict.fromkeys((a.workload, a.kind) for a in machine.actions()))
    assert order[:2] == [("seed", STEP), ("toy", HOST)]
    counts = plan.state.visit_counts.values()
    assert min(counts) >= FIRST_WORKERS
    assert max(counts) > FIRST_WORKERS, "the widest rows get more"


def test_only_proven_arms_are_opened_by_workers_that_have_proven_none() -> None:
    machine = Machine(noise=0.01)
    run(120, machine)
    proving = {action.worker for action in machine.actions("prove")}
    assert proving.isdisjoint({action.worker for action in machine.actions()})
    first = machine.actions("prove")[0]
    assert first.arms == [str(BASELINE)], "without it, there are no numbers"
    assert str(REFERENCE[1]) in machine.actions()[0].arms


def test_a_style_that_dies_each_time_fails_alone() -> None:
    arm = "haiku/transform"
    plan = run(120, Machine(dies("block", arm, times=99), noise=0.01))
    assert {str(row.cell.arm) for row in plan.state.rows if row.failure} == {arm}


def test_what_was_done_last_is_expected_and_before_that_a_guess_times_the_slowness() -> None:
    durations = Durations()
    assert durations.expect(("cold", "")) == GUESSES["cold"]
    durations.note(("load", ""), 2 * GUESSES["load"])
    assert durations.expect(("cold", "")) == 2 * GUESSES["cold"]
    durations.note(("cold", ""), 5.0)
    assert durations.expect(("cold", "")) == durations.expect(("cold", "other")) == 5.0
