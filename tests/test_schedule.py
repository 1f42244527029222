"""The schedule, the plan and the engine, with workers that are made up: no process is started."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.actions import Action, Death, Options, Outcome
from bench.engine.answers import problem
from bench.engine.engine import LEAST_USUAL, USUAL, Engine
from bench.engine.journal import DiskError, Journal
from bench.engine.planner import (
    MAX_PROCESSES,
    MIN_COLD,
    MIN_PROCESSES,
    Allotment,
    Costs,
    Turn,
    allot,
    cold_sweeps,
    next_turn,
    process_count,
    spread,
)
from bench.engine.processes import WorkerFailedError
from bench.engine.scheduler import DEATHS, PREPARED, STARVED, Schedule
from bench.metrics import COLD, METRICS, WARM, Kind
from bench.summary import section, starved
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from bench.engine.found import State

    type Needed = dict[Cell, set[str]]
    type Fault = Callable[[Action], Death | str | None]

STYLES = {
    "pure_jax": ["pure"],
    "equinox": ["pure", "filter_jit"],
    "flax_linen": ["pure", "train_state", "blog"],
    "flax_nnx": ["pure", "jit", "cached_partial", "jit_partial"],
    "haiku": ["pure", "transform"],
}
EVERYTHING = tuple(METRICS)
STEP_SECONDS = {"toy": 2e-4, "seed": 3.6e-3, "batched": 2e-2, "wide": 3e-2}
SPEED = {"pure_jax/pure": 1.0, "control/pure": 1.0, "haiku/pure": 1.25}
OF_KIND: dict[str, list[str]] = defaultdict(list)
for _metric in METRICS.values():
    if _metric.kind is Kind.WARM:
        OF_KIND[_metric.turn].append(_metric.name)


def needed(
    workloads: Iterable[str] = ("toy",),
    metrics: Iterable[str] = ("step",),
    entrants: Iterable[str] = ("pure_jax", "haiku"),
    backend: str = "cpu",
    styles: Mapping[str, list[str]] = STYLES,
) -> Needed:
    """Return what `pytest bench` asks for with these names."""
    cells = [Cell(e, s, w, backend) for w in workloads for e in entrants for s in styles[e]]
    wanted = {cell: {m for m in metrics if METRICS[m].applies(cell)} for cell in cells}
    return {cell: names for cell, names in wanted.items() if names}


def seconds_of(action: Action, arms: int) -> float:
    """Return what an action takes on two cores of an EPYC, about."""
    step = STEP_SECONDS.get(action.workload, 0.0)
    return {
        "start": 0.15,
        "load": 0.7,
        "count": 0.8 + 20 * step,
        "prove": 0.6 + 20 * step,
        "open": 0.55 + 15 * step,
        "prepare": 6.0 if action.kind == "epoch" else 2.0,
        "train": 800 * step,
        "cold": 1.9,
        "block": 0.05
        + {
            "step": arms * (action.rounds * 5 + 4) * step,
            "dispatch": arms * (action.rounds * 31 + 4) * step,
            "sample": 0.03 * arms * action.rounds,
            "epoch": arms * 78 * action.rounds * step,
        }.get(action.kind, 0.0),
    }.get(action.do, 0.01)


def found(action: Action, arms: Iterable[str]) -> dict[str, Any]:
    """Return what a worker says of an action that `arms` take part in."""
    step = STEP_SECONDS.get(action.workload, 0.0)
    if action.do in ("load", "prepare"):
        return {"failures": {}}
    if action.do == "count":
        return {"exact": {"python_calls": 3}}
    if action.do == "prove":
        return {"proof": {"loss": 1e-8, "program": {}}, "exact": {"flops": 5.0}}
    if action.do == "train":
        return {"training": {"seconds": [200 * step], "same_weights": 2.5, "own_initialiser": []}}
    if action.do == "block":
        times = {arm: [step * SPEED.get(arm, 1.1)] * action.rounds for arm in arms}
        return {"seconds": dict.fromkeys(OF_KIND[action.kind], times)}
    if action.do == "cold":
        values: dict[str, float | None] = {name: SPEED.get(action.arm, 1.1) for name in COLD}
        return {"values": values, "timed_seconds": 2.0, "trace_and_lower_split_by": "clock"}
    return {}


BASE = "/".join(BASELINE)
BAD = "haiku/transform"
FIXED: dict[str, Any] = {"processes": 2, "blocks": 3, "rounds": 2, "cold_samples": 2}


@dataclass
class Machine:
    """Does what a schedule asks for, and asserts that it can be asked for at that moment."""

    fault: Fault = lambda _: None
    """What goes wrong with an action: its worker dies, or an arm has a failure, or nothing."""
    slowness: float = 1.0
    log: list[Action] = field(default_factory=list)
    opened: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    """Arm and workload of the steps in each living worker."""
    loaded: list[str] = field(default_factory=list)
    prepared: set[tuple[int, Turn]] = field(default_factory=set)
    proven: set[tuple[str, str]] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    backend: str = ""

    def __call__(self, action: Action) -> Outcome:
        """Return what came of an action."""
        self.log.append(action)
        arms = self.take_part(action)
        took = self.slowness * seconds_of(action, len(arms))
        fault = self.fault(action)
        if isinstance(fault, Death):
            self.opened.pop(action.process, None)
            self.fail(fault.arm, action.workload)
            return Outcome(took, {}, fault)
        if action.do == "prepare":
            self.prepared.add((action.process, Turn(action.workload, action.kind)))
        if isinstance(fault, str):
            if action.do in ("load", "prepare"):
                arm = fault.split()[0]
                self.fail(arm, action.workload)
                return Outcome(took, {"failures": {arm: fault}})
            self.fail(action.arm, action.workload)
            return Outcome(took, {"failure": fault})
        key = (action.arm, action.workload)
        if action.do in ("prove", "open"):
            self.opened[action.process].append(key)
            self.proven.add(key)
        return Outcome(took, found(action, arms))

    def fail(self, arm: str, workload: str) -> None:
        """Expect no more of an arm."""
        self.failed |= {(arm, w) for w in STEP_SECONDS if workload in ("", w)}

    def take_part(self, action: Action) -> list[str]:
        """Return the arms of a block; assert that the action is possible now."""
        key = (action.arm, action.workload)
        if action.do in ("start", "cold"):
            assert not self.opened, "a warm worker lives already"
            assert key not in self.failed
            if action.do == "start":
                if self.backend != action.backend:
                    self.backend, self.proven = action.backend, set()
                self.opened[action.process] = []
            return []
        there = self.opened[action.process]
        if action.do == "load":
            self.loaded = action.arm.split()
        elif action.do == "close":
            del self.opened[action.process]
        elif action.do == "count":
            assert action.arm in self.loaded
            assert key not in self.failed
            assert not there, "counting makes what is open compile again"
        elif action.do in ("prove", "open"):
            assert action.arm in self.loaded
            assert key not in self.failed
            assert (action.do == "open") == (key in self.proven)
            first = action.workload not in {workload for _, workload in there}
            assert first == (action.arm == BASE), "the baseline comes first"
        elif action.do == "train":
            assert key in there
        elif action.do == "block":
            arms = [arm for arm, workload in there if workload == action.workload]
            living = {arm for arm, w in self.proven - self.failed if w == action.workload}
            assert living <= set(arms), "an arm is left out of a block"
            if action.kind not in PREPARED:
                return arms
            assert (action.process, Turn(action.workload, action.kind)) in self.prepared
            return [arm for arm in arms if arm.endswith("/pure")]
        return []


def drive(schedule: Schedule, machine: Machine) -> list[Action]:
    """Run a schedule to its end; return what it asked for."""
    actions = schedule.actions()
    try:
        action = next(actions)
        while True:
            action = actions.send(machine(action))
            assert len(machine.log) < 20_000, "it does not end"
    except StopIteration:
        return machine.log


def planned(
    asked: Needed, fault: Fault = lambda _: None, budget: float = 300.0, **options: Any
) -> tuple[State, list[Action]]:
    """Return what a whole run found, and what was done in it."""
    schedule = Schedule(asked, Options(budget, **options))
    log = drive(schedule, Machine(fault))
    return schedule.state, log


class Mix(NamedTuple):
    """Something to ask for, and the seconds that may be left for want of something to do."""

    needed: Needed
    left: float = 0.0


MIXES = {
    "default": Mix(needed(("toy", "seed"), EVERYTHING, STYLES)),
    "two arms": Mix(needed(("seed",), ("step",))),
    "all arms": Mix(needed(("seed",), ("step",), STYLES)),
    "every workload": Mix(needed(STEP_SECONDS, EVERYTHING, STYLES), left=5),
    "sampling": Mix(needed(("toy",), ("sample",), STYLES)),
    "one cold": Mix(needed(("toy",), ("import",)), left=15),
    "cold": Mix(needed(("toy", "seed"), COLD, STYLES), left=150),
    "losses": Mix(needed(("seed",), ("final_loss",), STYLES), left=2000),
}
all_mixes = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


@pytest.mark.parametrize("slowness", [1, 2])
@pytest.mark.parametrize("budget", [60, 300, 1800])
@all_mixes
def test_the_budget_is_kept(mix: Mix, budget: float, slowness: float) -> None:
    schedule = Schedule(mix.needed, Options(budget), before=5.0)
    log = drive(schedule, Machine(slowness=slowness))
    spent = schedule.state.spent.wall
    assert spent <= 1.1 * budget
    if slowness == 1 or budget > 60:
        assert spent >= 0.9 * budget - slowness * mix.left
    assert schedule.state.spent.processes == sum(a.do in ("start", "cold") for a in log)


@pytest.mark.parametrize("budget", [20, 60, 300, 1800])
@all_mixes
def test_what_is_starved_says_so(mix: Mix, budget: float) -> None:
    state, _ = planned(mix.needed, budget=budget)
    said = section(state, mix.needed, margin=0.02)
    rows = {Cell(*(row[name] for name in Cell._fields)): row for row in said["cells"]}
    for cell, metrics in mix.needed.items():
        assert rows[cell]["failure"] is None
        for metric in metrics - {"final_loss"}:
            result = rows[cell]["metrics"][metric]
            if starved(state.cells[cell], metric):
                assert result == {"missing": STARVED}
            else:
                assert result["blocks"] == len(state.cells[cell].blocks[metric])
        if "final_loss" in metrics and rows[cell]["final_loss"] is None:
            assert state.missing[cell, "final_loss"] == STARVED


@pytest.mark.parametrize("budget", [60, 300])
def test_a_cell_gets_enough_or_nothing_is_spent_on_it(budget: float) -> None:
    asked = MIXES["default"].needed
    state, log = planned(asked, budget=budget)
    assert any(not starved(row, "step") for row in state.cells.values())
    for cell in asked:
        for metric, blocks in state.cells[cell].blocks.items():
            # The first two blocks of a turn say what it costs, and so whether there is time for it.
            assert len(blocks) <= 2 or not starved(state.cells[cell], metric)
    assert budget > 60 or not any(action.do == "cold" for action in log)


def test_everything_is_measured_given_time() -> None:
    asked = MIXES["default"].needed
    state, _ = planned(asked, budget=3600)
    assert state.missing == {}
    for cell, metrics in asked.items():
        row = state.cells[cell]
        assert all(not starved(row, metric) for metric in metrics - {"final_loss"})
        assert ("final_loss" in metrics) == (row.training is not None)
        assert row.proof is not None


@pytest.mark.parametrize("mix", ["default", "two arms", "cold", "sampling"])
def test_the_control_takes_part(mix: str) -> None:
    asked = {cell: names for cell, names in MIXES[mix].needed.items() if cell[:2] != BASELINE}
    state, log = planned(asked, budget=1800)
    for cell in asked:
        for name in (BASELINE, CONTROL):
            row = state.cells[Cell(*name, *cell[2:])]
            measured = {m for m in asked[cell] if m != "final_loss"}
            assert all(
                not starved(row, m) for m in measured if METRICS[m].applies(Cell(*name, *cell[2:]))
            )
            assert row.training is None
    if mix in ("default", "cold"):
        swept = Counter(action.arm for action in log if action.do == "cold")
        assert swept["control/pure"] == swept["haiku/pure"]


def test_cold_alone_needs_one_worker_that_proves() -> None:
    state, log = planned(MIXES["cold"].needed)
    counts = Counter(action.do for action in log)
    assert counts["start"] == counts["load"] == counts["close"] == 1
    assert counts["prove"] == len(state.cells)
    assert counts["cold"] >= MIN_COLD * len(state.cells)
    assert set(counts) == {"start", "load", "close", "count", "prove", "cold"}


@pytest.mark.parametrize("workload", ["toy", "wide"])
def test_one_workload_alone(workload: str) -> None:
    state, log = planned(needed((workload,), EVERYTHING), budget=1800)
    assert {action.workload for action in log} == {"", workload}
    assert {cell.workload for cell in state.cells} == {workload}


def test_workers_beyond_the_fewest_leave_tiny_workloads_out() -> None:
    _, log = planned(MIXES["default"].needed, budget=1800)
    began = [action.process for action in log if action.do == "start"]
    assert len(began) > MIN_PROCESSES
    for number, process in enumerate(began):
        opened = {a.workload for a in log if a.process == process and a.do in ("prove", "open")}
        blocks = {a.workload for a in log if a.process == process and a.do == "block"}
        assert opened == blocks == ({"toy", "seed"} if number < MIN_PROCESSES else {"seed"})


def test_a_late_worker_that_dies_is_followed_by_one_like_it() -> None:
    begun: list[int] = []

    def fault(action: Action) -> Death | None:
        if action.do == "start":
            begun.append(action.process)
        late = len(begun) == MIN_PROCESSES + 1 and action.do == "block"
        return Death("it died") if late else None

    _, log = planned(MIXES["default"].needed, fault, budget=1800)
    opened = {action.workload for action in log if action.process == begun[MIN_PROCESSES + 1]}
    assert opened == {"", "seed"}


def test_where_all_is_tiny_every_worker_measures_it() -> None:
    _, log = planned(needed(("toy",), ("step",), STYLES), budget=1800)
    blocks = {action.process for action in log if action.do == "block"}
    assert blocks == {action.process for action in log if action.do == "start"}
    assert len(blocks) > MIN_PROCESSES


def test_orders_differ_and_are_balanced() -> None:
    asked = needed(("toy", "seed"), EVERYTHING, STYLES)
    state, log = planned(asked, **FIXED | {"processes": 6, "cold_samples": 6})
    arms = {f"{cell.entrant}/{cell.style}" for cell in state.cells}

    opened: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for action in log:
        if action.do in ("prove", "open"):
            opened[action.process].append((action.workload, action.arm))
    assert len({tuple(order) for order in opened.values()}) == 6
    for order in opened.values():
        assert sorted(order) == sorted((w, arm) for w in ("toy", "seed") for arm in arms)

    cold = [(action.workload, action.arm) for action in log if action.do == "cold"]
    size = len(state.cells) + 2  # the baseline's are taken twice
    sweeps = [cold[start : start + size] for start in range(0, len(cold), size)]
    assert len(sweeps) == 6
    assert len({tuple(sweep) for sweep in sweeps}) == 6
    for sweep in sweeps:
        counts = Counter(sweep)
        assert len(counts) == len(state.cells)
        assert all(count == 1 + (arm == BASE) for (_, arm), count in counts.items())
    # Cold processes come between workers, not all at the end.
    dos = [action.do for action in log]
    assert len({dos[:i].count("close") for i, do in enumerate(dos) if do == "cold"}) == 5

    seeds = [action.seed for action in log if action.do == "block"]
    assert len(set(seeds)) == len(seeds)


def test_the_same_outcomes_give_the_same_actions() -> None:
    asked = MIXES["default"].needed
    assert planned(asked)[1] == planned(asked)[1]
    assert planned(asked, seed=1)[1] != planned(asked)[1]


@pytest.mark.parametrize("budget", [30, 3600])
def test_numbers_that_are_given_are_kept(budget: float) -> None:
    given: dict[str, Any] = {"processes": 4, "blocks": 3, "rounds": 7, "cold_samples": 5}
    asked = needed(("toy", "seed"), EVERYTHING)
    state, log = planned(asked, budget=budget, **given)
    assert_numbers(state, asked, **given)
    assert all(action.rounds == 7 for action in log if action.do == "block")
    assert sum(action.do == "start" for action in log) == 4
    per_process = Counter((a.process, a.workload, a.kind) for a in log if a.do == "block")
    assert set(per_process.values()) == {3}


def assert_numbers(
    state: State, asked: Needed, processes: int, blocks: int, rounds: int, cold_samples: int
) -> None:
    """Assert that each living cell has as many samples as were asked for."""
    for cell, metrics in asked.items():
        row = state.cells[cell]
        if row.failure is not None:
            continue
        for metric in metrics:
            if metric in WARM:
                assert len(row.blocks[metric]) == processes * blocks, (cell, metric)
                assert {len(b.values) for b in row.blocks[metric]} == {rounds}
                assert len({b.number for b in row.blocks[metric]}) == processes * blocks
            elif metric in COLD:
                twice = 1 + (cell[:2] == BASELINE)
                assert len(row.blocks[metric]) == twice * cold_samples, (cell, metric)
            else:
                assert row.training is not None


@pytest.mark.parametrize("blocks", [1, 2])
def test_few_blocks_are_not_more(blocks: int) -> None:
    given = FIXED | {"processes": 1, "blocks": blocks}
    asked = needed(("toy",), EVERYTHING)
    state, _ = planned(asked, **given)
    assert_numbers(state, asked, **given)


def test_one_number_alone() -> None:
    state, log = planned(needed(("seed",)), processes=7)
    assert sum(action.do == "start" for action in log) == 7
    assert 270 <= state.spent.wall <= 300
    _, log = planned(needed(("seed",), ("step", "import")), cold_samples=3)
    assert Counter(a.arm for a in log if a.do == "cold")["haiku/pure"] == 3


def test_backends_share_the_budget() -> None:
    asked = needed(("seed",), ("step",)) | needed(("seed",), ("step",), backend="gpu")
    state, log = planned(asked)
    first = next(i for i, action in enumerate(log) if action.backend == "gpu")
    assert all(action.backend == "gpu" for action in log[first:])
    halves = [sum(a.do == "block" for a in part) for part in (log[:first], log[first:])]
    assert halves[1] == pytest.approx(halves[0], rel=0.2)
    assert 270 <= state.spent.wall <= 300


DEAD = Death("worker failed (exit status -11)", "its last words", BAD)


class Once:
    """Something that goes wrong the first time that an action is like this."""

    def __init__(self, fault: Death | str, do: str, workload: str = "", arm: str = "") -> None:
        self.fault, self.like, self.happened = fault, (do, workload, arm), 0

    def __call__(self, action: Action) -> Death | str | None:
        """Return what goes wrong."""
        do, workload, arm = self.like
        alike = action.do == do and workload in ("", action.workload)
        if self.happened or not alike or arm not in ("", *action.arm.split()):
            return None
        self.happened += 1
        return self.fault


ALL_CELLS = {Cell("haiku", "transform", w, "cpu") for w in ("toy", "seed")}
PURE_BAD = "haiku/pure"


@pytest.mark.parametrize(
    ("fault", "cells"),
    [
        (Once(DEAD, "load"), ALL_CELLS),
        (Once(f"{BAD} raised", "load"), ALL_CELLS),
        (Once(DEAD, "prove", "seed", BAD), {Cell("haiku", "transform", "seed", "cpu")}),
        (Once("not equal", "prove", "toy", BAD), {Cell("haiku", "transform", "toy", "cpu")}),
        (Once(DEAD, "open", "toy", BAD), {Cell("haiku", "transform", "toy", "cpu")}),
        (Once("not equal", "open", "seed", BAD), {Cell("haiku", "transform", "seed", "cpu")}),
        (Once(DEAD, "block", "seed"), {Cell("haiku", "transform", "seed", "cpu")}),
        (Once(DEAD, "train", "seed", BAD), {Cell("haiku", "transform", "seed", "cpu")}),
        (Once("diverged", "train", "toy", BAD), {Cell("haiku", "transform", "toy", "cpu")}),
        (Once(DEAD, "cold", "toy", BAD), {Cell("haiku", "transform", "toy", "cpu")}),
        (
            Once(DEAD._replace(arm=PURE_BAD), "prepare", "seed", PURE_BAD),
            {Cell("haiku", "pure", "seed", "cpu")},
        ),
        (
            Once(f"{PURE_BAD} raised", "prepare", "toy", PURE_BAD),
            {Cell("haiku", "pure", "toy", "cpu")},
        ),
    ],
    ids=lambda value: (
        f"{value.like[0]}-{type(value.fault).__name__}" if isinstance(value, Once) else ""
    ),
)
def test_what_fails_costs_its_own_cells_only(fault: Once, cells: set[Cell]) -> None:
    fault.happened = 0
    asked = needed(("toy", "seed"), EVERYTHING, ("pure_jax", "haiku", "equinox"))
    state, _ = planned(asked, fault, **FIXED)
    assert fault.happened
    assert {cell for cell, row in state.cells.items() if row.failure is not None} == cells
    for cell in cells:
        row = state.cells[cell]
        if isinstance(fault.fault, Death):
            assert (row.failure, row.stderr) == (DEAD.reason, DEAD.stderr)
        else:
            assert row.failure == fault.fault
    assert_numbers(state, asked, **FIXED)
    assert state.notes == []


def test_an_arm_that_always_kills_its_worker_kills_one() -> None:
    def fault(action: Action) -> Death | None:
        return DEAD if action.do == "load" and BAD in action.arm.split() else None

    asked = needed(("toy",), EVERYTHING)
    state, log = planned(asked, fault, **FIXED)
    assert sum(action.do == "start" for action in log) == FIXED["processes"] + 1
    assert_numbers(state, asked, **FIXED)


NOBODY = Death("worker failed (silent for 100 s)", "its last words")


@pytest.mark.parametrize("do", ["start", "load", "prove", "open", "prepare", "block", "train"])
def test_a_death_of_nobody_costs_a_worker(do: str) -> None:
    asked = needed(("toy",), EVERYTHING)
    state, _ = planned(asked, Once(NOBODY, do), **FIXED)
    assert state.notes == [f"a worker had to be started anew: {NOBODY.reason}"]
    assert {row.failure for row in state.cells.values()} == {None}
    assert_numbers(state, asked, **FIXED)


@pytest.mark.parametrize("do", ["start", "load", "prove", "block"])
def test_many_deaths_of_nobody_end_it(do: str) -> None:
    asked = needed(("toy",), EVERYTHING)
    state, log = planned(asked, lambda action: NOBODY if action.do == do else None)
    assert sum(action.do == "start" for action in log) == DEATHS + 1
    for row in state.cells.values():
        assert (row.failure, row.stderr) == (NOBODY.reason, NOBODY.stderr)
    assert not any(action.do == "cold" for action in log)


def test_many_deaths_of_nobody_leave_what_was_measured() -> None:
    def fault(action: Action) -> Death | None:
        return NOBODY if (action.do, action.workload) == ("block", "toy") else None

    asked = needed(("toy", "seed"), ("step", "import"))
    state, log = planned(asked, fault, cold_samples=2)
    assert sum(action.do == "start" for action in log) == DEATHS + 1
    for cell in asked:
        row = state.cells[cell]
        assert (row.failure is None) == (cell.workload == "seed")
        if cell.workload == "seed":
            assert row.values("step")
            assert len(row.values("import")) == 2 + 2 * (cell[:2] == BASELINE)


@pytest.mark.parametrize(
    "fault",
    [
        Once("not equal", "prove", "seed", "pure_jax/pure"),
        Once("not equal", "open", "seed", "pure_jax/pure"),
        Once(Death("dead", "", "pure_jax/pure"), "prove", "seed", "pure_jax/pure"),
        Once(Death("dead", "", "pure_jax/pure"), "block", "seed"),
        Once(Death("dead", "", "pure_jax/pure"), "cold", "seed", "pure_jax/pure"),
    ],
    ids=["prove", "open", "prove-dead", "block-dead", "cold-dead"],
)
def test_without_a_baseline_its_workload_fails(fault: Once) -> None:
    fault.happened = 0
    asked = needed(("toy", "seed"), EVERYTHING)
    state, log = planned(asked, fault, **FIXED)
    reason = fault.fault.reason if isinstance(fault.fault, Death) else fault.fault
    for cell, row in state.cells.items():
        if cell.workload == "toy":
            assert row.failure is None
        elif cell[:2] == BASELINE:
            assert row.failure == reason
        else:
            assert row.failure == f"there is no baseline: {reason}"
    assert_numbers(state, asked, **FIXED)
    after = log[max(i for i, a in enumerate(log) if a.workload == "seed") + 1 :]
    assert {action.workload for action in after} <= {"", "toy"}


def test_a_baseline_that_cannot_be_loaded() -> None:
    asked = needed(("toy",))
    schedule = Schedule(asked, Options(300), problems={"pure_jax": "import failed: OSError"})
    assert drive(schedule, Machine()) == []
    failures = {cell.entrant: row.failure for cell, row in schedule.state.cells.items()}
    assert failures["pure_jax"] == "import failed: OSError"
    assert failures["haiku"] == "there is no baseline: import failed: OSError"


@pytest.mark.parametrize("how", ["problem", "not equal", "dies"])
def test_nothing_is_measured_where_all_that_was_asked_for_failed(how: str) -> None:
    """The baseline beside itself is not worth five minutes."""
    asked = needed(("toy",), EVERYTHING, ("haiku",), styles={"haiku": ["pure"]})

    def fault(action: Action) -> Death | str | None:
        if how == "problem" or (action.do, action.arm) != ("prove", "haiku/pure"):
            return None
        return "not equal" if how == "not equal" else DEAD._replace(arm="haiku/pure")

    problems = {"haiku": "import failed: OSError"} if how == "problem" else {}
    schedule = Schedule(asked, Options(300), problems=problems)
    log = drive(schedule, Machine(fault))
    assert not {"block", "cold", "train", "prepare"} & {action.do for action in log}
    assert schedule.state.spent.wall < 30


def test_a_workload_for_which_the_time_is_too_short_is_left_out() -> None:
    asked = MIXES["every workload"].needed
    state, log = planned(asked, budget=120)
    proven = {action.workload for action in log if action.do == "prove"}
    assert proven
    assert proven < set(STEP_SECONDS)
    for cell, metrics in asked.items():
        if cell.workload not in proven:
            assert all(state.missing[cell, metric] == STARVED for metric in metrics)


def test_a_budget_that_is_gone_before_anything_is_proven_says_so() -> None:
    asked = needed(("toy",), EVERYTHING)
    schedule = Schedule(asked, Options(5), before=6.0)
    log = drive(schedule, Machine())
    assert [action.do for action in log] == ["start", "load", "close"]
    said = section(schedule.state, asked, margin=0.02)
    results = [result for row in said["cells"] for result in row["metrics"].values()]
    assert results
    # The baseline's row of an entrant's alone has no reason of its own.
    assert all(result == {"missing": STARVED} for result in results)


STEP_TOY, STEP_SEED, SAMPLE_TOY = Turn("toy", "step"), Turn("seed", "step"), Turn("toy", "sample")


def costs(**changes: Any) -> Costs:
    """Return what things cost; of five arms if nothing else is said."""
    usual: dict[str, Any] = {
        "arms": 5,
        "process": 6.0,
        "lean": 3.5,
        "blocks": {STEP_SEED: 0.6, STEP_TOY: 0.1},
        "prepare": {SAMPLE_TOY: 4.0},
        "training": {"toy": 1.0, "seed": 15.0},
        "sweeps": {"seed": 20.0, "toy": 18.0},
    }
    return Costs(**usual | changes)


WEIGHTS = {STEP_SEED: 3.0, STEP_TOY: 1.0, SAMPLE_TOY: 0.5}


def price(plan: Allotment, known: Costs) -> float:
    """Return what is left for blocks: the rest of a plan's cost."""
    prepared = sum(known.prepare[turn] for turn in plan.turns if turn in known.prepare)
    return (
        sum(known.training[workload] for workload in plan.trainings)
        + sum(known.sweeps[workload] * count for workload, count in plan.sweeps.items())
        + (min(plan.processes, MIN_PROCESSES) - 1) * known.process
        + max(0, plan.processes - MIN_PROCESSES) * known.lean
        + MIN_PROCESSES * prepared
    )


@pytest.mark.parametrize("seconds", [0, 10, 50, 280, 1700, 100_000])
def test_no_more_is_shared_out_than_there_is(seconds: float) -> None:
    plan = allot(seconds, costs(), WEIGHTS)
    assert MIN_PROCESSES <= plan.processes <= MAX_PROCESSES or seconds < 50
    assert {STEP_SEED, STEP_TOY} <= set(plan.turns)
    assert all(count >= MIN_COLD for count in plan.sweeps.values())
    if seconds >= 50:
        assert price(plan, costs()) < seconds
    if seconds == 0:
        assert plan.trainings == ()
        assert plan.sweeps == {}


def test_with_nothing_warm_all_is_for_cold() -> None:
    plan = allot(400, costs(blocks={}, prepare={}, training={}), {})
    assert plan.turns == ()
    assert plan.sweeps == {"seed": 10, "toy": 10}
    assert plan.processes == 1


def test_cold_sweeps_are_of_the_first_workloads_that_fit() -> None:
    costs = {"wide": 60.0, "seed": 20.0, "toy": 18.0}
    assert cold_sweeps(100, 100, costs) == {"seed": 2, "toy": 2}
    assert cold_sweeps(119, 76, costs) == {"seed": 2, "toy": 2}
    assert cold_sweeps(120, 76, costs) == {"wide": 2}
    assert cold_sweeps(39, 39, {"seed": 20.0}) == {}
    assert cold_sweeps(41, 0, {"seed": 20.0}) == {"seed": 2}
    assert cold_sweeps(41, 60, {"seed": 20.0}) == {"seed": 3}
    assert cold_sweeps(10, 10, {}) == {}


def test_dear_workers_are_few() -> None:
    cheap, dear = (process_count(300, costs(process=p, lean=p / 2), WEIGHTS) for p in (1.0, 30.0))
    assert cheap > dear


def test_turns_get_their_share_of_the_time() -> None:
    used = dict.fromkeys(WEIGHTS, 0.0)
    took = {STEP_SEED: 0.6, STEP_TOY: 0.1, SAMPLE_TOY: 0.2}
    for _ in range(3000):
        turn = next_turn(used, WEIGHTS)
        used[turn] += took[turn]
    total = sum(used.values())
    for turn, weight in WEIGHTS.items():
        assert used[turn] / total == pytest.approx(weight / 4.5, rel=0.02)


@pytest.mark.parametrize("count", [0, 1, 5, 9, 30])
@pytest.mark.parametrize("gaps", [1, 3, 4])
def test_spread(count: int, gaps: int) -> None:
    runs = spread(range(count), gaps)
    assert len(runs) == gaps
    assert [item for run in runs for item in run] == list(range(count))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


class Lab:
    """Workers that are made up, and a clock that only they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.living: list[FakeWorker] = []
        self.commands: list[dict[str, Any]] = []
        self.silences: set[float] = set()
        self.fails: Callable[[dict[str, Any]], None] = lambda _: None
        """Raises what a command of a worker is to end with."""
        self.distinct = False
        """Whether no two samples are the same."""
        self.spoils: Callable[[dict[str, Any], dict[str, Any]], None] = lambda _command, _out: None
        """Changes what a worker answers to a command."""


class FakeWorker:
    """What the engine sees of a worker."""

    def __init__(self, lab: Lab, place: object, silence: float) -> None:
        self.lab, self.cpu_seconds = lab, 0.0
        self.arms: list[str] = []
        self.opened: list[tuple[str, str]] = []
        self.recorder = SimpleNamespace(who=lambda: None)
        lab.silences.add(silence)
        assert not lab.living, "one works at any time here"
        lab.living.append(self)

    def start(self) -> None:
        """Take some time."""
        self.lab.now += 0.25

    def ask(self, command: dict[str, Any], silence: float) -> dict[str, Any]:
        """Do something: the command becomes an action again."""
        lab = self.lab
        lab.silences.add(silence)
        lab.commands.append(command)
        lab.asked += 1
        lab.fails(command)
        do = command.get("action", command["do"])
        if do == "load":
            self.arms = ["/".join(arm) for arm in command["arms"]]
        arm = ""
        if do == "cold":
            arm = f"{command['entrant']}/{command['style']}"
        elif "arm" in command:
            arm = self.arms[command["arm"]]
        workload = command.get("workload", "")
        extra = {name: command[name] for name in ("kind", "rounds", "seed") if name in command}
        action = Action(do, 0, command.get("backend", ""), workload, arm, **extra)
        if do in ("prove", "open"):
            self.opened.append((arm, workload))
        arms = [arm for arm, at in self.opened if at == workload]
        if action.kind in PREPARED:
            arms = [arm for arm in arms if arm.endswith("/pure")]
        lab.now += round(1024 * seconds_of(action, len(arms))) / 1024  # sums of these are exact
        self.cpu_seconds += 1.0
        out: dict[str, Any] = json.loads(json.dumps(found(action, arms)))
        if lab.distinct and do == "block":
            for times in out["seconds"].values():
                for values in times.values():
                    values[0] += lab.now * 1e-9
        if lab.distinct and do == "cold":
            out["values"] = {name: value + lab.now * 1e-9 for name, value in out["values"].items()}
        lab.spoils(command, out)
        return out

    def close(self) -> None:
        """End."""
        if self in self.lab.living:
            self.lab.living.remove(self)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a laboratory without processes, a clock of its own, and a disk that is quick."""
    made = Lab()
    monkeypatch.setattr("bench.engine.engine.Worker", partial(FakeWorker, made))
    monkeypatch.setattr("bench.engine.engine.busy_seconds", lambda: (0.0, 0.0))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


class Case(NamedTuple):
    """A run that is repeated."""

    needed: Needed
    options: Options

    def run(self, lab: Lab, journal: Journal | None) -> State:
        """Run it, or go on with it."""
        schedule = Schedule(self.needed, self.options)
        return Engine(schedule, journal, clock=lambda: lab.now).run()

    def said(self, state: State) -> dict[str, Any]:
        """Return the final section."""
        return section(state, self.needed, margin=0.02, enforce=False)


SMALL = Case(
    needed(
        ("toy",),
        ("step", "sample", "import", "final_loss"),
        styles={"pure_jax": ["pure"], "haiku": ["pure"]},
    ),
    Options(300, processes=2, blocks=2, rounds=2, cold_samples=2),
)
BUDGETED = Case(needed(("toy",), ("step", "import")), Options(40))


def whole_run(case: Case, lab: Lab, path: Path) -> tuple[State, list[bytes]]:
    """Run a case without interruption; return what was found, and the lines of its journal."""
    state = case.run(lab, Journal.create(path, {}))
    return state, path.read_bytes().splitlines(keepends=True)


def cut(lines: list[bytes], records: int, half: int, path: Path) -> Journal:
    """Return the journal of a run that was killed after so many records, and half of a line."""
    rest = lines[records + 1][:half] if records + 1 < len(lines) else b""
    path.write_bytes(b"".join(lines[: records + 1]) + rest)
    return Journal.open(path)


def samples(state: State) -> dict[tuple[Cell, str, int, int], list[float]]:
    """Return all samples by cell, metric, process and block."""
    return {
        (cell, metric, block.process, block.number): block.values
        for cell, row in state.cells.items()
        for metric, blocks in row.blocks.items()
        for block in blocks
    }


def cell_of(arm: str, action: Action) -> Cell:
    """Return the cell of an arm in an action."""
    entrant, style = arm.split("/")
    return Cell(entrant, style, action.workload, action.backend)


def journalled(records: list[dict[str, Any]]) -> dict[tuple[Cell, str, int], list[list[float]]]:
    """Return the samples in a journal by cell, metric and process, in their order."""
    out: dict[tuple[Cell, str, int], list[list[float]]] = defaultdict(list)
    for record in records:
        action = Action(*record["action"])
        if record["death"] is not None:
            continue
        if action.do == "block":
            for metric, arms in record["found"]["seconds"].items():
                for arm, values in arms.items():
                    cell = cell_of(arm, action)
                    out[cell, metric, action.process].append(values)
        if action.do == "cold":
            cell = cell_of(action.arm, action)
            for metric, value in record["found"]["values"].items():
                out[cell, metric, action.process].append([value])
    return out


def without_processes(said: Any) -> Any:
    """Leave out of a section what another number of workers changes."""
    if isinstance(said, dict):
        changed = (
            "processes",
            "spent",
            "plan",
            "standard_error",
            "df",
            "detectable",
            "p",
            "more_blocks",
            "process_by_block",
            "number_by_block",
        )
        return {k: without_processes(v) for k, v in said.items() if k not in changed}
    return [without_processes(each) for each in said] if isinstance(said, list) else said


@pytest.mark.parametrize("half", [0, 25])
def test_cut_anywhere_and_resumed_it_is_the_same_run(half: int, lab: Lab, tmp_path: Path) -> None:
    state, lines = whole_run(SMALL, lab, tmp_path / "whole")
    said = SMALL.said(state)
    dos = [json.loads(line)["action"][0] for line in lines[1:]]
    several = {"count", "prove", "open", "prepare", "block", "train", "cold"}
    assert set(dos) == {"start", "load", "close"} | several
    exact = 0
    for records in range(len(lines)):
        journal = cut(lines, records, half, tmp_path / f"{records}")
        resumed = SMALL.run(lab, journal)
        assert_numbers(resumed, SMALL.needed, 2, 2, 2, 2)
        assert without_processes(SMALL.said(resumed)) == without_processes(said), records
        if records in (0, len(dos)) or dos[records - 1] in ("close", "cold"):
            exact += 1
            assert SMALL.said(resumed) == said, records
            assert samples(resumed) == samples(state)
            assert resumed.spent == state.spent
    assert exact > 4


@pytest.mark.parametrize("case", [SMALL, BUDGETED], ids=["fixed", "budget"])
def test_no_journalled_sample_is_lost(case: Case, lab: Lab, tmp_path: Path) -> None:
    lab.distinct = True
    state, lines = whole_run(case, lab, tmp_path / "whole")
    for records in range(0, len(lines), 1 if case is SMALL else 7):
        path = tmp_path / f"{records}"
        before = cut(lines, records, 10, path)
        known = journalled(before.records)
        resumed = case.run(lab, before)
        assert path.read_bytes().startswith(b"".join(lines[: records + 1]))
        kept: dict[tuple[Cell, str, int], list[list[float]]] = defaultdict(list)
        for (cell, metric, process, _), values in samples(resumed).items():
            kept[cell, metric, process].append(values)
        for key, blocks in known.items():
            assert kept[key][: len(blocks)] == blocks
        assert resumed.spent.wall <= 1.1 * case.options.budget
        assert {key[:2] for key in samples(resumed)} == {key[:2] for key in samples(state)}

        # The new journal holds all of it again, and nothing is measured anew.
        asked = lab.asked
        again = case.run(lab, Journal.open(path))
        assert lab.asked == asked
        assert samples(again) == samples(resumed)
        assert case.said(again) == case.said(resumed)


def test_a_run_that_is_cut_off_again_and_again(lab: Lab, tmp_path: Path) -> None:
    state, lines = whole_run(SMALL, lab, tmp_path / "whole")
    path = tmp_path / "cut"
    path.write_bytes(lines[0])
    turns = 0
    while True:
        stop = lab.asked + 9

        def fails(_: dict[str, Any], stop: int = stop) -> None:
            if lab.asked == stop:
                raise KeyboardInterrupt

        lab.fails, turns = fails, turns + 1
        try:
            resumed = SMALL.run(lab, Journal.open(path))
            break
        except KeyboardInterrupt:
            assert lab.living == [], "a worker is left behind"
            assert turns < 20
    assert turns > 3
    assert_numbers(resumed, SMALL.needed, 2, 2, 2, 2)
    assert without_processes(SMALL.said(resumed)) == without_processes(SMALL.said(state))


def test_deaths_are_journalled_too(lab: Lab, tmp_path: Path) -> None:
    def fails(command: dict[str, Any]) -> None:
        arms = lab.living[0].arms
        if command.get("action") == "prove" and arms[command["arm"]] == PURE_BAD:
            raise WorkerFailedError("worker failed (exit status -9)", "last words", command["arm"])
        if command.get("action") == "block" and lab.asked == 15:
            raise WorkerFailedError("worker failed (silent for 30 s)", "", None)

    lab.fails = fails
    path = tmp_path / "journal"
    state = SMALL.run(lab, Journal.create(path, {}))
    failed = {cell.entrant: row for cell, row in state.cells.items() if row.failure is not None}
    [row] = failed.values()
    assert (row.failure, row.stderr) == ("worker failed (exit status -9)", "last words")
    assert len(state.notes) == 1
    assert lab.living == []

    lab.fails = lambda _: pytest.fail("it is in the journal")
    again = SMALL.run(lab, Journal.open(path))
    assert SMALL.said(again) == SMALL.said(state)
    assert again.notes == state.notes


@pytest.mark.parametrize(
    "other",
    [
        Case(SMALL.needed, Options(300, seed=1, processes=2, blocks=2, rounds=2, cold_samples=2)),
        Case(needed(("seed",)), SMALL.options),
        Case(SMALL.needed, Options(300, processes=2, blocks=2, rounds=3, cold_samples=2)),
    ],
    ids=["seed", "workload", "rounds"],
)
def test_a_journal_that_does_not_fit(other: Case, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    SMALL.run(lab, Journal.create(path, {}))
    before = path.read_bytes()
    with pytest.raises(BakeoffError, match=r"does not fit this run: it holds .* to be done"):
        other.run(lab, Journal.open(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_full_disk_ends_a_run_that_goes_on_later(
    written: int, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, lines = whole_run(SMALL, lab, tmp_path / "whole")
    path = tmp_path / "journal"
    journal = Journal.create(path, {})
    left = written

    def full(_: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match="the disk is full"):
            SMALL.run(lab, journal)
    assert lab.living == []
    assert path.read_bytes().startswith(b"".join(lines[: written + 1]))
    resumed = SMALL.run(lab, Journal.open(path))
    assert without_processes(SMALL.said(resumed)) == without_processes(SMALL.said(state))


def test_what_workers_are_told(lab: Lab) -> None:
    lab.distinct = True
    SMALL.run(lab, None)
    said = lab.commands
    loads = [command for command in said if command.get("action") == "load"]
    assert sorted(loads[0]["arms"]) == [
        ["control", "pure"],
        ["haiku", "pure"],
        ["pure_jax", "pure"],
    ]
    cold = [command for command in said if command["do"] == "cold"]
    # The control's code is the baseline's, which is measured twice itself.
    assert Counter(command["entrant"] for command in cold) == {"pure_jax": 6, "haiku": 2}
    blocks = [command for command in said if command.get("action") == "block"]
    assert all(command["rounds"] == 2 for command in blocks)
    prepared = [command for command in said if command.get("action") == "prepare"]
    assert {command["kind"] for command in prepared} == {"sample"}
    assert all(sorted(command["arms"]) == [0, 1, 2] for command in prepared)


@pytest.mark.parametrize(("budget", "silence"), [(60, 30), (300, 100), (1800, 300)])
def test_silence_that_is_borne(budget: float, silence: float, lab: Lab) -> None:
    Case(needed(("toy",), ("import",)), Options(budget, cold_samples=1)).run(lab, None)
    assert max(lab.silences) == silence  # of what has not been done before
    cold = seconds_of(Action("cold", 0, "cpu", "toy"), 0)
    assert min(lab.silences) == LEAST_USUAL
    assert any(1 <= found / (USUAL * cold) < 1.2 for found in lab.silences)


def test_what_comes_next_is_told_before_it_is_done(lab: Lab) -> None:
    told = []

    def tell(action: Action, state: State) -> None:
        told.append((action.do, state.spent.wall))

    schedule = Schedule(SMALL.needed, SMALL.options)
    Engine(schedule, told=tell, clock=lambda: lab.now).run()
    assert told[:2] == [("start", 0.0), ("load", 0.25)]
    assert [seconds for _, seconds in told] == sorted(seconds for _, seconds in told)
    assert told[-1][1] <= schedule.state.spent.wall


def test_a_wrong_answer_costs_a_worker_and_no_result(lab: Lab, tmp_path: Path) -> None:
    spoilt: list[dict[str, Any]] = []

    def spoil(command: dict[str, Any], out: dict[str, Any]) -> None:
        if command.get("action") == "block" and not spoilt:
            spoilt.append(command)
            out["seconds"] = {"step": {"nobody/pure": [1.0, 1.0]}}

    lab.spoils = spoil
    path = tmp_path / "journal"
    state = SMALL.run(lab, Journal.create(path, {}))
    assert len(spoilt) == 1
    [note] = state.notes
    assert "a worker had to be started anew: worker failed (it answered `block` with {" in note
    assert note.endswith("'nobody/pure' is not loaded)")
    assert all(row.failure is None for row in state.cells.values())
    assert not any(cell.entrant == "nobody" for cell, *_ in samples(state))
    resumed = SMALL.run(
        lab, cut(path.read_bytes().splitlines(keepends=True), 20, 0, tmp_path / "c")
    )
    assert len(resumed.notes) == 1


def test_an_arm_that_is_left_out_of_a_block_fails(lab: Lab) -> None:
    def spoil(command: dict[str, Any], out: dict[str, Any]) -> None:
        if command.get("kind") == "step":
            for arms in out["seconds"].values():
                arms.pop("haiku/pure", None)

    lab.spoils = spoil
    state = SMALL.run(lab, None)
    failures = {cell.entrant: row.failure for cell, row in state.cells.items()}
    assert failures.pop("haiku") == "its worker left it out of a block"
    assert set(failures.values()) == {None}


COLD_ANSWER = {"values": {"import": 1.0}, "timed_seconds": 1.0, "trace_and_lower_split_by": "clock"}
TRAINING = {"seconds": [1.0], "same_weights": 2.0, "own_initialiser": []}


@pytest.mark.parametrize(
    ("do", "found", "wrong"),
    [
        ("start", {}, None),
        ("load", {"failures": {}}, None),
        ("load", {"failures": {"a/b": "no"}}, None),
        ("load", {}, "missing required field `failures`"),
        ("load", {"failures": ["no"]}, "Expected `object`"),
        ("load", {"failures": {"9": "no"}}, "'9' was not asked about"),
        ("count", {"exact": {"python_calls": None}}, None),
        ("count", {"exact": []}, "Expected `object`"),
        ("prove", {"proof": {}, "exact": {"flops": 1}}, None),
        ("prove", {"proof": {}}, "missing required field `exact`"),
        ("prove", {"proof": {}, "exact": {"flops": "x"}}, "Expected `float | null`, got `str`"),
        ("prove", {"failure": "not equal"}, None),
        ("open", {"failure": 3}, "Expected `str`"),
        ("block", {"failure": "not allowed"}, "missing required field `seconds`"),
        ("block", {"seconds": {"step": {"a/b": [1.0, 2.0], "c/d": [1.0, 2.0]}}}, None),
        (
            "block",
            {"seconds": {"step": {"a/b": [1.0, 2.0], "c/d": [1.0]}}},
            "1 samples in 2 rounds",
        ),
        (
            "block",
            {"seconds": {"step": {"a/b": [1.0, 2.0], "c/d": [1.0] * 4}}},
            "different numbers of samples",
        ),
        ("block", {"seconds": {"step": {"a/b": []}}}, "0 samples in 2 rounds"),
        ("block", {"seconds": {"step": {"a/b": [1.0, 0.0]}}}, "Expected `float` > 0"),
        ("block", {"seconds": {"step": {"a/b": [1.0, float("inf")]}}}, "Expected `float` <="),
        ("block", {"seconds": {"step": {"a/b": [1.0, "x"]}}}, "Expected `float`, got `str`"),
        ("block", {"seconds": {"step": {"e/f": [1.0, 2.0]}}}, "'e/f' is not loaded"),
        ("block", {"seconds": {"sample": {"a/b": [1.0, 2.0]}}}, "'sample' is not measured"),
        ("block", {"seconds": {"nosuch": {"a/b": [1.0, 2.0]}}}, "'nosuch' is not measured"),
        ("block", {"seconds": [1.0]}, "Expected `object`"),
        ("cold", {"values": {}}, "missing required field `timed_seconds`"),
        ("cold", COLD_ANSWER, None),
        ("cold", COLD_ANSWER | {"values": {"import": -1.0}}, "Expected `float` > 0"),
        ("cold", COLD_ANSWER | {"values": [1.0]}, "Expected `object`"),
        ("cold", COLD_ANSWER | {"values": {"step": 1.0}}, "'step' is no cold metric"),
        ("train", {"training": TRAINING}, None),
        ("train", {"training": TRAINING | {"same_weights": float("nan")}}, "Expected `float`"),
    ],
)
def test_an_answer_has_to_be_one_to_its_question(
    do: str, found: dict[str, Any], wrong: str | None
) -> None:
    kind = "step" if do == "block" else ""
    said = problem(Action(do, 1, "cpu", arm="a/b", kind=kind, rounds=2), found, ["a/b", "c/d"])
    assert said == wrong if wrong is None else wrong in (said or "")
