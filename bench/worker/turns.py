"""Turns: what an arm does when it is its turn in a round, and how long it took."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax

from bench.worker.failures import guarded
from bench.worker.protocol import Failed
from common.chunker import chunks
from common.contract import Chunk

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from common.contract import Checkpoint, Hidden, TrainStep
    from common.equality import Case

    type Fresh = Callable[[], Unit]
    """Gives a turn over buffers of its own, warm."""

# What is timed is measured by these, whatever an entrant puts in their places: this module is
# imported before any entrant is.
CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready
COLLECT, ENABLE, DISABLE = gc.collect, gc.enable, gc.disable

CALLS = 4
"""Timed calls of a step in a turn."""
HOST_COST_CALLS = 10
"""Calls of a step that are each waited for, and as many of which only the last is."""


class End(NamedTuple):
    """Where a training step has got to."""

    calls: int
    """Since it was given its first weights."""
    loss: float
    """That its last timed call returned."""
    checkpoint: Checkpoint


class Unit(Protocol):
    """One turn: it takes its own times, and returns its samples in seconds, by metric."""

    def __call__(self) -> dict[str, list[float]]:
        """Take the turn."""

    def ends(self) -> dict[str, End]:
        """Return where its steps have got to, by name."""


@dataclass
class Sampled:
    """What came of an arm's turns."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Samples by metric, in the order they were taken."""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the process, in this arm's timed turns."""
    compiled: int = 0
    """Programs that were compiled in its timed turns."""
    failure: str = ""
    """Why it took no further turns."""


def interleave[Name: Hashable](
    units: Mapping[Name, Callable[[], dict[str, list[float]]]],
    rounds: int,
    rng: random.Random,
    at: Callable[[Name], None] = lambda _: None,
    untimed: int = 0,
    compiled: Callable[[], int] = lambda: 0,
    changes: Callable[[], list[str]] = list,
) -> dict[Name, Sampled]:
    """Return the samples of `rounds` turns of each, every round in another order.

    An arm whose turn raises takes no further ones.

    Args:
        units: The turns.
        rounds: Timed rounds.
        rng: Draws the orders.
        at: Told whose turn it is.
        untimed: Rounds that come in addition, first; their samples are dropped.
        compiled: Returns how many programs the process has compiled so far.
        changes: Returns what has been changed that may not be, in words: by whom had the turn.
    """
    found = {name: Sampled() for name in units}
    with quiet():
        for number in range(-untimed, rounds):
            names = [name for name in units if not found[name].failure]
            for name in rng.sample(names, len(names)):
                at(name)
                ours, programs = found[name], compiled()
                cpu, wall = CPU_CLOCK(), CLOCK()
                samples = guarded(units[name])
                wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
                if changed := changes():
                    ours.failure = f"while it was timed it {'; '.join(changed)}"
                elif isinstance(samples, Failed):
                    ours.failure = f"{samples.failure} (while it was timed)"
                elif number >= 0:
                    ours.wall_seconds += wall
                    ours.cpu_seconds += cpu
                    ours.compiled += compiled() - programs
                    for metric, seconds in samples.items():
                        ours.seconds.setdefault(metric, []).extend(seconds)
    return found


@dataclass
class StepTurn:
    """Synchronised calls of a step, one of them untimed.

    A call is over when what it returns is there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several, as in `blog`, updates
    are in flight then. The untimed
    call gives the others the caches that they have in a loop of their own: without it, a step of a
    tenth of a millisecond pays for what the other arms left behind.
    """

    step: TrainStep
    hidden: Hidden
    chunk: Chunk
    calls: int = 0
    loss: Any = None

    def __call__(self) -> dict[str, list[float]]:
        """Take the turn."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, seconds = CLOCK, WAIT, []
        wait(step(hidden, chunk))
        for _ in range(CALLS):
            start = clock()
            found = wait(step(hidden, chunk))
            seconds.append(clock() - start)
        self.loss, self.calls = found[1], self.calls + 1 + CALLS
        return {"step": seconds}

    def ends(self) -> dict[str, End]:
        """Return where the step has got to."""
        return {"": End(self.calls, float(self.loss), self.step.save())}


class HostCostTurn(StepTurn):
    """Calls of a step that are each waited for, then calls of which only the last is.

    A sample of `host_cost` is one call, of `host_cost_pipelined` the mean of all. Where a
    library's own jit waits on every call, both are the same.
    """

    def __call__(self) -> dict[str, list[float]]:
        """Take the turn."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, seconds = CLOCK, WAIT, []
        wait(step(hidden, chunk))
        for _ in range(HOST_COST_CALLS):
            start = clock()
            wait(step(hidden, chunk))
            seconds.append(clock() - start)
        start = clock()
        for _ in range(HOST_COST_CALLS):
            found = step(hidden, chunk)
        wait(found)
        done = clock() - start
        self.loss, self.calls = found[1], self.calls + 1 + 2 * HOST_COST_CALLS
        return {"host_cost": seconds, "host_cost_pipelined": [done / HOST_COST_CALLS]}


OF_STEPS: dict[str, type[StepTurn]] = {"step": StepTurn, "host_cost": HostCostTurn}
"""Turns that need nothing but the arms' steps; each block gives them fresh buffers."""


def timed[Result](call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds of a call, and its result, which is on the host or is waited for."""
    start = CLOCK()
    found = WAIT(call())
    return CLOCK() - start, found


def stream(case: Case, tokens: Any) -> Iterator[Chunk]:
    """Yield the corpus chunk by chunk, over and over; only whole chunks."""
    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    COLLECT()
    DISABLE()
    try:
        yield
    finally:
        ENABLE()
