"""Seconds that calls take beside a step's own work: garbage collection, and JAX's dispatch."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOCK = time.perf_counter
COLLECT, ENABLE, DISABLE = gc.collect, gc.enable, gc.disable
UNTIMED_CALLS = 3
"""Calls before the timed ones, which may still fill caches."""
EMPTY_CALLS = 200
"""Timed calls of an empty program."""
QUIET_QUANTILE = 0.1
"""Quantile of their times that stands for a quiet machine."""
COLLECTED_CALLS = 1000
"""Maximum number of calls in which garbage collections are timed."""
COLLECTED_SECONDS = 1.0
"""Maximum duration of these calls for each style, in seconds: slower steps have fewer calls."""


@contextmanager
def disable_collector() -> Iterator[None]:
    """Collect garbage, turn the collector off inside, and restore it."""
    was_on = gc.isenabled()
    COLLECT()
    DISABLE()
    try:
        yield
    finally:
        if was_on:
            ENABLE()


def measure_collections(call: Callable[[], Any]) -> dict[str, float]:
    """Return the garbage collector's pauses while a step is called in a loop, as in training.

    Frozen objects are unfrozen before, as in a process of the user's own. A pause includes JAX's
    own callbacks.

    Returns:
        `gc_pauses` in a thousand calls; `gc_longest`, in seconds; `gc_share` of the time.
    """
    begun, pauses = 0.0, []

    def begin(phase: str, _: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = CLOCK()

    def end(phase: str, _: object) -> None:
        if phase == "stop":
            pauses.append(CLOCK() - begun)

    gc.unfreeze()
    COLLECT()
    for _ in range(UNTIMED_CALLS):
        jax.block_until_ready(call())
    gc.callbacks.insert(0, begin)  # before JAX's, and after them
    gc.callbacks.append(end)
    start, calls = CLOCK(), 0
    try:
        while calls < COLLECTED_CALLS and CLOCK() - start < COLLECTED_SECONDS:
            jax.block_until_ready(call())
            calls += 1
    finally:
        gc.callbacks.remove(begin)
        gc.callbacks.remove(end)
    return {
        "gc_pauses": 1000 * len(pauses) / calls,
        "gc_longest": max(pauses, default=0.0),
        "gc_share": sum(pauses) / (CLOCK() - start),
    }


def measure_dispatch(state: int, data: int) -> float:
    """Return the seconds that `jax.jit` takes to call a program with nothing to compute.

    It takes so many arrays of a state and so many of data, and returns the state; all are empty.
    """
    empty = [[jax.numpy.zeros(0, np.float32) for _ in range(count)] for count in (state, data)]
    call, taken = jax.jit(copy_state), []
    with disable_collector():
        for _ in range(UNTIMED_CALLS + EMPTY_CALLS):
            start = CLOCK()
            jax.block_until_ready(call(*empty))
            taken.append(CLOCK() - start)
    return float(np.quantile(taken[UNTIMED_CALLS:], QUIET_QUANTILE))


def copy_state(state: list[jax.Array], _data: list[jax.Array]) -> list[jax.Array]:
    """Return new arrays with the numbers of `state`; an identity's would be handed back by JAX."""
    return [array + 0 for array in state]
