"""Exact counts of a training step: Python starts and calls, compilations, parameters.

They come out the same on every run of the same releases, so they are compared without statistics.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from common.contract import fresh_checkpoint
from common.equality import random_chunk, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType

    from common.contract import TrainStep
    from common.equality import Case

COMPILED = "/jax/core/compile/backend_compile_duration"
TOOL = "jax-bakeoff counts"
EVENTS = sys.monitoring.events
TOOL_IDS = range(6)
"""Those of `sys.monitoring` that anybody may use."""
UNCOUNTED = 3
"""Calls before the counted ones, which may still fill caches."""
COUNTED = 3
"""Calls that are counted, and have to agree."""
FIRST_CALLS = 3
"""Calls after which a step is warm: the second and third can still take another path."""
WARM_CALLS = 10
"""Calls, each with a chunk of its own, in which a warm step should compile nothing."""
COLLECT, ENABLE, DISABLE = gc.collect, gc.enable, gc.disable


class PythonCounts(NamedTuple):
    """What the interpreter did in one call."""

    starts: int
    """Functions of Python that were started (PY_START)."""
    calls: int
    """Calls that Python code made, of anything (CALL)."""


def exact(step: TrainStep, case: Case) -> dict[str, int | None]:
    """Return the counts of a step; what it held is gone afterwards.

    JAX's caches are cleared first: otherwise a program that something else has compiled, be it the
    step's own or one for a single operation, would not be counted. So every other step of this
    process compiles again when it is called next: do not call this between timed calls.

    Args:
        step: What `common.equality.make` returned, called before or not.
        case: The sizes, the step's own.

    Returns:
        `python_starts` and `python_calls` of a warm call, None where they are not the same every
        time; programs compiled in the first three calls (`compilations_first`) and in ten further
        ones (`compilations_warm`: a step that traces again each time has ten).
    """
    chunks = [random_chunk(case, seed) for seed in range(FIRST_CALLS + WARM_CALLS)]
    hidden = random_hidden(case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    jax.clear_caches()
    programs = compilations()
    for chunk in chunks[:FIRST_CALLS]:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
    first = programs()
    for chunk in chunks[FIRST_CALLS:]:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
    warm = programs() - first
    counts = None if warm else python_counts(partial(step, hidden, chunks[0]))
    return {
        "python_starts": counts and counts.starts,
        "python_calls": counts and counts.calls,
        "compilations_first": first,
        "compilations_warm": warm,
    }


def python_counts(call: Callable[[], Any]) -> PythonCounts | None:
    """Return what the interpreter does in one call of `call`, in this thread.

    None where that is not the same in each of several calls.

    Waiting for the result is not counted, nor is the call of `call` itself; bind arguments with
    `functools.partial`, which adds nothing. Of a TrainStep, its `__call__` is counted: one start
    and the one call that it makes, the same for everybody. The rest is the library's and JAX's: for
    plain JAX the start and the call inside of each NamedTuple of optax that JAX builds.

    The garbage collector is off meanwhile, for JAX has it call Python. Some libraries' caches
    compare the shardings of arrays, equal ones that are not the same object with a call more: so
    some starts depend on which arrays the process has used before. Compare counts that `exact`
    returns, which starts from cleared caches.

    Raises:
        BakeoffError: other tools have taken every id of `sys.monitoring`.
    """
    found = _counted(call, EVENTS.PY_START, EVENTS.CALL)
    return None if found is None else PythonCounts(*found)


def _counted(call: Callable[[], Any], *events: int) -> tuple[int, ...] | None:
    """Return how often each event happens in a call; None unless several calls agree."""
    for _ in range(UNCOUNTED):
        jax.block_until_ready(call())
    with collector_off(), tool_id() as tool:
        counts = [_count(call, tool, events) for _ in range(COUNTED)]
    return counts[0] if len(set(counts)) == 1 else None


def _count(call: Callable[[], Any], tool: int, events: Sequence[int]) -> tuple[int, ...]:
    counts = dict.fromkeys(events, 0)
    here, ours = threading.get_ident(), _count.__code__

    def happened(event: int, code: CodeType, *_: object) -> None:
        counts[event] += code is not ours and threading.get_ident() == here

    monitoring = sys.monitoring
    for event in events:
        monitoring.register_callback(tool, event, partial(happened, event))
    try:
        monitoring.set_events(tool, sum(events))
        result = call()
    finally:
        monitoring.set_events(tool, EVENTS.NO_EVENTS)
        for event in events:
            monitoring.register_callback(tool, event, None)
    jax.block_until_ready(result)
    return tuple(counts.values())


@contextmanager
def tool_id() -> Iterator[int]:
    """Hold a free id of `sys.monitoring`; raise BakeoffError where there is none."""
    free = [tool for tool in TOOL_IDS if sys.monitoring.get_tool(tool) is None]
    if not free:
        raise BakeoffError(
            "every tool id of sys.monitoring is taken: count what Python does without a debugger, "
            "a profiler or a coverage tool"
        )
    tool = free[-1]  # debuggers and profilers ask for the first ones by their numbers
    sys.monitoring.use_tool_id(tool, TOOL)
    try:
        yield tool
    finally:
        sys.monitoring.free_tool_id(tool)


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect garbage, keep the collector out of what is timed or counted, and restore it."""
    was_on = gc.isenabled()
    COLLECT()
    DISABLE()
    try:
        yield
    finally:
        if was_on:
            ENABLE()


def compilations() -> Callable[[], int]:
    """Return what tells how many programs this process has compiled since then.

    A program that is read from the persistent compilation cache counts as well. One is compiled
    here, to know that it would be heard: no other zero can be trusted.

    Raises:
        RuntimeError: this JAX does not tell when it compiles.
    """
    for _ in range(2):
        before = LISTENER.heard
        jax.block_until_ready(jax.jit(lambda: 0)())
        start = LISTENER.heard
        if start > before:
            return lambda: LISTENER.heard - start
        # The first time, or somebody has cleared all of JAX's listeners.
        jax.monitoring.register_event_duration_secs_listener(LISTENER)
    raise RuntimeError(
        f"jax {jax.__version__} does not say {COMPILED} when it compiles, so compilations cannot "
        "be counted; is jit disabled?"
    )


class _Listener:
    """Counts the programs that JAX says it has compiled."""

    heard = 0

    def __call__(self, event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        self.heard += event == COMPILED


LISTENER = _Listener()
"""The only one: not every release of JAX can unregister it."""
