"""Exact counts of a training step and its file, and overheads of its calls.

Counts come out the same on every run: so the same releases have the same ones, and they are
compared without statistics. Overheads are seconds that calls take beside a step's own work: garbage
collection, and JAX's dispatch.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import tokenize
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.metrics import STARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import CodeType

    from common.contract import TrainStep

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
"""JAX's event of a compiled program, also of one that its persistent cache had."""
EVENT_COUNTS: Counter[str] = Counter()
"""Event of JAX → times that it was heard in this process."""
TOOL, TOOL_ID = "jax-bakeoff counts", 4
"""Name and id in `sys.monitoring`; no debugger, profiler or coverage tool asks for this id."""
EVENTS = sys.monitoring.events
CALLS, FLATTENING = "python_calls", "flattening_starts"
"""Metrics beside `STARTS`: calls that Python code makes, of anything; and starts of functions
within a function whose name contains `FLATTEN`, itself included."""
FLATTEN = "flatten"
"""Part of the names of functions that take trees apart or put them together, in JAX's libraries."""
FILLING_CALLS = 3
"""Calls before the counted or timed ones, which may still fill caches."""
COUNTED_CALLS = 3
"""Calls that are counted; their counts have to agree."""
FIRST_CALLS = 3
"""Number of calls after which a step is warm: the second and third can still take another path."""
WARM_CALLS = 10
"""Calls, each with a chunk of its own, in which a warm step should compile nothing."""
CLOCK, CPU_CLOCK = time.perf_counter, time.process_time
EMPTY_CALLS = 200
"""Timed calls of an empty program."""
QUIET_QUANTILE = 0.1
"""Quantile of their times that stands for a quiet machine."""
COLLECTED_CALLS = 1000
"""Maximum number of calls in which garbage collections are timed."""
COLLECTED_SECONDS = 1.0
"""Maximum duration of these calls for each style, in seconds: slower steps have fewer calls."""


def count_step(step: TrainStep, case: Any) -> dict[str, float | None]:
    """Return the counts of a step; its state is lost.

    JAX's caches are cleared first: otherwise a program that something else has compiled, be it the
    step's own or one for a single operation, would not be counted. So every other step of this
    process compiles again when it is called next: do not call this between timed calls.

    Returns:
        `python_starts`, `python_calls` and `flattening_starts` of a warm call, None where they are
        not the same every time; programs compiled in the first three calls (`compilations_first`)
        and in ten further ones (`compilations_warm`: a step that traces again each time has ten).
    """
    chunks = [case.data(seed) for seed in range(FIRST_CALLS + WARM_CALLS)]
    hidden = case.hidden()
    step.load(case.fresh())
    jax.clear_caches()
    programs, compiled = watch_compilations(), []
    for chunk in chunks:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
        compiled.append(programs())
    first = compiled[FIRST_CALLS - 1]
    warm = compiled[-1] - first
    call = partial(step, hidden, chunks[0])
    of_python = dict.fromkeys((STARTS, CALLS, FLATTENING)) if warm else count_python(call)
    return {"compilations_first": first, "compilations_warm": warm, **of_python}


def count_python(call: Callable[[], Any]) -> dict[str, float | None]:
    """Return counts of what the interpreter does in one call of `call`, in this thread.

    All are None where several calls have different counts.

    Waiting for the result is not counted, nor is the call of `call` itself; bind arguments with
    `functools.partial`, which adds nothing. A TrainStep's `__call__` is counted: one start
    and the one call that it makes, the same for everybody. The rest is the library's and JAX's: for
    plain JAX the start and the call inside of each NamedTuple of optax that JAX builds.

    The garbage collector is off meanwhile, for JAX has it call Python. Some libraries' caches
    compare the shardings of arrays, equal ones that are not the same object with a call more: so
    some starts depend on which arrays the process has used before. Compare counts that `count_step`
    returns, which starts from cleared caches.
    """
    for _ in range(FILLING_CALLS):
        jax.block_until_ready(call())
    sys.monitoring.use_tool_id(TOOL_ID, TOOL)
    try:
        with disable_collector():
            counts = [count_events(call) for _ in range(COUNTED_CALLS)]
    finally:
        sys.monitoring.free_tool_id(TOOL_ID)
    same = counts.count(counts[0]) == COUNTED_CALLS
    return {name: counts[0][name] if same else None for name in (STARTS, CALLS, FLATTENING)}


def count_events(call: Callable[[], Any]) -> Counter[str]:
    """Return the counts of one call of `call`, by metric; `TOOL_ID` has to be in use."""
    counts, depth = Counter[str](), 0  # depth: flattening functions that are running
    here, ours, monitoring = threading.get_ident(), count_events.__code__, sys.monitoring

    def is_counted(code: CodeType) -> bool:
        return code is not ours and threading.get_ident() == here

    def start_function(code: CodeType, *_: object) -> None:
        nonlocal depth
        if is_counted(code):
            depth += FLATTEN in code.co_name
            counts[STARTS] += 1
            counts[FLATTENING] += depth > 0

    def leave_function(code: CodeType, *_: object) -> None:
        nonlocal depth
        depth -= FLATTEN in code.co_name and is_counted(code)

    def call_anything(code: CodeType, *_: object) -> None:
        counts[CALLS] += is_counted(code)

    handlers: dict[int, Callable[..., None]] = {
        EVENTS.PY_START: start_function,
        EVENTS.PY_RETURN: leave_function,
        EVENTS.PY_UNWIND: leave_function,
        EVENTS.CALL: call_anything,
    }
    for event, handler in handlers.items():
        monitoring.register_callback(TOOL_ID, event, handler)
    try:
        monitoring.set_events(TOOL_ID, sum(handlers))
        result = call()
    finally:
        monitoring.set_events(TOOL_ID, EVENTS.NO_EVENTS)
        for event in handlers:
            monitoring.register_callback(TOOL_ID, event, None)
    jax.block_until_ready(result)
    return counts


def watch_compilations() -> Callable[[], int]:
    """Return a function that tells how many programs this process has compiled since now.

    A program that is read from the persistent compilation cache counts as well. One is compiled
    here, to check that JAX reports it: a zero could not be trusted otherwise.

    Raises:
        RuntimeError: this JAX does not tell when it compiles.
    """
    for _ in range(2):
        before = EVENT_COUNTS[COMPILE_EVENT]
        jax.block_until_ready(jax.jit(lambda: 0)())
        start = EVENT_COUNTS[COMPILE_EVENT]
        if start > before:
            return lambda: EVENT_COUNTS[COMPILE_EVENT] - start
        # The first time, or somebody has cleared all of JAX's listeners.
        jax.monitoring.register_event_duration_secs_listener(hear_event)
    raise RuntimeError(
        f"jax {jax.__version__} does not say {COMPILE_EVENT} when it compiles, so compilations "
        "cannot be counted; is jit disabled?"
    )


def hear_event(event: str, duration_secs: float, **_: str | int) -> None:  # noqa: ARG001
    """Count an event of JAX; the only listener, since not every release can unregister it."""
    EVENT_COUNTS[event] += 1


def list_live_arrays(backend: str) -> list[jax.Array]:
    """Return the arrays of a backend that are alive."""
    return jax.live_arrays(backend.partition(":")[0])


def count_live_bytes(step: TrainStep, case: Any, before: list[jax.Array], backend: str) -> int:
    """Return the bytes of arrays that a step keeps alive between two of its calls.

    They hold parameters, Adam's moments and counts, and all copies of them. Arrays that were alive
    `before` the step was made, and a call's arguments and results, do not count. The step's state
    is lost.
    """
    step.load(case.fresh())
    arguments = case.hidden(), case.data()
    returned = jax.block_until_ready(step(*arguments))
    gc.collect()
    others = {id(array) for array in (*before, *jax.tree.leaves((arguments, returned)))}
    return sum(array.nbytes for array in list_live_arrays(backend) if id(array) not in others)


def count_code_lines(path: Path) -> int:
    """Count the lines of a Python file that hold code: no blank line, comment or docstring.

    Raises:
        OSError: the file cannot be read.
    """
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    with path.open(encoding="utf-8") as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.NEWLINE:
                if [part.type for part in statement] != [tokenize.STRING]:
                    lines.update(*(range(part.start[0], part.end[0] + 1) for part in statement))
                statement.clear()
            elif token.type != tokenize.COMMENT and token.string.strip():
                statement.append(token)
    return len(lines)


@contextmanager
def disable_collector() -> Iterator[None]:
    """Collect garbage, turn the collector off inside, and restore it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def measure_collections(call: Callable[[], Any]) -> dict[str, float]:
    """Return the garbage collector's pauses while a step is called in a loop, as in training.

    Frozen objects are unfrozen before, as in a process of the user's own. A pause includes JAX's
    own callbacks. Pauses are processor time, without that of other processes.

    Returns:
        `gc_pauses` in a thousand calls; `gc_longest`, in seconds; `gc_share` of the time.
    """
    begun, pauses = 0.0, []

    def begin(phase: str, _: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = CPU_CLOCK()

    def end(phase: str, _: object) -> None:
        if phase == "stop":
            pauses.append(CPU_CLOCK() - begun)

    gc.unfreeze()
    gc.collect()
    for _ in range(FILLING_CALLS):
        jax.block_until_ready(call())
    gc.callbacks.insert(0, begin)  # before JAX's, and after them
    gc.callbacks.append(end)
    start, cpu, calls = CLOCK(), CPU_CLOCK(), 0
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
        "gc_share": sum(pauses) / (CPU_CLOCK() - cpu),
    }


def measure_dispatch(state: int, data: int) -> float:
    """Return the seconds that `jax.jit` takes to call a program with nothing to compute.

    It takes so many arrays of a state and so many of data, and returns the state; all are empty.
    """
    empty = [[jax.numpy.zeros(0, np.float32) for _ in range(count)] for count in (state, data)]
    call, taken = jax.jit(copy_state), []
    with disable_collector():
        for _ in range(FILLING_CALLS + EMPTY_CALLS):
            start = CLOCK()
            jax.block_until_ready(call(*empty))
            taken.append(CLOCK() - start)
    return float(np.quantile(taken[FILLING_CALLS:], QUIET_QUANTILE))


def copy_state(state: list[jax.Array], _data: list[jax.Array]) -> list[jax.Array]:
    """Return new arrays with the numbers of `state`; an identity's would be handed back by JAX."""
    return [array + 0 for array in state]
