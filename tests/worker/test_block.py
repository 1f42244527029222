"""Blocks: times without other processes' on one core, orders, and the datum of a block."""

import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from bench.cells import Arm
from bench.samples import Sample
from bench.worker import block, settings
from bench.worker.arms import Arms
from bench.worker.block import SCALES, WARMING_CALLS, Call, TimedBlock, Turn, make_sample
from bench.worker.protocol import TimeBlock
from bench.worker.token import Token

ARMS = [Arm("pure_jax", "pure"), Arm("control", "pure"), Arm("haiku", "pure")]
QUIET, INTERRUPTED = Call(1.0, 0.002), Call(1.6, 0.502)
"""Seconds and idle ones of calls; in the second, somebody else had the core for half a second."""


@pytest.mark.parametrize(
    ("cores", "calls", "seconds"),
    [
        pytest.param([0], [QUIET, INTERRUPTED], [1.0, 1.1], id="interrupted"),
        pytest.param([0], [Call(1.5, 0.5)] * 2, [1.5] * 2, id="a step that sleeps in each call"),
        pytest.param([0], [Call(1.0, -0.01)] * 2, [1.0] * 2, id="several threads"),
        pytest.param([0, 1], [INTERRUPTED, QUIET], [1.6, 1.0], id="two cores"),
        pytest.param(None, [INTERRUPTED, QUIET], [1.6, 1.0], id="unknown cores"),
    ],
)
def test_time_that_others_had_the_core_is_not_counted(
    cores: list[int] | None,
    calls: list[Call],
    seconds: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "affinity", lambda: cores)
    assert block.seconds_of(calls) == pytest.approx(seconds)


class Step:
    """A step whose calls take given seconds by a clock of its own."""

    def __init__(self, seconds: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, cycle(seconds)
        monkeypatch.setattr(block, "CLOCK", lambda: self.now)
        monkeypatch.setattr(block, "CPU_CLOCK", lambda: self.now)
        monkeypatch.setattr(block, "WAIT", lambda result: result)

    def __call__(self, hidden: Any, _chunk: Any) -> Any:
        self.now += next(self.seconds)
        return hidden, 1.0

    def begin(self, kind: str) -> Turn:
        arms: Any = Mock(steps={ARMS[0]: self}, skipped_metrics=())
        turn = Turn(kind, arms, ARMS[0], Mock(), scale=1.0)
        self.now = 0.0
        return turn


@pytest.mark.parametrize(("kind", "calls"), [("step", 3), ("pipelined", 51), ("host_cost", 21)])
def test_a_call_in_a_row_takes_as_long_as_one_that_is_waited_for(
    kind: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step([2.0], monkeypatch)
    turn = step.begin(kind)
    assert {call.seconds for several in turn().values() for call in several} == {2.0}
    assert (turn.calls - WARMING_CALLS) * 2.0 == step.now == calls * 2.0, "all calls are counted"


@pytest.mark.parametrize(("ready", "least"), [(True, 1.0), (False, 2.0)])
def test_calls_that_leave_work_in_flight_stand_for_each_other(
    ready: bool, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step that keeps its state to itself; the mean of 1 and 3 seconds is 2."""
    step: Any = Step([3.0, 1.0], monkeypatch)
    step.is_in_flight = False
    array = SimpleNamespace(is_ready=lambda: ready)
    monkeypatch.setattr(block, "list_live_arrays", lambda _: [array])
    [calls] = step.begin("step")().values()
    assert len(calls) == 2
    assert min(call.seconds for call in calls) == least


def take_turns(workload: str, rounds: int, mark: Any, token: Token | None = None) -> TimedBlock:
    """Take turns that take no time."""
    command = TimeBlock(workload, "cpu", "step", [*map(str, ARMS)], rounds, seed=1)
    timed = TimedBlock(Mock(), command, mark, lambda: 0, str, token)
    timed.interleave(lambda: dict.fromkeys(ARMS, lambda: {"step": [Call(1.0, 0.0)]}))
    return timed


def test_rounds_have_other_orders_and_every_second_one_reverses_the_one_before() -> None:
    seen: list[Arm | None] = []
    timed = take_turns("toy", 23, seen.append)
    orders = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert len(orders) == 24
    assert all(set(order) == set(ARMS) for order in orders)
    assert {order[0] for order in orders[::2]} == set(ARMS)
    assert [order[::-1] for order in orders[::2]] == orders[1::2]
    assert all(len(timed.calls[arm]["step"]) == 23 for arm in ARMS), "the first is not timed"


def test_two_workers_take_the_turns_of_an_arm_one_after_the_other() -> None:
    """Both sides are as often first; the arms that one has are those of the other one."""
    ends, seen = socket.socketpair(), list[tuple[int, Arm]]()

    def work(place: int) -> None:
        mark = lambda arm: seen.append((place, arm)) if arm else None  # noqa: E731
        take_turns("seed", 40, mark, Token(place, ends[place]))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, place) for place in (0, 1)]:
            done.result(timeout=20)
    turns = [seen[i : i + 2] for i in range(0, len(seen), 2)]
    assert len(turns) == 40 * len(ARMS)
    assert all({place for place, _ in turn} == {0, 1} for turn in turns)
    assert all(len({arm for _, arm in turn}) == 1 for turn in turns)
    for arm in ARMS:
        first = [turn[0][0] for turn in turns if turn[0][1] == arm]
        assert first.count(0) == 20, "every second round reverses the one before"
    for end in ends:
        end.close()


def test_what_an_arm_does_before_its_turn_is_not_the_next_ones_fault() -> None:
    changes = iter(["", "left running: sleep (1)", "", ""])
    command = TimeBlock("toy", "cpu", "step", [], 1, seed=1)
    timed = TimedBlock(Mock(), command, Mock(), lambda: 0, lambda: next(changes))
    first, second, third = ARMS
    assert [timed.attempt(arm, "before", lambda: 1) for arm in (first, second)] == [1, None]
    assert timed.failures == {second: "before it was timed it left running: sleep (1)"}
    timed.take(third, lambda: {"step": [Call(1.0, 0.0)]}, timed=True)
    assert timed.calls.keys() == {third}
    assert timed.failures.keys() == {second}


def test_slow_turns_do_not_move_the_datum_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the geometric mean of the fastest half of turns, each counted as its fastest call."""
    monkeypatch.setattr(settings, "affinity", lambda: [0, 1])
    quiet = [[Call(1.0, 0.0), Call(3.0, 0.0)], [Call(6.0, 0.0), Call(4.0, 0.0)]]
    slow = [[Call(9.0, 0.0), Call(8.0, 0.0)]]
    cell = ARMS[0].make_cell("seed", "cpu")
    before, after = (make_sample(cell, "step", quiet + slow * n) for n in (1, 2))
    assert before == Sample(cell, "step", 2.0, 6, 5.0, 8.75)
    assert (after.value, after.calls, after.median) == (2.0, 8, 7.0)


def test_each_block_starts_from_other_weights() -> None:
    """A step that keeps results by the content of its inputs finds none."""
    arms, loaded = Arms("toy", "cpu", donate=False), list[Any]()
    for scale in SCALES:
        step: Any = SimpleNamespace(load=loaded.append)
        arms.load(step, scale)
    first, second = (start.weights.readout.kernel for start in loaded)
    assert first.dtype == second.dtype == np.float32
    assert np.all(first != second)
    np.testing.assert_allclose(first / second, SCALES[0] / SCALES[1], rtol=1e-6)
