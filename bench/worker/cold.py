"""What happens once in a process: import, init, trace, lower, compile, first step, memory.

Nothing of jax may be imported before `cold` is called, so this module imports the standard library
alone.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.worker.integrity import Surroundings
from bench.worker.protocol import Cold, WorkerSample
from common.config import is_own

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jax

    from common.contract import Program, TrainStep

CLOCK = time.perf_counter


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the seconds that a stage takes, which is done inside.

    Garbage is collected before: a collection that earlier stages have brought near would otherwise
    fall into one stage in one run, and into another one in the next.
    """
    if stage != "import":
        gc.collect()
    start = CLOCK()
    yield
    seconds[stage] = CLOCK() - start


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
        RuntimeError: the persistent compilation cache was used, or the entrant has changed what
            measuring relies on.
    """
    assert "jax" not in sys.modules, "its import is to be timed"
    before, seconds = Surroundings(), dict[str, float]()
    impls = importlib.import_module("impls")
    for path in outside.values():
        impls.add(path)
    with timed(seconds, "import"):
        loaded = impls.step_module(workload) if is_own(workload) else impls.load(entrant)

    import jax

    from bench.worker.arms import load_workload, use
    from bench.worker.program import Graph
    from common.contract import fresh_checkpoint
    from common.equality import make
    from common.steps import on_host

    events: list[str] = []

    def happened(event: str, **_: str | int) -> None:
        events.append(event)

    jax.monitoring.register_event_listener(happened)
    use(backend)
    key = jax.block_until_ready(jax.random.key(0))
    step: TrainStep
    case: Any
    if is_own(workload):
        from bench.cells import Arm
        from bench.worker.own import Inputs, OwnStep

        if hasattr(loaded, "make_model"):
            with timed(seconds, "init"):
                loaded.make_model()
                jax.block_until_ready(jax.live_arrays())
        file = OwnStep(workload)
        case = Inputs(file.start(), file.batch())
        step = file.make(Arm(entrant, style), donate=donate)
        step.load(case.fresh())
    else:
        case = load_workload(workload)[0]
        with timed(seconds, "init"):
            # Some libraries make a first model here, and compile for it what `init` finds compiled.
            model = loaded.build(case.model)
            params = jax.block_until_ready(model.init(key))
        step = make(loaded.style(style, donate=donate), case)
        step.load(fresh_checkpoint(on_host(model.to_weights(params))))
    inputs = case.zero(), case.data()
    jax.block_until_ready(inputs)
    program = step.program(*inputs)
    lowered = None if program is None else stages(program, seconds)
    with timed(seconds, "first_step"):
        jax.block_until_ready(step(*inputs))
    values = seconds | {"peak_rss": peak_rss()}
    if any(event.endswith("cache_hits") for event in events):
        raise RuntimeError(
            "the persistent compilation cache was used; compile times would be wrong"
        )
    if changes := before.changes():
        raise RuntimeError(f"{entrant}/{style} {changes}: its times mean nothing")
    return Cold(
        samples=[WorkerSample(f"{entrant}/{style}", name, value) for name, value in values.items()],
        missing=[] if program is not None else ["trace", "lower", "compile"],
        timed_seconds=sum(seconds.values()),
        program=Graph.of(lowered).fingerprint() if lowered is not None else "",
    )


def stages(program: Program, seconds: dict[str, float]) -> jax.stages.Lowered:
    """Trace, lower and compile a program, and return it lowered."""
    if program.trace is not None:
        with timed(seconds, "trace"):
            traced = program.trace()
        with timed(seconds, "lower"):
            lowered = traced.lower()
    else:
        # There is no clock between the two: JAX's own event says what lowering took.
        import jax

        lowering: list[float] = []

        def took(event: str, duration_secs: float, **_: str | int) -> None:
            lowering.extend([duration_secs] if "jaxpr_to_mlir_module" in event else [])

        jax.monitoring.register_event_duration_secs_listener(took)
        gc.collect()
        start = CLOCK()
        lowered = program.lower()
        both, lower = CLOCK() - start, sum(lowering)
        if 0 < lower < both:  # else nothing tells where the one ends
            seconds |= {"lower": lower, "trace": both - lower}
    with timed(seconds, "compile"):
        lowered.compile()
    return lowered


def peak_rss() -> float:
    """Return the largest resident set of this process so far, in bytes."""
    import resource  # here, since it would add to what is imported before an import is timed

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
