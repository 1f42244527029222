"""Whether the clock sees all of the work: compiled once, done in the call, and nowhere else.

Nothing here depends on how fast a machine is: times are compared with other times of the same step
and of the same seconds, with wide margins, and a finding has to show three times in a row.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from bench.check.subject import SMALL
from bench.worker.counts import compilations
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import Case, make, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.findings import Finding
    from bench.check.subject import Subject
    from common.contract import TrainStep

LONG = Case(ModelConfig(5, width=24, layers=3), chunk=512, batch=1)
"""Of what is timed: a call that takes long beside a load and a save of so few weights."""
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

    def compiled(numbers: range) -> int:
        """Return how many programs calls with these chunks compile."""
        nonlocal hidden
        chunks = [random_chunk(SMALL, number) for number in numbers]
        with compilations() as programs:
            for chunk in chunks:
                hidden, _ = jax.block_until_ready(step(hidden, chunk))
        return programs()

    compiled(range(WARM))
    if programs := compiled(range(WARM, WARM + FURTHER)):
        yield subject.finding(
            f"after {WARM} calls, nothing is compiled again",
            f"{FURTHER} further calls compiled {programs} programs: a function that is jitted anew "
            "in each call, or an argument that jit takes for another one each time",
        )
        return
    step.load(fresh_checkpoint(random_weights(SMALL.model, 5)))
    if programs := compiled(range(WARM, 2 * WARM)):
        yield subject.finding(
            "load() goes on without compiling again",
            f"{WARM} calls after a load compiled {programs} programs: what it loads differs from "
            "what calls make, in a dtype, a weak type or a structure",
            "load",
        )


class CallTimes(NamedTuple):
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
    step, start = subject.step(LONG), fresh_checkpoint(random_weights(LONG.model))
    plain = make(impls.load(impls.BASELINE).style("pure"), LONG)
    for _ in range(WARM):
        jax.block_until_ready(step(zero_hidden(LONG.model), random_chunk(LONG, 1)))
    step.save()
    found: dict[str, Finding] = {}
    for attempt in range(ATTEMPTS):
        times = _measured(step, attempt)
        plain_load = float(np.median([_seconds(lambda: plain.load(start)) for _ in range(ROUNDS)]))
        now = {f.expected: f for f in work_outside_of_calls(subject, times, plain_load)}
        found = now if attempt == 0 else {name: now[name] for name in found if name in now}
        if not found:
            return
    yield from found.values()


def _seconds(action: Callable[[], Any]) -> float:
    """Return how many seconds an action takes, its results waited for."""
    start = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - start


def _measured(step: TrainStep, attempt: int) -> CallTimes:
    """Take all times, in turns."""
    start, seen = fresh_checkpoint(random_weights(LONG.model)), random_chunk(LONG, 1)
    hidden = zero_hidden(LONG.model)
    rows = []
    for index in range(ROUNDS):
        new = random_chunk(LONG, 100 + attempt * ROUNDS + index)
        step.load(start)
        jax.block_until_ready(step(hidden, seen))
        load = _seconds(lambda: step.load(start))
        again = _seconds(lambda: step(hidden, seen))
        step.load(start)
        used = [time.process_time()]
        first = _seconds(lambda new=new: step(hidden, new))  # type: ignore[misc]
        used.append(time.process_time())
        save, save_again = _seconds(step.save), _seconds(step.save)
        jax.block_until_ready(step(hidden, seen))
        used.append(time.process_time())
        time.sleep(max(IDLE_SECONDS, IDLE_CALLS * first))
        used.append(time.process_time())
        busy, _, idle = (later - earlier for earlier, later in pairwise(used))
        rows.append(CallTimes(again, first, load, save, save_again, idle, busy))
    return CallTimes(*map(float, np.median(rows, axis=0)))


def work_outside_of_calls(
    subject: Subject, times: CallTimes, plain_load: float
) -> Iterator[Finding]:
    """Yield what these times show; `plain_load` is the seconds of plain JAX's load."""
    if times.new > RATIO * times.seen:
        yield subject.finding(
            "a call takes as long with a chunk that it has seen as with a new one",
            f"a new one takes {times.new / times.seen:.0f} times as long: results were computed "
            "ahead, or kept",
        )
    if times.load > PART * times.new and times.load > RATIO * plain_load:
        yield subject.finding(
            "load() puts weights in their place, and computes nothing",
            f"it takes {times.load / times.new:.1f} times as long as a call, and "
            f"{times.load / plain_load:.0f} times as long as plain JAX's: work is done in it",
            "load",
        )
    if times.save - times.save_again > PART * times.new:
        yield subject.finding(
            "when a call's results are there, its update is done: save() has nothing to wait for",
            f"right after a call it takes {(times.save - times.save_again) / times.new:.1f} calls' "
            "time longer than once more: work is put off until then",
            "save",
        )
    if times.idle > PART * times.busy:
        yield subject.finding(
            "between calls nothing is computed",
            f"while nothing was asked for, {times.idle / times.busy:.1f} times as much of the "
            "processor was used as in a call: something goes on in the background",
        )
