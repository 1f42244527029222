"""Exact counts: what the interpreter starts and calls, and what JAX compiles."""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench.worker import counts
from bench.worker.counts import (
    PythonCounts,
    compilations,
    exact,
    python_counts,
    tool_id,
)
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, make, random_chunk, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

TOY = Case(ModelConfig(5, 8), 8, 1)
MONITORING = sys.monitoring


def inner() -> None:
    abs(-1)


def outer() -> None:
    inner()
    inner()
    abs(-1)


class BoomError(Exception):
    pass


def tools() -> list[str | None]:
    return [MONITORING.get_tool(tool) for tool in counts.TOOL_IDS]


# Python starts and calls.


def test_starts_and_calls_by_hand() -> None:
    starts = len(["outer", "inner", "inner"])
    calls = len(["inner", "abs", "inner", "abs", "abs"])
    assert python_counts(outer) == PythonCounts(starts, calls)


def test_nothing_of_our_own_is_counted() -> None:
    assert python_counts(partial(abs, -1)) == PythonCounts(starts=0, calls=0)
    assert python_counts(lambda: None) == PythonCounts(starts=1, calls=0)


def test_a_generator_starts_once() -> None:
    def function() -> None:
        for _ in (i for i in "abc"):
            pass

    counted = python_counts(function)
    assert counted is not None
    assert counted.starts == len(["function", "generator"])


def test_other_threads_are_not_counted() -> None:
    asked, answered = threading.Lock(), threading.Lock()
    asked.acquire()
    answered.acquire()
    answers: list[int] = []

    def answer() -> None:
        for _ in range(counts.UNCOUNTED + counts.COUNTED):
            asked.acquire()
            outer()
            answers.append(threading.get_ident())
            answered.release()

    def ask() -> None:
        asked.release()
        answered.acquire()

    thread = threading.Thread(target=answer)
    thread.start()
    counted = python_counts(ask)
    thread.join()
    assert counted == PythonCounts(starts=1, calls=2)
    assert threading.get_ident() not in answers
    assert len(answers) == counts.UNCOUNTED + counts.COUNTED


@pytest.mark.parametrize("on", [True, False])
def test_everything_is_restored(on: bool, request: pytest.FixtureRequest) -> None:
    """Also after an exception: the first calls are not counted, so it has to fail late."""
    request.addfinalizer(gc.enable if gc.isenabled() else gc.disable)
    (gc.enable if on else gc.disable)()
    calls: list[bool] = []

    def fails_late() -> None:
        calls.append(gc.isenabled())
        if len(calls) > counts.UNCOUNTED:
            raise BoomError

    before = tools()
    python_counts(outer)
    assert gc.isenabled() == on
    with pytest.raises(BoomError):
        python_counts(fails_late)
    assert not calls[-1]
    assert gc.isenabled() == on
    assert tools() == before
    events = [MONITORING.events.PY_START, MONITORING.events.CALL]
    with tool_id() as tool:
        assert MONITORING.get_events(tool) == MONITORING.events.NO_EVENTS
        assert [MONITORING.register_callback(tool, event, None) for event in events] == [None, None]


def test_no_free_tool_id() -> None:
    with ExitStack() as stack:
        for _ in range(tools().count(None)):
            stack.enter_context(tool_id())
        with pytest.raises(BakeoffError, match=r"every tool id of sys.monitoring is taken"):
            python_counts(outer)


def test_another_tool_stays_and_changes_nothing() -> None:
    events, seen = MONITORING.events, 0

    def happened(*_: object) -> None:
        nonlocal seen
        seen += 1

    alone = python_counts(outer)
    with tool_id() as other:
        MONITORING.register_callback(other, events.PY_START, happened)
        MONITORING.set_events(other, events.PY_START)
        beside = python_counts(outer)
        kept = MONITORING.get_events(other)
        MONITORING.set_events(other, events.NO_EVENTS)
        MONITORING.register_callback(other, events.PY_START, None)
    assert beside == alone
    assert kept == events.PY_START
    assert alone is not None
    assert seen > alone.starts


# Compilations.


def test_compilations_by_hand() -> None:
    x = np.ones(3, np.float32)
    jitted, programs = jax.jit(lambda x: x + 1), compilations()
    assert programs() == 0
    jitted(x)
    jitted(x)
    assert programs() == len(["three"])
    jitted(np.ones(4, np.float32))
    assert programs() == len(["three", "four"])


def test_a_listener_that_was_cleared_away_is_back() -> None:
    compilations()
    jax.monitoring.unregister_event_duration_listener(counts.LISTENER)
    after = compilations()
    jax.jit(lambda: 1)()
    assert after() == 1


def test_a_jax_that_does_not_say_when_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "COMPILED", "/no/such/event")
    with pytest.raises(RuntimeError, match="does not say /no/such/event when it compiles"):
        compilations()
    jax.monitoring.unregister_event_duration_listener(counts.LISTENER)
    jax.monitoring.unregister_event_duration_listener(counts.LISTENER)


# Of styles.


def test_plain_jax_starts_next_to_nothing(step_of: StepOf) -> None:
    """Optax's state has three NamedTuples, each made by a lambda and a call of tuple's."""
    step = step_of(impls.BASELINE, "pure", TOY)
    step.load(fresh_checkpoint(random_weights(TOY.model)))
    counted = python_counts(partial(step, random_hidden(TOY), random_chunk(TOY, 1)))
    assert counted is not None
    assert counted.starts == counted.calls < 10


STYLES = {
    ("pure_jax", "pure"): (1, 1),
    ("equinox", "filter_jit"): (100, 1),
    ("flax_linen", "blog"): (1000, 20),
}
"""Least Python starts and compilations."""


@pytest.mark.parametrize(("entrant", "style"), STYLES, ids=map("-".join, STYLES))
def test_exact(entrant: str, style: str, step_of: StepOf) -> None:
    starts, programs = STYLES[entrant, style]
    step = step_of(entrant, style, TOY)
    counted = exact(step, TOY)
    assert entrant != "equinox" or counted == exact(step, TOY)
    assert (counted["python_starts"] or 0) >= starts
    assert (counted["python_calls"] or 0) >= starts
    assert (counted["compilations_first"] or 0) >= programs
    assert counted["compilations_warm"] == 0


@pytest.mark.slow
def test_exact_whatever_came_before(step_of: StepOf) -> None:
    """Also not what else has compiled, and which arrays it has used."""
    style = impls.load("flax_nnx").style("cached_partial")
    before = exact(make(style, TOY), TOY)
    step = step_of("flax_nnx", "cached_partial", TOY)
    step.load(fresh_checkpoint(random_weights(TOY.model)))
    hidden, chunk = random_hidden(TOY), random_chunk(TOY, 1)
    program = step.program(hidden, chunk)
    assert program is not None
    program.lower().compile()
    step(hidden, chunk)
    assert exact(step, TOY) == before


def test_what_is_not_the_same_every_time_is_reported(step_of: StepOf) -> None:
    class Wrapped:
        """Hidden state and chunk as they are; each call does something else."""

        def __init__(self, step: TrainStep, call: Callable[..., Any]) -> None:
            self.load, self.save, self.program = step.load, step.save, step.program
            self.call = call

        def __call__(self, hidden: Any, chunk: Any) -> Any:
            return self.call(hidden, jnp.float32(0))

    done: list[int] = []

    def more_each_time(*values: Any) -> Any:
        done.append(0)
        for _ in done:
            inner()
        return values

    step = step_of(impls.BASELINE, "pure", TOY)
    counted = exact(Wrapped(step, more_each_time), TOY)
    assert (counted["python_starts"], counted["python_calls"]) == (None, None)
    assert counted["compilations_warm"] == 0
    retracing = Wrapped(step, lambda *values: jax.jit(lambda *v: v)(*values))
    counted = exact(retracing, TOY)
    assert (counted["python_starts"], counted["python_calls"]) == (None, None)
    assert (counted["compilations_first"] or 0) >= counts.FIRST_CALLS
    assert counted["compilations_warm"] == counts.WARM_CALLS
