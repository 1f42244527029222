"""A/B and history as schedules, over simulated workers: nothing is started, time is made up."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bench.track.ab import BASE, DEFAULT_METRICS, NEW
from bench.track.history import REFERENCE, History, days_of
from bench.track.sides import COLD_DEATHS, DEATHS, Sides

from bench.cells import Cell
from bench.engine.actions import Action, Death, Options, Outcome
from bench.metrics import COLD, METRICS, Kind
from bench.stats.verdict import Verdict, judge
from bench.track import ab
from bench.track.series import changed, measured, sentences
from common.errors import BakeoffError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Generator

    from bench.track.ab import AB

CELLS = [
    Cell(entrant, "pure", workload, "cpu")
    for workload in ("toy", "seed")
    for entrant in ("pure_jax", "haiku", "equinox")
]
STEP = {"toy": 1e-4, "seed": 4e-3}
OF_TURN = {
    turn: [m.name for m in METRICS.values() if m.turn == turn] for turn in ("step", "dispatch")
}


@dataclass
class World:
    """Workers that differ by luck, on a machine whose speed drifts."""

    factor: Callable[[str, str, str], float] = lambda _side, _arm, _metric: 1.0
    """How much longer something takes on a side."""
    fault: Callable[[Action], Death | str | None] = lambda _: None
    seed: int = 0
    noise: float = 0.02
    luck: float = 0.01
    now: float = 0.0
    log: list[Action] = field(default_factory=list)
    alive: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def run(self, actions: Generator[Action, Outcome, None]) -> None:
        """Do all that a schedule asks for."""
        try:
            action = next(actions)
            while True:
                action = actions.send(self.done(action))
        except StopIteration:
            assert not self.alive, "a worker was left alive"

    def done(self, action: Action) -> Outcome:
        """Do one thing; asserts that it can be asked for at that moment."""
        self.log.append(action)
        fault = self.fault(action)
        if action.do == "start":
            assert action.process not in self.alive
            self.alive[action.process] = {"luck": {}, "open": [], "side": action.side}
        elif action.do != "cold":
            assert self.alive[action.process]["side"] == action.side
        took = {
            "start": 0.2,
            "load": 0.7,
            "count": 0.8,
            "prove": 1.0,
            "open": 0.6,
            "cold": 2.0,
        }.get(action.do, 0.01)
        if action.do == "block":
            arms = [a for a, w in self.alive[action.process]["open"] if w == action.workload]
            took = 0.05 + len(arms) * (action.rounds * 5 + 4) * STEP[action.workload]
        self.now += took
        if isinstance(fault, Death):
            self.alive.pop(action.process, None)
            return Outcome(took, {}, fault)
        if isinstance(fault, str):
            return Outcome(took, {"failure": fault})
        return Outcome(took, self.found(action))

    def found(self, action: Action) -> dict[str, Any]:
        if action.do == "load":
            luck = self.alive[action.process]["luck"]
            luck |= {arm: self.rng.normal(0, self.luck) for arm in action.arm.split()}
            return {"failures": {}}
        if action.do in ("prove", "open"):
            self.alive[action.process]["open"].append((action.arm, action.workload))
        if action.do == "close":
            self.alive.pop(action.process)
        if action.do == "count":
            return {"exact": {"python_calls": 4}}
        if action.do == "prove":
            return {"proof": {"loss": 1e-8}, "exact": {"flops": 5.0}}
        if action.do == "block":
            worker = self.alive[action.process]
            arms = [arm for arm, w in worker["open"] if w == action.workload]
            return {
                "seconds": {
                    metric: {
                        arm: (
                            self.speed(action, arm, metric)
                            * math.exp(worker["luck"][arm])
                            * np.exp(self.rng.normal(0, self.noise, action.rounds))
                        ).tolist()
                        for arm in arms
                    }
                    for metric in OF_TURN[action.kind]
                }
            }
        if action.do == "cold":
            values = {
                metric: self.speed(action, action.arm, metric)
                * math.exp(self.rng.normal(0, self.noise))
                for metric in COLD
            }
            return {"values": values, "timed_seconds": 1.0, "trace_and_lower_split_by": "clock"}
        return {}

    def speed(self, action: Action, arm: str, metric: str) -> float:
        """Return the seconds of something now: the machine is up to a third slower at times."""
        drift = 1.15 + 0.15 * math.sin(self.now / 20)
        return STEP[action.workload] * drift * self.factor(action.side, arm, metric)


def made(
    world: World,
    budget: float = 300.0,
    cells: list[Cell] | None = None,
    pairs: int | None = None,
    **more: Any,
) -> AB:
    options = Options(budget, seed=world.seed, **more)
    schedule = ab.schedule(cells or CELLS, DEFAULT_METRICS, options, pairs=pairs)
    world.run(schedule.actions())
    return schedule


def verdicts(schedule: AB) -> dict[tuple[str, str, str], Verdict]:
    found = schedule.estimates()
    judged = judge(list(found.values()), more=False)
    return {
        (cell.entrant, cell.workload, metric): judgement.verdict
        for ((cell, metric), _), judgement in zip(found.items(), judged, strict=True)
    }


def test_sides_take_turns_in_pairs_of_living_workers() -> None:
    world = World()
    schedule = made(world)
    blocks = [a for a in world.log if a.do == "block"]
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    assert all({a.side, b.side} == {BASE, NEW} for a, b in pairs)
    assert all((a.workload, a.kind, a.seed) == (b.workload, b.kind, b.seed) for a, b in pairs)
    first = Counter(a.side for a, _ in pairs)
    assert min(first.values()) > len(pairs) / 4, "one side nearly always goes first"
    assert schedule.made >= ab.MIN_PAIRS
    assert 0.85 * 300 < schedule.spent <= 300


def test_a_budget_is_shared_by_warm_and_cold() -> None:
    schedule = made(World(), 240.0)
    found = schedule.estimates()
    kinds = Counter(METRICS[metric].kind for _, metric in found)
    assert kinds[Kind.WARM] == 3 * (4 + 1)
    assert kinds[Kind.COLD] >= 3 * len(COLD)
    assert min(e.processes for e in found.values()) >= 4


@pytest.mark.parametrize("budget", [25.0, 40.0, 90.0])
def test_what_a_small_budget_has_no_time_for_is_said(budget: float) -> None:
    schedule = made(World(), budget)
    assert schedule.spent <= 1.1 * budget
    missing = schedule.missing()
    assert set(missing.values()) <= {"not measured within the budget"}
    assert missing.keys().isdisjoint(schedule.estimates())
    every = {(c, m) for c in CELLS for m in DEFAULT_METRICS if METRICS[m].applies(c)}
    assert missing.keys() | schedule.estimates().keys() == every


def test_one_pair_has_no_doubt_and_it_is_said_why() -> None:
    schedule = made(World(), 240.0, pairs=1)
    missing = schedule.missing()
    warm = {why for (_, m), why in missing.items() if METRICS[m].kind is Kind.WARM}
    assert warm == {"one pair says nothing of its doubt: give --pairs 2 or more"}


def test_identical_sides_are_seldom_told_apart() -> None:
    wrong = 0
    for seed in range(20):
        found = verdicts(made(World(seed=seed), 120.0))
        wrong += bool({Verdict.FASTER, Verdict.SLOWER} & set(found.values()))
    assert wrong <= 3  # 5 % of 20 are 1; more than 3 come twice in a hundred times


def test_a_planted_difference_is_found_where_it_is() -> None:
    def slow(side: str, arm: str, metric: str) -> float:
        planted = side == NEW and arm == "haiku/pure" and metric in ("step", "compile")
        return 1.15 if planted else 1.0

    found = verdicts(made(World(slow), 400.0))
    slower = {key for key, verdict in found.items() if verdict is Verdict.SLOWER}
    assert slower == {
        ("haiku", "toy", "step"),
        ("haiku", "seed", "step"),
        ("haiku", "toy", "compile"),  # at seed it is not measured within this budget
    }
    assert Verdict.FASTER not in found.values()


def test_a_failed_arm_costs_its_own_cells_only() -> None:
    def fault(action: Action) -> str | None:
        wrong = action.do == "prove" and action.side == NEW and action.arm == "haiku/pure"
        return "not equal: loss off by 0.1" if wrong else None

    schedule = made(World(fault=fault), 200.0)
    assert {cell.entrant for cell, _ in schedule.estimates()} == {"pure_jax", "equinox"}
    assert schedule.missing()[CELLS[1], "step"] == "not equal: loss off by 0.1"
    # without it on the one side, it is left out on the other one too: arms share what they do
    loads = [a for a in schedule_log(schedule) if a.do == "load"]
    assert all("haiku" in load.arm for load in loads[:2])
    assert not any("haiku" in load.arm for load in loads[2:])


def schedule_log(schedule: AB) -> list[Action]:
    """Return what was asked for, again: the same outcomes, the same questions."""
    world = World(
        fault=lambda a: (
            "not equal: loss off by 0.1"
            if a.do == "prove" and a.side == NEW and a.arm == "haiku/pure"
            else None
        )
    )
    again = ab.schedule(CELLS, DEFAULT_METRICS, schedule.options)
    world.run(again.actions())
    assert {k: e.ratio for k, e in again.estimates().items()} == {
        k: e.ratio for k, e in schedule.estimates().items()
    }
    return world.log


@pytest.mark.parametrize("do", ["start", "load", "open", "block"])
def test_a_worker_that_dies_at_nobodys_turn_costs_its_pair(do: str) -> None:
    died: list[int] = []

    def fault(action: Action) -> Death | None:
        if action.do == do and action.process > 4 and action.side == NEW and not died:
            died.append(action.process)
            return Death("worker failed (killed)")
        return None

    schedule = made(World(fault=fault), 300.0)
    assert died
    assert min(e.processes for e in schedule.estimates().values()) >= ab.MIN_PAIRS
    assert len(schedule.estimates()) > 30


def test_a_side_whose_workers_always_die_is_given_up() -> None:
    world = World(fault=lambda a: Death("it crashed") if a.side == NEW else None)
    schedule = made(world)
    assert schedule.estimates() == {}
    assert set(schedule.missing().values()) == {
        "it crashed",
        "there is no baseline: it crashed",
    }
    assert sum(a.do == "start" and a.side == NEW for a in world.log) == DEATHS + 1


def test_a_cold_process_that_dies_costs_cold_metrics_only() -> None:
    def fault(action: Action) -> Death | None:
        dies = action.do == "cold" and action.side == NEW and action.arm == "pure_jax/pure"
        return Death("worker failed (killed)") if dies else None

    world = World(fault=fault)
    schedule = made(world)
    assert (CELLS[0], "step") in schedule.estimates()
    assert schedule.missing()[CELLS[0], "compile"] == "worker failed (killed)"
    assert (CELLS[1], "compile") in schedule.estimates()
    tried = [a for a in world.log if a.do == "cold" and a.side == NEW and "pure_jax" in a.arm]
    assert len(tried) == COLD_DEATHS


def test_workers_that_die_late_cost_no_cell_that_has_blocks() -> None:
    def fault(action: Action) -> Death | None:
        late = action.do == "start" and action.side == NEW and action.process > 12
        return Death("worker failed (killed)") if late else None

    schedule = made(World(fault=fault))
    assert not any(found.failure for found in schedule.found(NEW).cells.values())


def test_a_baseline_that_fails_takes_its_workload_with_it() -> None:
    def fault(action: Action) -> str | None:
        wrong = (action.do, action.workload, action.arm) == ("prove", "seed", "pure_jax/pure")
        return "off" if wrong and action.side == BASE else None

    schedule = made(World(fault=fault))
    assert {cell.workload for cell, _ in schedule.estimates()} == {"toy"}
    assert schedule.missing()[CELLS[4], "step"] == "there is no baseline: off"


def test_it_ends_when_it_is_decided() -> None:
    world = World()
    schedule = ab.schedule(CELLS[:1], {"compile"}, Options(1000.0, cold_samples=12), pairs=12)
    schedule.decided = lambda: schedule.sweeps >= 3
    world.run(schedule.actions())
    [estimate] = schedule.estimates().values()
    assert estimate.processes == 3


DAYS = [f"{year}-{month:02d}-01" for year in (2024, 2025) for month in range(2, 13, 2)]


def past(world: World, budget: float = 900.0, **more: Any) -> History:
    cells = {name: list(CELLS) for name in (REFERENCE, *DAYS)}
    cells[DAYS[0]] = [cell for cell in CELLS if cell.entrant != "equinox"]  # it did not exist
    rng = random.Random(world.seed)
    sides = Sides(cells, Options(budget, seed=world.seed), rng)
    history = History(sides, DAYS, cells, DEFAULT_METRICS, rng, **more)
    world.run(history.actions())
    return history


def test_a_history_of_one_library_measures_it_beside_the_baseline_of_the_reference() -> None:
    cells = {name: [CELLS[1]] for name in (REFERENCE, *DAYS)}
    rng = random.Random(0)
    history = History(Sides(cells, Options(900.0), rng), DAYS, cells, DEFAULT_METRICS, rng)
    World().run(history.actions())
    assert {key.cell for key in measured(history)} == {CELLS[1]}
    assert "compile" in {key.metric for key in measured(history)}


def test_a_history_goes_on_where_it_was_cut_off() -> None:
    """The same outcomes give the same questions: what is journalled is not asked for again."""
    whole, again = World(), World()
    first = past(whole)
    assert past(again).visits == first.visits
    assert again.log == whole.log


def test_each_day_is_visited_in_each_sweep_in_another_order() -> None:
    history = past(World())
    sweeps = [[day for sweep, day in history.visits if sweep == n] for n in (1, 2)]
    assert [sorted(sweep) for sweep in sweeps] == [DAYS, DAYS]
    assert sweeps[0] != sweeps[1]
    assert history.spent <= 900


def test_a_history_finds_what_was_planted_and_a_drifting_machine_is_no_trend() -> None:
    def factor(side: str, arm: str, metric: str) -> float:
        new = side == REFERENCE or side >= DAYS[3]
        return {"compile": 1.9 if new else 1.0, "step": 0.8 if new else 1.0}.get(metric, 1.0)

    history = past(World(factor))
    found = changed(measured(history), DAYS)
    assert {(c.before, c.after) for c in found} == {(DAYS[2], DAYS[3])}
    assert {c.key.metric for c in found} == {"compile", "step"}
    assert len(found) == 2 * 6
    assert found[0].ratio == pytest.approx(1.9, rel=0.1)
    versions = {day: {"jax": "0.6.1" if day < DAYS[3] else "0.8.1", "numpy": "2"} for day in DAYS}
    words = sentences(
        found, versions, {"haiku": "dm-haiku", "pure_jax": "jax", "equinox": "equinox"}
    )
    assert len(words) == 4
    assert words[0].startswith("Compile time of ")
    assert "(jax 0.6.1 → 0.8.1)" in words[0]


def test_false_changes_are_as_rare_in_a_history_as_is_said() -> None:
    wrong = sum(bool(changed(measured(past(World(seed=s), 500.0)), DAYS)) for s in range(20))
    assert wrong <= 3


def test_a_library_that_did_not_exist_is_a_gap() -> None:
    found = measured(past(World()))
    for key, points in found.items():
        assert np.isnan(points.mean[0]) == (key.cell.entrant == "equinox")
        assert not np.isnan(points.mean[1:]).any()


def test_a_day_that_fails_is_a_gap_and_the_others_are_not() -> None:
    world = World(fault=lambda a: Death("it crashed") if a.side == DAYS[1] else None)
    found = measured(past(world))
    assert all(np.isnan(points.mean[1]) for points in found.values())
    assert all(not np.isnan(points.mean[2]) for points in found.values())


@pytest.mark.parametrize(
    ("since", "until", "every", "expected"),
    [
        ("2024-06-01", "2024-12-01", "2mo", ["06-01", "08-01", "10-01", "12-01"]),
        ("2024-01-31", "2024-03-15", "1mo", ["01-31", "02-29", "03-15"]),
        ("2024-01-01", "2024-01-15", "1w", ["01-01", "01-08", "01-15"]),
        ("2024-01-01", "2024-01-04", "2d", ["01-01", "01-03", "01-04"]),
        ("2024-01-01", "2024-01-01", "1y", ["01-01"]),
    ],
)
def test_days(since: str, until: str, every: str, expected: list[str]) -> None:
    assert [str(day)[5:] for day in days_of(date(since), date(until), every)] == expected


def date(text: str) -> datetime.date:
    from datetime import date as of

    return of.fromisoformat(text)


@pytest.mark.parametrize(
    ("since", "every", "message"),
    [
        ("2024-01-01", "often", "--every 'often' is no step"),
        ("2024-01-01", "0d", "--every '0d' is no step"),
        ("2025-01-01", "1mo", "--since 2025-01-01 is after --until 2024-12-01"),
        ("2018-12-01", "1d", "gives more than 400 days"),
    ],
)
def test_days_that_are_none(since: str, every: str, message: str) -> None:
    with pytest.raises(BakeoffError, match=message):
        days_of(date(since), date("2024-12-01"), every)
