"""Whether the clock sees all of the work: compiled once, done in the call, and in no other place.

Nothing here depends on how fast a machine is: times are compared with other times of the same
step, of the same seconds, with wide margins, and only what shows three times in a row is found.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

import impls
from bench.check.finding import Finding
from bench.check.subject import LONG, SMALL
from bench.worker.counts import compilations
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import make, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.subject import Subject
    from common.contract import TrainStep

WARM, FURTHER = 3, 6
"""Calls after which a step is warm, and calls that should compile nothing."""
ROUNDS = 7
ATTEMPTS = 3
"""A finding of times is one that so many attempts in a row have made."""
RATIO = 3.0
"""So many times shorter is not chance."""
PART = 0.5
"""Of a call's time: so much work outside of it is not chance."""
IDLE_CALLS, IDLE_SECONDS = 5, 0.05
"""Calls' times, and seconds at least, that are waited after each call, to see whether something
goes on: on a busy machine, what is done in the background waits for its turn too."""


def retrace(subject: Subject) -> Iterator[Finding]:
    """Count the programs that warm calls compile."""
    step, hidden = subject.step(SMALL), random_hidden(SMALL)
    for index in range(WARM):
        hidden, _ = jax.block_until_ready(step(hidden, random_chunk(SMALL, index)))
    chunks = [random_chunk(SMALL, WARM + index) for index in range(FURTHER)]
    with compilations() as warm:
        for chunk in chunks:
            hidden, _ = jax.block_until_ready(step(hidden, chunk))
    if warm():
        yield Finding(
            f"after {WARM} calls, nothing is compiled again",
            f"{FURTHER} further calls compiled {warm()} programs: a function that is jitted anew "
            "in each call, or an argument that jit takes for another one each time",
            subject.style_at,
        )
        return
    start = fresh_checkpoint(random_weights(SMALL.model, 5))
    step.load(start)
    with compilations() as loaded:
        for chunk in chunks[:WARM]:
            hidden, _ = jax.block_until_ready(step(hidden, chunk))
    if loaded():
        yield Finding(
            "load() goes on without compiling again",
            f"{WARM} calls after a load compiled {loaded()} programs: what it loads differs from "
            "what calls make, in a dtype, a weak type or a structure",
            subject.at("load", subject.style_name, "STYLES"),
        )


class Times(NamedTuple):
    """Seconds, each the median of a few."""

    seen: float
    """A call with a chunk that it had before, right after a load."""
    new: float
    """One with a chunk that it never had, right after a load."""
    load: float
    save: float
    """Right after a call that has been waited for."""
    save_again: float
    """Once more, without a call in between."""
    idle: float
    """Processor seconds used while nothing was asked for, a call."""
    busy: float
    """Processor seconds of a call."""


def timed_region(subject: Subject) -> Iterator[Finding]:
    """Look for work that is done before or after the call."""
    step = subject.step(LONG)
    plain = make(impls.load(impls.BASELINE).style("pure"), LONG)
    warm(step)
    found: dict[str, Finding] = {}
    for attempt in range(ATTEMPTS):
        now = {
            f.expected: f for f in outside(subject, measured(step, attempt), load_seconds(plain))
        }
        found = now if attempt == 0 else {name: now[name] for name in found if name in now}
        if not found:
            return
    yield from found.values()


def load_seconds(step: TrainStep) -> float:
    """Return how long a load takes, the median of a few."""
    start = fresh_checkpoint(random_weights(LONG.model))
    return float(np.median([clocked(lambda: step.load(start)) for _ in range(ROUNDS)]))


def warm(step: TrainStep) -> None:
    """Call a step until it compiles nothing more."""
    step.load(fresh_checkpoint(random_weights(LONG.model)))
    for _ in range(WARM):
        jax.block_until_ready(step(zero_hidden(LONG.model), random_chunk(LONG, 1)))
    step.save()


def clocked(action: Callable[[], object]) -> float:
    """Return how many seconds an action takes, its results waited for."""
    start = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - start


def measured(step: TrainStep, attempt: int) -> Times:
    """Take all times, in turns."""
    start, seen = fresh_checkpoint(random_weights(LONG.model)), random_chunk(LONG, 1)
    hidden = zero_hidden(LONG.model)
    rows = []
    for index in range(ROUNDS):
        new = random_chunk(LONG, 100 + attempt * ROUNDS + index)
        step.load(start)
        jax.block_until_ready(step(hidden, seen))
        load = clocked(lambda: step.load(start))
        again = clocked(lambda: step(hidden, seen))
        step.load(start)
        used = time.process_time()
        fresh = clocked(lambda new=new: step(hidden, new))  # type: ignore[misc]
        busy = time.process_time() - used
        save = clocked(step.save)
        save_again = clocked(step.save)
        jax.block_until_ready(step(hidden, seen))
        used = time.process_time()
        time.sleep(max(IDLE_SECONDS, IDLE_CALLS * fresh))
        rows.append((again, fresh, load, save, save_again, time.process_time() - used, busy))
    return Times(*map(float, np.median(rows, axis=0)))


def outside(subject: Subject, times: Times, plain_load: float) -> Iterator[Finding]:
    """Yield what these times show."""
    where = subject.style_at
    if times.new > RATIO * times.seen:
        yield Finding(
            "a call takes as long with a chunk that it has seen as with a new one",
            f"a new one takes {times.new / times.seen:.0f} times as long: results were computed "
            "ahead, or kept",
            where,
        )
    if times.load > PART * times.new and times.load > RATIO * plain_load:
        yield Finding(
            "load() puts weights in their place, and computes nothing",
            f"it takes {times.load / times.new:.1f} times as long as a call, and "
            f"{times.load / plain_load:.0f} times as long as plain JAX's: work is done in it",
            subject.at("load", subject.style_name, "STYLES"),
        )
    if times.save - times.save_again > PART * times.new:
        yield Finding(
            "when a call's results are there, its update is done: save() has nothing to wait for",
            f"right after a call it takes {(times.save - times.save_again) / times.new:.1f} calls' "
            "time longer than once more: work is put off until then",
            subject.at("save", subject.style_name, "STYLES"),
        )
    if times.idle > PART * times.busy:
        yield Finding(
            "between calls nothing is computed",
            f"while nothing was asked for, {times.idle / times.busy:.1f} times as much of the "
            "processor was used as in a call: something goes on in the background",
            where,
        )
