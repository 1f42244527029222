"""What happens once in a process: import, init, trace, lower, compile, first step, memory.

Nothing of jax may be imported before `cold` is called, so this module imports the standard library
alone.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING

from bench.worker.integrity import Surroundings
from bench.worker.protocol import Cold, Sample

if TYPE_CHECKING:
    import jax

    from common.contract import Program

CLOCK = time.perf_counter
"""Bound before an entrant is imported."""


def cold(
    entrant: str,
    style: str,
    workload: str,
    backend: str,
    outside: dict[str, str],
    donate: bool = False,
) -> Cold:
    """Return the seconds of each stage, and the bytes of the process's largest resident set.

    Raises:
        RuntimeError: jax was imported before, the persistent compilation cache was used, or the
            entrant has changed what measuring relies on.
    """
    if "jax" in sys.modules:
        raise RuntimeError("jax was imported before its import was to be timed")
    before, clock = Surroundings(), CLOCK
    impls = importlib.import_module("impls")
    for path in outside.values():
        impls.add(path)
    start = clock()
    loaded = impls.load(entrant)
    seconds: dict[str, float] = {"import": clock() - start}

    import jax

    from bench.worker.program import fingerprint
    from bench.worker.workloads import load_workload, use
    from common.contract import fresh_checkpoint, zero_hidden
    from common.equality import make, random_chunk
    from common.steps import on_host

    events: list[tuple[str, float]] = []

    def took(event: str, duration_secs: float, **_: str | int) -> None:
        events.append((event, duration_secs))

    def happened(event: str, **_: str | int) -> None:
        events.append((event, 0.0))

    jax.monitoring.register_event_duration_secs_listener(took)
    jax.monitoring.register_event_listener(happened)
    use(backend)
    case = load_workload(workload).case
    key = jax.block_until_ready(jax.random.key(0))
    start = clock()
    # Some libraries make a first model here, and compile for it what `init` then finds compiled.
    model = loaded.build(case.model)
    params = jax.block_until_ready(model.init(key))
    seconds["init"] = clock() - start

    step = make(loaded.style(style, donate=donate), case)
    step.load(fresh_checkpoint(on_host(model.to_weights(params))))
    inputs = zero_hidden(case.model, case.batch), random_chunk(case, 1)
    jax.block_until_ready(inputs)
    program = step.program(*inputs)
    lowered = None if program is None else stages(program, seconds, events)
    start = clock()
    jax.block_until_ready(step(*inputs))
    seconds["first_step"] = clock() - start
    peak = peak_rss()
    if any(event.endswith("cache_hits") for event, _ in events):
        raise RuntimeError(
            "the persistent compilation cache was used; compile times would be wrong"
        )
    if changes := before.changes():
        raise RuntimeError(f"{entrant}/{style} {changes}: its times mean nothing")
    values = seconds | {"peak_rss": peak}
    arm = f"{entrant}/{style}"
    return Cold(
        samples=[Sample(arm, name, value) for name, value in values.items()],
        missing=[] if program is not None else ["trace", "lower", "compile"],
        timed_seconds=sum(seconds.values()),
        program=fingerprint(lowered) if lowered is not None else "",
    )


def stages(
    program: Program, seconds: dict[str, float], events: list[tuple[str, float]]
) -> jax.stages.Lowered:
    """Trace, lower and compile a program, and return it lowered.

    `seconds` gets those of each stage, told apart if they can be; to `events`, JAX's own durations
    are added as they come.
    """
    clock = CLOCK
    start = clock()
    if program.trace is not None:
        traced = program.trace()
        seconds["trace"] = clock() - start
        start = clock()
        lowered = traced.lower()
        seconds["lower"] = clock() - start
    else:
        # There is no clock between the two: JAX's own event says what lowering took.
        known = len(events)
        lowered = program.lower()
        both = clock() - start
        lower = sum(took for event, took in events[known:] if "jaxpr_to_mlir_module" in event)
        if 0 < lower < both:  # else nothing tells where the one ends
            seconds |= {"lower": lower, "trace": both - lower}
    start = clock()
    lowered.compile()
    seconds["compile"] = clock() - start
    return lowered


def peak_rss() -> float:
    """Return the largest resident set of this process so far, in bytes."""
    import resource  # here, since it would add to what is imported before an import is timed

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
