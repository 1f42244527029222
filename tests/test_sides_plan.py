"""A/B and history on a machine that is made up: pairs in turns, verdicts, deaths, sweeps."""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest

from bench.cells import Arm, Cell
from bench.compare.history import changed, days_of, visited
from bench.compare.pairs import paired
from bench.engine.actions import ALL, Action, Options
from bench.engine.sides_plan import AB, BASE, DEFAULT_METRICS, NEW, REFERENCE, History
from bench.samples import BASELINE_ARM
from bench.stats.verdicts import Verdict, verdict
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, dies

STYLES = ("pure_jax/pure", "haiku/pure", "haiku/transform")
CELLS = [Arm.of(arm).at(workload, "cpu") for workload in ("toy", "seed") for arm in STYLES]
SEED = [cell for cell in CELLS if cell.workload == "seed"]
STEP = frozenset({"step"})
BAD = "haiku/transform"


def ab(
    metrics: frozenset[str] = STEP,
    budget: float = 120,
    machine: Machine | None = None,
    cells: list[Cell] = SEED,
    pairs: int | None = None,
    **options: Any,
) -> tuple[AB, Machine]:
    """Return an A/B on a machine, when it is over."""
    plan = AB(cells, metrics, Options(budget, **options), 0.0, LANES, pairs)
    machine = machine or Machine(noise=0.01)
    machine.drive(plan)
    return plan, machine


def verdicts(plan: AB, margin: float = 0.005) -> dict[tuple[str, str], Verdict]:
    found = paired(plan.found(BASE), plan.found(NEW), plan.cells)
    return {(c.style, c.workload): verdict(e, margin) for (c, _), e in found.items()}


def test_pairs_take_turns_on_one_core_two_at_a_time() -> None:
    _, machine = ab()
    blocks = [a for *_, a in machine.log if a.do == "block"]
    assert {a.cores for a in blocks} == set(LANES)
    pairs: dict[int, list[Action]] = defaultdict(list)
    for action in blocks:
        pairs[action.seed].append(action)
    for pair in pairs.values():
        assert {a.side for a in pair} == {BASE, NEW}
        assert len({a.cores for a in pair}) == 1
    firsts = Counter(pair[0].side for pair in pairs.values())
    assert min(firsts.values()) > 0.2 * sum(firsts.values())
    cores = {a.worker: a.cores for *_, a in machine.log if a.do in ("start", "cold")}
    for core in LANES:
        spans = sorted((s, e) for s, e, a in machine.log if cores[a.worker] == core)
        assert all(after[0] >= before[1] - 1e-9 for before, after in pairwise(spans))
    _, machine = ab(cores=ALL)
    assert {a.cores for *_, a in machine.log if a.do == "start"} == {()}


@pytest.mark.parametrize("budget", [60, 120, 900])
@pytest.mark.parametrize("slowness", [1.0, 2.0])
def test_the_budget_is_kept_by_warm_and_cold(budget: float, slowness: float) -> None:
    plan, machine = ab(DEFAULT_METRICS, budget, Machine(slowness=slowness), CELLS)
    assert machine.now <= max(1.05 * budget, 40 * slowness)
    found = plan.found(NEW).cells.values()
    assert all(each.values("step") for each in found)
    assert plan.made >= 2
    assert all(not n or n >= 5 for n in {len(each.values("compile")) for each in found})


def test_cold_metrics_alone_need_no_blocks() -> None:
    plan, machine = ab(frozenset({"compile"}), 120)
    assert not any(a.do == "block" for *_, a in machine.log)
    assert all(len(f.values("compile")) >= 5 for f in plan.found(BASE).cells.values())


def test_cold_pairs_end_when_it_is_decided_be_it_said_once() -> None:
    plan = AB(SEED, {"compile", "step"}, Options(600), 0.0, LANES)
    asked = iter([False] * 9 + [True])
    plan.decided = lambda: next(asked, False)
    machine = Machine()
    machine.drive(plan)
    assert len([a for *_, a in machine.log if a.do == "cold"]) <= 2 * 10
    assert not any(a.do == "start" for _, start, a in machine.log if start > 60)


def test_a_slow_cold_process_leaves_time_for_blocks() -> None:
    class Slow(Machine):
        def seconds(self, action: Action) -> float:
            return super().seconds(action) * (4 if action.do == "cold" else 1)

    plan, machine = ab(DEFAULT_METRICS, 300, Slow())
    assert machine.now <= 1.05 * 300
    assert plan.made >= 6


def test_numbers_that_are_given_are_kept() -> None:
    plan, _ = ab(budget=9, pairs=3, blocks=2)
    found = plan.found(NEW).cells[SEED[0]]
    assert len({samples.process for samples in found.blocks["step"]}) == 3
    assert len(found.blocks["step"]) == 6
    plan, machine = ab(STEP | {"compile"}, 200, cold_samples=3)
    assert len(plan.found(NEW).cells[SEED[0]].values("compile")) == 3
    assert machine.now <= 1.05 * 200


def test_an_arm_that_takes_far_longer_than_the_baseline_has_all_its_blocks() -> None:
    slow = Machine(effects={(side, BAD): 5.0 for side in (BASE, NEW)})
    alone = [cell for cell in SEED if cell.style == "transform"]
    plan, machine = ab(machine=slow, cells=alone, budget=9, pairs=2, blocks=2)
    assert len(plan.found(NEW).cells[alone[0]].blocks["step"]) == 4
    assert all(a.arms for *_, a in machine.log if a.do == "block"), "a block without arms"


def test_identical_sides_are_seldom_told_apart() -> None:
    called = 0
    for seed in range(20):
        plan, _ = ab(machine=Machine(noise=0.01, seed=seed))
        found = paired(plan.found(BASE), plan.found(NEW), plan.cells)
        called += any(estimate.differs for estimate in found.values())
    assert called <= 3  # 5 % of runs are allowed to; more than 3 of 20 have odds of 1.6 %


def test_a_planted_difference_is_found_where_it_is() -> None:
    machine = Machine(noise=0.01, effects={(NEW, BAD): 1.02})
    said = verdicts(ab(machine=machine, budget=300)[0])
    assert said["transform", "seed"] is Verdict.SLOWER
    assert Verdict.SLOWER not in [v for key, v in said.items() if key[0] != "transform"]


@pytest.mark.parametrize("do", ["start", "load", "prove", "open", "block", "cold"])
def test_one_death_costs_no_cell(do: str) -> None:
    fault = dies(do, "" if do in ("start", "load") else BAD, side=NEW)
    plan, _ = ab(STEP | {"compile"} if do == "cold" else STEP, 300, Machine(fault))
    for name in (BASE, NEW):
        assert not any(found.failure for found in plan.found(name).cells.values())
    assert all(len(f.blocks["step"]) > 3 for f in plan.found(NEW).cells.values())


def test_what_always_dies_on_one_side_costs_its_own_cells() -> None:
    plan, _ = ab(machine=Machine(dies("block", BAD, times=99, side=NEW)))
    failed = {cell.style for cell, found in plan.found(NEW).cells.items() if found.failure}
    assert failed == {"transform"}
    [((cell, metric), why)] = plan.missing().items()
    assert (cell.style, metric) == ("transform", "step")
    assert "twice in a row" in why
    assert ("pure", "seed") in verdicts(plan)
    plan, machine = ab(machine=Machine(dies("start", times=9999, side=NEW)))
    assert all(found.failure for found in plan.found(NEW).cells.values())
    assert sum(a.do == "start" for *_, a in machine.log) < 30


def test_it_ends_when_it_is_decided() -> None:
    plan = AB(SEED, STEP, Options(600), 0.0, LANES)
    plan.decided = lambda: plan.made >= 3
    machine = Machine()
    machine.drive(plan)
    assert plan.made <= 4
    assert machine.now < 120


# history


DAYS = [f"2026-0{month}-01" for month in range(1, 7)]


def history(machine: Machine, budget: float = 900) -> History:
    """Return a history on a machine, when it is over."""
    cells = dict.fromkeys((REFERENCE, *DAYS), SEED[:2])
    plan = History(DAYS, cells, STEP | {"compile"}, Options(budget), 0.0, LANES)
    machine.drive(plan)
    return plan


def test_each_day_is_visited_in_each_sweep_in_another_order() -> None:
    plan = history(Machine())
    sweeps = max(sweep for sweep, _ in plan.visits)
    assert sweeps >= 2
    orders = [[day for s, day in plan.visits if s == sweep] for sweep in range(1, sweeps + 1)]
    assert all(sorted(order) == DAYS for order in orders[:-1])
    assert len({tuple(order) for order in orders}) > 1
    for day in DAYS:
        cold = plan.sides[day].state.cells[SEED[0]].blocks["compile"]
        where = {plan.visit_of[samples.number] for samples in cold}
        assert where == {visit for visit in plan.visits if visit[1] == day}


@pytest.mark.parametrize("budget", [300, 900])
def test_a_history_keeps_its_budget(budget: float) -> None:
    machine = Machine()
    history(machine, budget)
    assert machine.now <= 1.1 * budget


def test_a_history_finds_what_was_planted_and_nothing_else() -> None:
    effects = {(day, arm): 1.1 for day in DAYS[3:] for arm in STYLES}
    plan = history(Machine(noise=0.005, effects=effects), 3000)
    moves = [c for c in changed(visited(plan)) if c.key.metric == "step"]
    assert {(c.before, c.after) for c in moves} == {(2, 3)}
    assert all(abs(c.ratio / 1.1 - 1) < 0.01 for c in moves)


def test_a_day_that_fails_is_a_gap_and_a_day_that_died_once_is_visited_again() -> None:
    plan = history(Machine(dies("prove", BASELINE_ARM, times=99, side=DAYS[1])))
    assert all(found.failure for found in plan.sides[DAYS[1]].state.cells.values())
    assert all(f.blocks.get("step") for f in plan.sides[DAYS[2]].state.cells.values())
    plan = history(Machine(dies("block", side=DAYS[1])))
    assert all(count == 1 for count in Counter(plan.visits).values())
    assert {day for sweep, day in plan.visits if sweep == 1} == set(DAYS)


@pytest.mark.parametrize(
    ("since", "until", "every", "expected"),
    [
        ("2024-06-01", "2024-06-01", "1mo", "2024-06-01"),
        ("2024-01-31", "2024-04-01", "1mo", "2024-01-31 2024-02-29 2024-03-31 2024-04-01"),
        ("2024-01-01", "2024-01-20", "1w", "2024-01-01 2024-01-08 2024-01-15 2024-01-20"),
        ("2024-02-29", "2026-01-01", "1y", "2024-02-29 2025-02-28 2026-01-01"),
        ("2024-06-01", "2026-01-01", "monthly", "is no step"),
        ("2024-06-01", "2026-01-01", "0d", "is no step"),
        ("2026-06-01", "2026-01-01", "1d", "is after --until"),
        ("2020-06-01", "2026-01-01", "1d", "more than 400 days"),
    ],
)
def test_days(since: str, until: str, every: str, expected: str) -> None:
    try:
        ends = datetime.date.fromisoformat(since), datetime.date.fromisoformat(until)
        found = " ".join(str(day) for day in days_of(*ends, every))
    except BakeoffError as error:
        found = str(error)
    assert expected in found
