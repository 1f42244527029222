"""Turns that trace, lower and compile: what they time, and that each has a step of its own."""

import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

    case = SimpleNamespace(zero=tuple, data=tuple)
    about: dict[str, Any] = {"case": case, "backend": "cpu", "chunks": [()]}
    about["find_cell"] = lambda arm: arm.make_cell("toy", "cpu")
    nothing = {"load": lambda *_: None, "initialise": lambda _: None}
    arms: Any = SimpleNamespace(make=make, **about, **nothing)
    names, known = [*map(str, (GOOD, LIKE_IT, BROKEN))], programs or {}
    command = TimeBlock("toy", "cpu", STAGES, names, rounds, seed=1, programs=known)
    answer = StagesBlock(arms, command, lambda _: None, int, str).run()
    return SimpleNamespace(answer=answer, traced=traced, alive=alive)


def test_a_program_that_is_read_from_a_cache_has_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_stages, "disable_cache", nullcontext)
    before = jax.config.jax_enable_compilation_cache, jax.config.jax_compilation_cache_dir
    try:
        use_cache(str(tmp_path))
        answer = block_of_made_steps(rounds=2).answer
    finally:
        for name, value in zip(
            ("enable_compilation_cache", "compilation_cache_dir"), before, strict=True
        ):
            jax.config.update(f"jax_{name}", value)
        compilation_cache.reset_cache()
    assert answer.samples == []
    assert "the persistent compilation cache was used" in answer.failures[str(GOOD)]


def test_each_turn_traces_a_step_of_its_own_and_drops_it() -> None:
    before = len(INNER)
    block = block_of_made_steps(rounds=4)
    assert len(block.traced) == 2 * 4
    assert len(INNER) - before == 2 * 4, "nothing is kept of other turns"
    assert max(block.alive) <= 1, "no step outlives the next turn"
    assert {sample.calls for sample in block.answer.samples} == {4}


def test_an_arm_that_fails_costs_its_own_times() -> None:
    block = block_of_made_steps(rounds=2)
    assert {str(sample.cell.arm) for sample in block.answer.samples} == {str(GOOD), str(LIKE_IT)}
    [(arm, why)] = block.answer.failures.items()
    assert (arm, why) == (str(BROKEN), "raised OSError: no such planet (while it was timed)")


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
    monkeypatch.setattr(worker_stages, "has_one_core", lambda: pinned)
    whole = Program.from_trace

    def lowers_only(trace: Any) -> Program:
        return whole(trace)._replace(trace=None)

    monkeypatch.setattr(Program, "from_trace", lowers_only)
    samples = block_of_made_steps(rounds=2).answer.samples
    table = {(str(s.cell.arm), s.metric): s.value for s in samples}
    assert {metric for arm, metric in table if arm == str(GOOD)} == {*TIMED}
