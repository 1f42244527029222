"""What the calls of a block took: on one core, without what other processes took of it."""

from __future__ import annotations

from typing import Any

import pytest

from bench.worker import block, turns
from bench.worker.turns import Call

QUIET = [Call(1.0 + 0.01 * number, 0.002) for number in range(10)]


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
    samples = turns.HostCostTurn(step, (), None)()  # type: ignore[arg-type]
    assert {metric: {call.seconds for call in calls} for metric, calls in samples.items()} == {
        "host_cost": {2.0},
        "host_cost_pipelined": {2.0},
    }
    [call] = turns.PipelinedTurn(step, (), None)()["step_pipelined"]  # type: ignore[arg-type]
    assert call.seconds == 2.0
