"""The plan of runs, A/Bs and histories, on a made-up machine: no process is started."""

import math
import re
from collections import Counter, defaultdict
from itertools import accumulate
from typing import Any

import pytest
from msgspec.structs import replace

from bench.cells import BASELINE
from bench.engine.actions import Action, Outcome
from bench.engine.jobs import OVERRUN
from bench.engine.plan import PROVE_SHARE, Plan
from bench.engine.process import WorkerFailedError
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, HOST, STEP
from bench.runfile import DISTURBED
from bench.worker.protocol import Open
from tests.engine.plans import (
    AT_SEED,
    BAD,
    BAD_CELL,
    DAYS,
    FEW_AT_SEED,
    FEW_WITH_COLD,
    GOOD_CELL,
    REFERENCES,
    ab,
    history,
    plan_of,
    run,
    usual,
)
from tests.engine.simulated import FEW, LANES, STYLES, Machine, dies, needed

UNMEASURED = r"not measured \(about \d+ s needed\)"

# What a budget buys.


ENOUGH = {60: ("seed step",), 300: ("seed step", "toy host_cost", "wide step")}
"""Kinds of turns that have enough workers, by budget in seconds, on the usual machine."""


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [20, 60, 120, 300])
def test_a_budget_is_kept_and_answers(budget: float, slowness: float) -> None:
    plan, machine = usual(budget, slowness)
    assert machine.now <= (1 + OVERRUN) * budget
    blocks = machine.actions()
    assert (blocks[0].workload, blocks[0].kind) == ("seed", STEP), "what people ask about first"
    measured = plan.counts(STEP)
    assert BASELINE.make_cell("seed", "cpu") in measured
    assert slowness * 40 > budget or all(cell in measured for cell in AT_SEED)
    for metric in COLD:
        assert min(plan.counts(metric).values(), default=MIN_COLD) >= MIN_COLD, metric
    assert budget < 300 or plan.counts("compile"), "on slow machines, too"
    if slowness == 1:
        assert all(plan.visits[turn] >= MIN_WORKERS for turn in ENOUGH.get(int(budget), ()))
    if slowness <= 1 and budget >= 60:
        assert not plan.preliminary, "nothing is begun that stays preliminary"
        assert 1e-3 < plan.state.spent.precision < 0.03, "with noise of 1 % a block"


@pytest.mark.parametrize(("budget", "slowness"), [(45, 1.0), (60, 1.5), (120, 0.7), (150, 1.0)])
def test_time_is_kept_for_an_answer_that_was_begun(budget: float, slowness: float) -> None:
    for seed in range(3):
        machine = Machine(slowness=slowness, noise=0.015, seed=seed)
        plan, _ = run(needed(("toy", "seed", "wide")), budget, machine, seed=seed)
        assert not plan.preliminary


def test_five_minutes_at_two_sizes_measure_all_but_trainings() -> None:
    plan, _ = run()
    [state] = plan.state.sides
    lacking = {metric for row in state.cells.values() for metric in row.missing}
    assert lacking <= {*COLD, "final_loss"}
    pure = {cell for cell in plan.counts("first_step") if cell.style == "pure"}
    assert {cell.entrant for cell in pure} == {*STYLES, "control"}
    assert plan.state.spent.sampling_seconds > 0.5 * plan.state.spent.wall_seconds


def test_each_number_that_is_missing_has_its_reason() -> None:
    plan, _ = usual(20)
    [state] = plan.state.sides
    for cell, metrics in state.needed.items():
        for metric in metrics:
            have = plan.counts(metric).get(cell, 0)
            if metric in ("import", "init"):
                continue  # their library's
            assert (metric in state.cells[cell].missing) == (have == 0), (cell, metric)
    missing = state.cells[GOOD_CELL].missing
    assert re.fullmatch(UNMEASURED, missing.pop("first_step"))
    state.deaths[str(GOOD_CELL.arm), GOOD_CELL.workload] = (
        "worker failed (it was still at work after 20 s)"
    )
    plan.state.note_missing()
    assert missing["first_step"].startswith(
        "worker failed (it was still at work after 20 s), and there was no time"
    )


class Shared(Machine):
    """A machine that others use, too, until some second."""

    quiet_from = math.inf

    def outcome(self, action: Action, took: float) -> Outcome:
        is_judged = action.do == "cold" or (action.do == "block" and not action.cores)
        made = super().outcome(action, took)
        return replace(made, is_disturbed=is_judged and self.now < self.quiet_from)


def test_times_beside_other_work_are_left_out_and_the_row_says_so() -> None:
    """Those that no call tells alone: of starts, and of steps on all cores."""
    wanted = needed(("toy", "seed"), (STEP, "first_step", "peak_rss", HOST), FEW)
    plan, _ = run(wanted, 120, Shared())
    measured = {sample.metric for sample in plan.state.samples}
    assert (HOST in measured, measured & {STEP, "first_step"}) == (True, set())
    assert "peak_rss" in measured, "which others do not change"
    [state] = plan.state.sides
    missing = state.cells[GOOD_CELL].missing
    assert (missing[STEP], missing["first_step"]) == (DISTURBED, DISTURBED)
    assert DISTURBED.startswith("not known: other processes had the worker's cores")
    machine = Shared()
    machine.quiet_from = 30.0
    plan, _ = run(wanted, 120, machine)
    assert {STEP, "first_step"} <= {sample.metric for sample in plan.state.samples}
    assert min(sample.at for sample in plan.state.samples if sample.metric == STEP) >= 30


class Large(Machine):
    """A machine on which a model takes as long to prove and to open as one of 150 arrays."""

    def seconds(self, action: Action) -> float:
        usual = {"prove": 20.0, "open": 3.0, "cold": 15.0}
        return usual.get(action.do) or super().seconds(action)


class Endless(Machine):
    """A machine on which proofs are ended when the budget is spent."""

    def seconds(self, action: Action) -> float:
        return 70.0 if action.do == "prove" else super().seconds(action)


def test_a_worker_that_was_ended_with_the_budget_is_not_started_again() -> None:
    plan, machine = run(FEW_AT_SEED, 60, Endless(dies("prove", times=99)))
    assert max(start for start, _, action in machine.log if action.do == "load") < plan.state.end
    assert not plan.failed, "an arm fails that dies twice"


def test_an_arm_that_two_lanes_were_at_when_time_was_over_has_not_failed() -> None:
    [state] = plan_of(FEW_AT_SEED, 60).state.sides
    action = state.make_action(1, Open("seed", "cpu", BAD))
    for is_late, failed in ((True, False), (True, False), (False, False), (False, True)):
        death = WorkerFailedError("it was still at work", "", None, blamed=BAD, is_late=is_late)
        state.note_death(death, action)
        assert (state.cells[BAD_CELL].failure is not None) == failed
        assert bool(state.notes or state.deaths) == (not is_late), "it is not measured yet"


def listen(plan: Plan, machine: Machine) -> list[tuple[float, str]]:
    """Return what a plan will say, with the time."""
    told = list[tuple[float, str]]()
    plan.requests.notify = lambda text: told.append((machine.now, text))
    return told


LARGE = needed(("seed",), (HOST, STEP), FEW | {"flax_nnx": STYLES["flax_nnx"]})


@pytest.mark.parametrize("budget", [60, 120, 180, 300])
def test_what_cannot_be_proven_in_time_is_said_at_once_and_the_rest_is_measured(
    budget: float,
) -> None:
    for seed in range(5):
        plan = plan_of(LARGE, budget, before=0.0, seed=seed)
        machine = Large(noise=0.02, seed=seed)
        told = listen(plan, machine)
        machine.drive(plan)
        assert machine.now <= (1 + OVERRUN) * budget
        assert machine.now > 0.8 * budget, "what fits is measured"
        [state] = plan.state.sides
        late = {cell for cell in state.needed if not state.is_proven(cell)}
        others = {*state.needed} - late
        assert any(cell in plan.counts(STEP) for cell in others)
        assert {cell for text in told for cell in late if str(cell.arm) in text[1]} == late
        assert all(
            at < PROVE_SHARE * budget + 10 and "proving one takes about 20 s" in text
            for at, text in told
        )
        reasons = [state.cells[cell].missing[STEP] for cell in late]
        assert all(re.fullmatch(UNMEASURED, reason) for reason in reasons)


class LargeModel(Large):
    """A machine on which the real steps of a user's model take long, and its skeleton does not."""

    def seconds(self, action: Action) -> float:
        is_light = action.workload != "mine" and action.do != "cold"
        return Machine.seconds(self, action) if is_light else super().seconds(action)


@pytest.mark.parametrize("budget", [20, 60, 180])
def test_a_skeleton_comes_first_and_then_the_styles_that_people_change(budget: float) -> None:
    styles = {"pure_jax": ["pure"], "flax_nnx": ["pure", "jit", "cached_partial", "jit_partial"]}
    light = needed(("mine.skeleton",), (HOST, "trace", "lower"), styles)
    real = needed(("mine",), (STEP, "step_pipelined", "compile", "peak_rss"), styles)
    plan = plan_of(light | real, budget, before=0.0)
    costs = {f"flax_nnx/{style}": cost for style, cost in (("jit", 3.0), ("jit_partial", 0.5))}
    machine = LargeModel(noise=0.02, effects={("", arm): cost for arm, cost in costs.items()})
    machine.drive(plan)
    assert machine.now <= 1.1 * budget, "how long a real proof takes is a guess at first"
    blocks = [(action.workload, action.worker) for action in machine.actions()]
    first = [worker for workload, worker in blocks if workload == "mine.skeleton"]
    before = [w for workload, w in blocks[: blocks.index(("mine.skeleton", first[0])) + 1]]
    assert before == first[:1], "nothing is measured before"
    assert len({*first}) >= MIN_WORKERS
    assert {*plan.counts(HOST)} >= {*light}
    assert "stages" not in {a.kind for a in machine.actions() if a.workload == "mine.skeleton"}
    proofs = [a.arms[0] for a in machine.actions("prove") if a.workload == "mine"]
    assert (budget < 60) == (not proofs)
    others = [arm for arm in proofs if arm not in REFERENCES]
    assert budget < 180 or {*others[:2]} == {"flax_nnx/jit", "flax_nnx/jit_partial"}
    assert budget < 180 or {*proofs[:2]} == {str(BASELINE), "flax_nnx/jit"}


def test_a_skeleton_is_measured_until_it_is_precise_in_its_part_of_the_budget() -> None:
    styles = {"pure_jax": ["pure"], "flax_nnx": ["pure", "jit"]}
    cells = needed(("mine.skeleton",), (HOST,), styles) | needed(("mine",), (STEP,), styles)
    workers = []
    for noise in (1e-4, 0.05):
        machine = LargeModel(noise=noise)
        machine.drive(plan_of(cells, 180, before=0.0))
        begun = {a.workload: at for at, _, a in reversed(machine.log) if a.do == "prove"}
        assert begun["mine"] <= 180 / 3 + 15, "real steps come then"
        light = [a.worker for at, _, a in machine.log if a.do == "block" and at < begun["mine"]]
        workers.append(len({*light}))
    assert MIN_WORKERS <= workers[0] <= 4 < workers[1]


def test_cold_metrics_of_a_style_alone_are_beside_the_reference() -> None:
    plan, _ = run(needed(("seed",), ("first_step",), {"haiku": ["transform"]}), 100)
    assert {str(cell.arm) for cell in plan.counts("first_step")} == {*REFERENCES, BAD}
    assert min(plan.counts("first_step").values()) >= MIN_COLD


def test_other_styles_follow_shared_ones_in_cold_processes() -> None:
    _, machine = run(needed(("seed",), ("first_step",)), 200)
    arms = [action.arms[0] for action in machine.actions("cold")]
    first = arms.index("equinox/filter_jit")
    assert {*arms[:first]} >= {*REFERENCES, *(f"{entrant}/pure" for entrant in STYLES)}
    assert {*arms[first:]} >= REFERENCES, "whose times may have changed since"


def test_a_library_is_imported_once_for_all_its_styles_and_takes_no_blocks() -> None:
    plan, machine = run(needed(("seed",), ("import", "init")), 200)
    assert not machine.actions()
    cold = {action.arms[0] for action in machine.actions("cold")}
    assert cold == REFERENCES | {f"{e}/pure" for e in STYLES if e != "pure_jax"}
    assert not any(row.missing for row in plan.state.sides[0].cells.values())


# What comes next.


@pytest.mark.parametrize("budget", [15, 20, 25])
def test_workers_of_a_first_answer_have_as_many_blocks_as_each_other(budget: float) -> None:
    """The first ones' proofs are not taken off their own time alone."""
    plan, _ = run(FEW_AT_SEED, budget, Machine(noise=0.02))
    blocks = {(s.worker, s.block) for s in plan.state.samples if s.metric == STEP}
    of_worker = Counter(worker for worker, _ in blocks).values()
    assert max(of_worker) - min(of_worker) <= 1


def test_steps_in_a_row_are_measured_where_they_were_asked_for() -> None:
    metrics = (HOST, STEP, "step_pipelined")
    plan, _ = run(needed(("seed",), metrics, FEW), 60, Machine(noise=0.05))
    assert plan.visits.get("seed pipelined", 0) >= MIN_WORKERS


@pytest.mark.parametrize(
    ("budget", "noise", "expected"), [(200, 0.005, True), (200, 0.03, False), (600, 0.03, True)]
)
def test_steps_of_a_wide_model_are_measured_if_they_can_be_told_or_take_little_of_the_time(
    budget: float, noise: float, expected: bool
) -> None:
    """In a busy hour their first answer would say +-13 %, and take the time that others lack."""
    plan, _ = run(needed(("seed", "wide"), (STEP,)), budget, Machine(noise=noise))
    measured = plan.visits.get("wide step", 0)
    assert (measured >= MIN_WORKERS) is expected
    assert expected or (not measured and plan.visits["seed step"] > 3 * MIN_WORKERS)
    reasons = {row.missing.get(STEP) for row in plan.state.sides[0].cells.values()}
    assert any(re.fullmatch(UNMEASURED, reason or "") for reason in reasons) is not expected


def test_where_nothing_can_be_settled_something_is_measured() -> None:
    plan, machine = run(needed(("seed", "wide"), (STEP,), FEW), 300, Machine(noise=0.5))
    assert machine.now > 250
    assert plan.visits["seed step"] > 2 * MIN_WORKERS
    assert plan.visits["wide step"] >= MIN_WORKERS, "too: all count"


@pytest.mark.parametrize(("noise", "most_cold"), [(0.005, 130), (0.02, 60)])
def test_no_kind_of_work_takes_the_time_of_what_people_ask_first(
    noise: float, most_cold: float
) -> None:
    """While steps are not settled, cold processes of further styles of a library wait."""
    _, machine = run(budget=300, machine=Machine(noise=noise))
    seconds: dict[str, float] = defaultdict(float)
    lanes = {"block": 1, "cold": len(LANES), "count": len(LANES), "train": len(LANES)}
    for start, end, action in machine.log:
        if action.do in lanes:
            seconds[action.do] += (end - start) / lanes[action.do]
    assert seconds["block"] > 60
    assert 20 < seconds["cold"] < most_cold
    assert seconds["count"] < 10
    assert seconds["train"] < 40


@pytest.mark.parametrize("budget", [20, 80])
def test_a_rest_that_fits_no_visit_is_measured_in_the_last_one(budget: float) -> None:
    plan, machine = ab(FEW_AT_SEED, budget, Machine(noise=0.02), seed=1)
    assert plan.state.end - max(end for _, end, action in machine.log if action.do == "block") < 2


@pytest.mark.parametrize("budget", [40, 60])
def test_a_last_worker_leaves_the_rest_to_those_that_are_missing(budget: float) -> None:
    plan, _ = run(AT_SEED, budget, Machine(noise=0.01), seed=1, lanes=[(0,)])
    assert plan.visits == {"seed step": MIN_WORKERS}


def test_a_first_visit_that_comes_to_nothing_is_tried_again_in_a_short_budget() -> None:
    plan, _ = run(AT_SEED, 25, Machine(dies("block", times=len(LANES)), noise=0.01), seed=1)
    assert all(cell in plan.counts(STEP) for cell in AT_SEED)


class Slowing(Machine):
    """A machine on which each cold process takes longer than the one before."""

    def seconds(self, action: Action) -> float:
        slower = len(self.actions("cold")) / 4 if action.do == "cold" else 0
        return super().seconds(action) * (1 + slower)


def test_cold_processes_that_take_longer_and_longer_begin_in_time() -> None:
    plan, machine = run(FEW_WITH_COLD, 120, Slowing(noise=0.01))
    begun = [start for start, _, action in machine.log if action.do == "cold"]
    assert 0.8 * plan.state.end < max(begun) <= plan.state.end + OVERRUN * 120


def test_numbers_that_were_given_are_kept() -> None:
    """In turns, so that kinds of turns do not differ by the hour; the budget does not cut them."""
    wanted = needed(("toy", "seed"), (STEP, "host_cost", "first_step"), FEW)
    given: Any = {"processes": 4, "blocks": 2, "rounds": 5, "cold_samples": 3}
    plan, machine = run(wanted, 10, **given)
    assert {*plan.visits.values()} == {4}
    order = [(a.workload, a.kind) for a in machine.actions()]
    assert len({*order[: 3 * 4]}) == 3, "two workers of each, then two more"
    rows = [s for s in plan.state.samples if (s.metric, s.cell) == (STEP, GOOD_CELL)]
    assert len({s.worker for s in rows}) == 4
    assert len({s.block for s in rows}) == len(rows) == 4 * 2
    assert {s.calls for s in rows} == {2 * 5}
    assert {*plan.counts("first_step").values()} == {3}


def test_what_was_not_given_follows() -> None:
    """A number of blocks means one worker and nothing else; the rest is up to the budget."""
    plan, _ = run(FEW_WITH_COLD, 200, blocks=2)
    assert plan.visits == {"seed step": 1}
    assert not plan.counts("first_step")
    plan, machine = run(FEW_WITH_COLD, 200, processes=2)
    assert plan.visits == {"seed step": 2}
    assert plan.counts("first_step")[GOOD_CELL] >= MIN_COLD
    assert machine.now <= (1 + OVERRUN) * 200


def test_enough_is_asked_between_visits() -> None:
    plan, machine = run(AT_SEED, 600, enough=lambda samples: len(samples) > 50)
    assert len([s for s in plan.state.samples if s.metric == STEP]) > 50
    assert machine.now < 120


# Histories.


@pytest.mark.parametrize("budget", [300, 900, 1800])
def test_a_history_visits_each_day_as_often(budget: float) -> None:
    plan, machine = history(budget, Machine())
    assert machine.now <= (1 + OVERRUN) * budget
    visits = [
        plan.state.worker_counts[group, turn]
        for turn, groups in plan.state.find_open_turns()
        for group in groups
    ]
    assert max(visits) - min(visits) <= 1
    assert min(visits) >= (2 if budget >= 900 else 0)
    order = list(dict.fromkeys(a.environment for a in machine.actions("load")))
    assert sorted(order[: len(DAYS) + 1]) == [*DAYS, "reference"]
    assert order[: len(DAYS)] != DAYS, "in random order"
    cold = [plan.counts("first_step", day).get(GOOD_CELL, 0) for day in DAYS]
    assert max(cold) == min(cold)


@pytest.mark.parametrize(("budget", "cells"), [(100, 1), (300, 3)])
def test_cold_metrics_of_a_history_are_of_as_many_cells_as_fit_on_all_days(
    budget: float, cells: int
) -> None:
    plan, machine = history(budget, Machine(), needed(("seed",), ("first_step",), FEW))
    assert machine.now <= (1 + OVERRUN) * budget
    days = [plan.counts("first_step", day) for day in DAYS]
    assert [len(day) for day in days] == [cells] * len(DAYS)
    assert min(min(day.values()) for day in days) >= 2
    loads = Counter(action.environment for action in machine.actions("load"))
    assert max(loads.values()) <= 3, "each side is proven once, and counted"
    ends = Counter({"load": 1, "close": -1})
    alive = accumulate(ends[action.do] for *_, action in machine.log)
    assert max(alive) <= len(LANES)


def test_a_long_history_counts_on_all_days() -> None:
    _, machine = history(250, Machine(noise=0.05))
    assert {action.environment for action in machine.actions("count")} == {*DAYS, "reference"}


def test_a_day_that_fails_is_a_gap() -> None:
    plan, _ = history(900, Machine(dies("prove", str(BASELINE), times=99, environment=DAYS[1])))
    of_day = {state.environment: state for state in plan.state.sides}
    assert all(row.failure for row in of_day[DAYS[1]].cells.values())
    assert not any(row.failure for row in of_day[DAYS[2]].cells.values())
    assert not plan.counts(STEP, DAYS[1])
    assert plan.counts(STEP, DAYS[2])
    once, _ = history(900, Machine(dies("block", environment=DAYS[1])))
    assert not once.failed
    assert once.counts(STEP, DAYS[1])


# Verdicts.


@pytest.mark.parametrize("two", [False, True])
def test_a_planted_difference_is_found_where_it_is(two: bool) -> None:
    machine = Machine(noise=0.01, effects={("new" if two else "", BAD): 1.03})
    plan, _ = ab(machine=machine) if two else run(FEW_AT_SEED, 120, machine, cores="one")
    assert plan.different == {BAD}


def test_what_is_the_same_is_seldom_told_apart() -> None:
    """In 5 % of A/Bs at most: more than 6 of 40 have odds of 0.3 %."""
    plans = (ab(budget=60, machine=Machine(noise=0.01, seed=i), seed=i)[0] for i in range(40))
    assert sum(bool(plan.different) for plan in plans) <= 6
