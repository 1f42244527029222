"""Turns that trace, lower and compile: what they time, and that each has a step of its own."""

import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bench.cells import Arm
from bench.metrics import METRICS, STAGES
from bench.worker import stages as worker_stages
from bench.worker.protocol import Load, TimeBlock
from bench.worker.session import use_cache
from bench.worker.stages import StagesBlock
from common.contract import Program
from tests.worker.test_worker import PLAIN, Child, samples

FILTERED = "equinox/filter_jit"
ARMS = [PLAIN, "control/pure", FILTERED]
TIMED = [name for name, metric in METRICS.items() if metric.turn == STAGES]


def test_a_block_of_stages(tmp_path: Path) -> None:
    """Of two rounds."""
    with Child() as child:
        loaded = child.ask(Load(ARMS, seed=0, cache=str(tmp_path)))
        assert loaded == {"failures": {}, "spoiled": False}
        answer = child.block(ARMS, STAGES)
        assert child.recorder.read_arm() is None
    assert answer["failures"] == {}
    table = samples(answer)
    assert [*table] == TIMED == ["trace", "lower", "compile"]
    for by_arm in table.values():
        assert {*by_arm} == {*ARMS}
        assert all(calls == 2 and value > 0 for value, calls, *_ in by_arm.values())


INNER: list[int] = []
"""Grows each time that JAX traces what all steps share."""


@jax.jit
def shared(x: jax.Array) -> jax.Array:
    INNER.append(1)
    return x + 1


class Step:
    """A step whose trace counts itself."""

    def __init__(self, traced: list[int]) -> None:
        self.traced = traced

    def program(self, *_: Any) -> Program:
        def function(x: jax.Array) -> jax.Array:
            self.traced.append(1)
            return shared(x)

        ours = jax.jit(function)
        return Program.from_trace(lambda: ours.trace(jnp.zeros(2)))


GOOD, LIKE_IT, BROKEN = (Arm("made", name) for name in ("a", "b", "broken"))


def block_of_made_steps(rounds: int, programs: dict[str, str] | None = None) -> Any:
    """Return a block of arms, one of which cannot be made, and what its steps were seen to do."""
    made, traced, alive = list[weakref.ref[Step]](), list[int](), list[int]()

    def make(arm: Arm) -> Step:
        if arm == BROKEN:
            raise OSError("no such planet")
        alive.append(sum(step() is not None for step in made))
        step = Step(traced)
        made.append(weakref.ref(step))
        return step

    arms = Mock(make=make, backend="cpu", chunks=[()])
    arms.load = lambda *_: None  # a mock would keep the steps
    arms.case.zero = arms.case.data = tuple
    arms.find_cell = lambda arm: arm.make_cell("toy", "cpu")
    names = [*map(str, (GOOD, LIKE_IT, BROKEN))]
    command = TimeBlock("toy", "cpu", STAGES, names, rounds, seed=1, programs=programs or {})
    answer = StagesBlock(arms, command, lambda _: None, int, str).run()
    return SimpleNamespace(answer=answer, traced=traced, alive=alive)


def test_a_program_that_is_read_from_a_cache_has_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_stages, "disable_cache", nullcontext)
    names = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
    before = {name: getattr(jax.config, name) for name in names}
    try:
        use_cache(str(tmp_path))
        answer = block_of_made_steps(rounds=2).answer
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert answer.samples == []
    assert "the persistent compilation cache was used" in answer.failures[str(GOOD)]


def test_each_turn_traces_a_step_of_its_own_and_drops_it() -> None:
    """An arm that cannot be made costs its own times alone."""
    before = len(INNER)
    block = block_of_made_steps(rounds=4)
    assert len(block.traced) == len(INNER) - before == 2 * 4, "nothing is kept of other turns"
    assert max(block.alive) <= 1, "no step outlives the next turn"
    calls = {(str(sample.cell.arm), sample.calls) for sample in block.answer.samples}
    assert calls == {(str(GOOD), 4), (str(LIKE_IT), 4)}
    why = "raised OSError: no such planet (while it was timed)"
    assert block.answer.failures == {str(BROKEN): why}


def test_arms_of_one_program_compile_it_once_in_a_round() -> None:
    block = block_of_made_steps(3, {str(GOOD): "one", str(LIKE_IT): "one"})
    calls = {(str(s.cell.arm), s.metric): s.calls for s in block.answer.samples}
    both = str(GOOD), str(LIKE_IT)
    assert [calls[arm, "trace"] for arm in both] == [3, 3]
    assert sum(calls.get((arm, "compile"), 0) for arm in both) == 3
    apart = block_of_made_steps(3, {str(GOOD): "one", str(LIKE_IT): "another"})
    assert {(str(s.cell.arm), s.calls) for s in apart.answer.samples} == {(arm, 3) for arm in both}


@pytest.mark.parametrize("pinned", [False, True])
def test_what_a_library_cannot_trace_apart_is_told_by_jax_events(
    pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Program.from_trace
    monkeypatch.setattr(worker_stages, "has_one_core", lambda: pinned)
    monkeypatch.setattr(Program, "from_trace", lambda trace: whole(trace)._replace(trace=None))
    samples = block_of_made_steps(rounds=2).answer.samples
    assert {s.metric for s in samples if s.cell.arm == GOOD} == {*TIMED}
    assert all(sample.value > 0 for sample in samples)
