"""Blocks: times without other processes' on one core, orders, and the datum of a block."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cells import Arm
from bench.worker import block, turns
from bench.worker.block import TimedBlock, sample_of
from bench.worker.turns import Call

QUIET = [Call(1.0 + 0.01 * number, 0.002) for number in range(10)]
ARMS = [Arm("pure_jax", "pure"), Arm("control", "pure"), Arm("haiku", "pure")]


@pytest.mark.parametrize(
    ("cores", "calls", "seconds"),
    [
        ([0], QUIET, [call.seconds for call in QUIET]),
        # Twice, somebody else had the core for 0.5 s.
        (
            [0],
            [*QUIET[:8], Call(1.6, 0.502), Call(1.6, 0.502)],
            [*(c.seconds for c in QUIET[:8]), 1.1, 1.1],
        ),
        # A step that sleeps in each call is that slow.
        ([0], [Call(1.5, 0.5)] * 10, [1.5] * 10),
        # Several threads use more processor time than wall time.
        ([0], [Call(1.0, -0.01)] * 10, [1.0] * 10),
        ([0, 1], [Call(1.6, 0.502), Call(1.0, 0.002)], [1.6, 1.0]),
        (None, [Call(1.6, 0.502), Call(1.0, 0.002)], [1.6, 1.0]),
    ],
    ids=["alone", "interrupted", "sleeps", "all used", "two cores", "unknown cores"],
)
def test_time_that_others_had_the_core_is_not_counted(
    cores: list[int] | None,
    calls: list[Call],
    seconds: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block, "affinity", lambda: cores)
    assert block.seconds_of(calls) == pytest.approx(seconds)


def test_a_call_in_a_row_takes_as_long_as_one_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def step(hidden: Any, _chunk: Any) -> Any:
        nonlocal now
        now += 2.0
        return hidden, 1.0

    monkeypatch.setattr(turns, "CLOCK", lambda: now)
    monkeypatch.setattr(turns, "CPU_CLOCK", lambda: now)
    calls = turns.HostCostTurn(step, (), None)()  # type: ignore[arg-type]
    assert {metric: {call.seconds for call in several} for metric, several in calls.items()} == {
        "host_cost": {2.0},
        "host_cost_pipelined": {2.0},
    }
    turn = turns.PipelinedTurn(step, (), None)  # type: ignore[arg-type]
    [call] = turn()["step_pipelined"]
    assert call.seconds == 2.0
    assert turn.calls * 2.0 == now - 2.0 * 21, "all calls are counted"


def test_every_round_has_another_order() -> None:
    seen: list[Arm] = []
    timed = TimedBlock(seen.append, compiled=lambda: 0, changes=str, seed=1)
    calls = dict.fromkeys(ARMS, lambda: {"step": [Call(1.0, 0.0)]})  # they take no time
    timed.interleave(calls, rounds=12, untimed=1)
    orders = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert all(set(order) == set(ARMS) for order in orders)
    assert len(orders) == 13
    assert len(set(orders)) > 3
    assert {order[0] for order in orders} == set(ARMS)
    assert all(len(timed.calls[arm]["step"]) == 12 for arm in ARMS)


def test_slow_calls_do_not_move_the_datum_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "affinity", lambda: [0, 1])
    quiet = [Call(1.0 + 0.001 * number, 0.0) for number in range(41)]
    disturbed = quiet[:20] + [Call(9.0, 0.0)] * 21
    before, after = (sample_of(ARMS[0], "step", calls) for calls in (quiet, disturbed))
    assert before == ("pure_jax/pure", "step", 1.004, 41, 1.02, 1.038)
    assert (after.value, after.median, after.p95) == (1.004, 9.0, 9.0)


def test_an_arm_that_fails_takes_no_further_turns() -> None:
    """One that raises, changes what it may not, or compiles while it is timed."""
    compiled, changed = 0, ""
    taken = dict.fromkeys(ARMS, 0)

    def raises() -> Any:
        taken[ARMS[0]] += 1
        raise OSError("no such planet")

    def compiles() -> Any:
        nonlocal compiled
        taken[ARMS[1]] += 1
        compiled += 1
        return {"step": [Call(1.0, 0.0)]}

    def meddles() -> Any:
        nonlocal changed
        taken[ARMS[2]] += 1
        changed = "replaced time.time" if taken[ARMS[2]] == 3 else ""
        return {"step": [Call(1.0, 0.0)]}

    def changes() -> str:
        nonlocal changed
        now, changed = changed, ""
        return now

    timed = TimedBlock(lambda _: None, compiled=lambda: compiled, changes=changes, seed=0)
    timed.interleave(dict(zip(ARMS, (raises, compiles, meddles), strict=True)), 5, untimed=1)
    assert timed.failures == {
        ARMS[0]: "raised OSError: no such planet (while it was timed)",
        ARMS[1]: "compiled again while it was timed",
        ARMS[2]: "while it was timed it replaced time.time",
    }
    assert [*taken.values()] == [1, 2, 3], "the first round of a block may compile"
