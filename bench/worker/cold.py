"""Measurements of a process's start: import, init, first step, start-up as a whole, memory.

Nothing of jax may be imported before `measure_cold` is called, so this module needs no
package.
"""

from __future__ import annotations

import gc
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import impls
from bench import own_steps
from bench.cells import Arm
from bench.samples import Sample
from bench.worker.protocol import MeasureCold, Sampled
from bench.worker.settings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import jax

    from common.contract import Program, TrainStep

CLOCK = time.perf_counter
CLOCK_DIGIT = 1e-4
"""Largest difference of JAX's clock to ours, in seconds."""


class Event(NamedTuple):
    """Event that JAX reports at its end: its name and duration, and both clocks."""

    name: str
    seconds: float
    at: float
    cpu: float


@contextmanager
def time_stage(
    seconds: dict[str, float], stage: str, clock: Callable[[], float] = CLOCK
) -> Iterator[None]:
    """Time a stage, which is done inside, by a clock; add its seconds.

    Garbage is collected before: a collection that earlier stages have brought near would otherwise
    fall into one stage in one run, and into another one in the next.
    """
    if stage != "import":
        gc.collect()
    start = clock()
    yield
    seconds[stage] = clock() - start


def measure_cold(command: MeasureCold) -> Sampled:
    """Return the seconds of each stage of a start, and the bytes of the largest resident set.

    Raises:
        RuntimeError: the persistent compilation cache was used, or the entrant has changed what
            measuring relies on.
    """
    assert "jax" not in sys.modules, "its import is to be timed"
    before, seconds, others = Surroundings(), dict[str, float](), dict[str, float]()
    arm, file = Arm.parse(command.arm), command.outside.get(command.workload)
    entrant = impls.locate(arm.code.entrant, command.outside)
    with time_stage(seconds, "import"):
        loaded = own_steps.import_step(Path(file)) if file else impls.load(entrant)

    import jax

    from bench.worker.arms import use_device

    cache_hits()
    use_device(command.backend)
    case, step = make_first_step(command, loaded, seconds)
    inputs = case.zero(), case.data()
    jax.block_until_ready(inputs)
    program = step.program(*inputs)
    if program is not None:
        lowered = lower(program, others)
        with time_stage(others, "compile"):
            lowered.compile()
    with time_stage(seconds, "first_step"):
        jax.block_until_ready(step(*inputs))
    startup = sum(seconds.values()) + sum(others.values())
    values = seconds | {"startup": startup, "peak_rss": peak_rss()}
    require_compiled()
    if changes := before.changes():
        raise RuntimeError(f"{arm} {changes}: its times mean nothing")
    cell = arm.make_cell(command.workload, command.backend)
    return Sampled([Sample(cell, name, value) for name, value in values.items()], startup)


def make_first_step(
    command: MeasureCold, loaded: Any, seconds: dict[str, float]
) -> tuple[Any, TrainStep]:
    """Return the inputs and the step of an arm, with first weights; time its library's init.

    `loaded` is the entrant, or the module of a user's own step.
    """
    import jax

    from bench.worker.arms import load_workload
    from common.contract import fresh_checkpoint
    from common.equality import make
    from common.steps import move_to_host

    arm, key = Arm.parse(command.arm), jax.block_until_ready(jax.random.key(0))
    if file := command.outside.get(command.workload):
        from bench.worker.step_arms import StepArms
        from bench.worker.step_file import StepFile

        if hasattr(loaded, "make_model"):
            with time_stage(seconds, "init"):
                loaded.make_model()
                jax.block_until_ready(jax.live_arrays())
        arms = StepArms(StepFile(Path(file)), command.backend, donate=command.donate)
        step = arms.make(arm.code)
        step.load(arms.case.fresh())
        return arms.case, step
    case, _ = load_workload(command.workload)
    with time_stage(seconds, "init"):
        # Some libraries make a first model here, and compile for it what `init` finds compiled.
        model = loaded.build(case.model)
        params = jax.block_until_ready(model.init(key))
    step = make(loaded.style(arm.style, donate=command.donate), case)
    step.load(fresh_checkpoint(move_to_host(model.to_weights(params))))
    return case, step


def lower(
    program: Program, seconds: dict[str, float], clock: Callable[[], float] = CLOCK
) -> jax.stages.Lowered:
    """Trace and lower a program, and return it lowered; put the time of both into `seconds`."""
    if program.trace is not None:
        with time_stage(seconds, "trace", clock):
            traced = program.trace()
        with time_stage(seconds, "lower", clock):
            lowered = traced.lower()
    else:
        # There is no clock between the two: JAX's own events say where the one ends.
        duration_events().clear()
        gc.collect()
        began = clock()
        lowered = program.lower()
        both, lowering = clock() - began, lowering_seconds(clock)
        if 0 < lowering < both:  # otherwise no time of either is kept
            seconds |= {"lower": lowering, "trace": both - lowering}
    return lowered


def lowering_seconds(clock: Callable[[], float]) -> float:
    """Return the seconds of the last lowering by a clock, from JAX's events; 0 without one."""
    events = duration_events()
    ends = [event for event in events if "jaxpr_to_mlir_module" in event.name]
    if not ends or clock is CLOCK:
        return ends[-1].seconds if ends else 0.0
    start = ends[-1].at - ends[-1].seconds + CLOCK_DIGIT
    traced = [event for event in events if "jaxpr_trace" in event.name and event.at <= start]
    # Inside of another trace, JAX does not tell when it has traced
    return ends[-1].cpu - traced[-1].cpu if traced else ends[-1].seconds


@cache  # not every release of JAX can unregister a listener
def duration_events() -> list[Event]:
    """Return the list to which JAX adds its timed events, from the first call on."""
    import jax

    events: list[Event] = []

    def record(event: str, duration_secs: float, **_: str | int) -> None:
        events.append(Event(event, duration_secs, CLOCK(), time.process_time()))

    jax.monitoring.register_event_duration_secs_listener(record)
    return events


@cache
def cache_hits() -> list[str]:
    """Return the list to which JAX adds reads of its compilation cache, from the first call on."""
    import jax

    hits: list[str] = []

    def add_hit(event: str, **_: str | int) -> None:
        hits.extend([event] if event.endswith("cache_hits") else [])

    jax.monitoring.register_event_listener(add_hit)
    return hits


def require_compiled() -> None:
    """Raise RuntimeError where the persistent compilation cache was used since the last call."""
    if hits := cache_hits():
        hits.clear()
        raise RuntimeError(
            "the persistent compilation cache was used; compile times would be wrong"
        )


def peak_rss() -> float:
    """Return the largest resident set of this process so far, in bytes."""
    import resource  # here, since it would add to what is imported before an import is timed

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
