"""Checks of calls: without compiling again, and with all work done while they are timed.

Times do not depend on the machine: they are compared with other times of the same step and of the
same seconds, with wide margins, and a finding has to show three times in a row.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from bench.worker.counts import FIRST_CALLS, WARM_CALLS, compilations
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import Case, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.subject import CheckFinding, Subject
    from common.contract import TrainStep


def retrace(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Count the programs that warm calls compile."""
    step, hidden = subject.step(case), random_hidden(case)
    chunks = [random_chunk(case, seed) for seed in range(FIRST_CALLS + WARM_CALLS)]
    for chunk in chunks[:FIRST_CALLS]:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
    programs = compilations()
    for chunk in chunks[FIRST_CALLS:]:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
    if compiled := programs():
        yield subject.finding(
            f"after {FIRST_CALLS} calls, nothing is compiled again",
            f"{WARM_CALLS} further calls compiled {compiled} programs: perhaps each call jits a "
            "new function, or passes an argument that jit takes for another one each time",
        )


LONG = Case(ModelConfig(5, width=24, layers=3), chunk=512, batch=1)
"""Sizes of what is timed: a call takes long compared with a load and a save of so few weights."""
ROUNDS, ATTEMPTS = 7, 3
"""Rounds whose medians are compared, and attempts in which a finding has to show each time."""
IDLE_CALLS, IDLE_SECONDS = 5, 0.05
"""Wait after a call, in calls and at least in seconds, to see whether something goes on: on a busy
machine, work in the background waits for its turn too."""


class Limit(NamedTuple):
    """The largest ratio to a call's time that is chance, and what a larger one means."""

    ratio: float
    expected: str
    seen: str


LIMITS = {
    "new chunk": Limit(
        3.0,
        "a call takes as long with a known chunk as with a new one",
        "a new chunk takes {:.1f} times as long: results were computed ahead, or kept",
    ),
    "save": Limit(
        0.5,
        "a call's update is done when its results are there: save() does not wait for it",
        "right after a call, save() takes longer than usual by {:.1f} of a call's time: work is "
        "put off until then",
    ),
    "between calls": Limit(
        0.5,
        "nothing is computed between calls",
        "between calls, the processor is used for {:.1f} of a call's time: something goes on in "
        "the background",
    ),
}
"""Limits of the ratios that `_ratios` returns. A ratio that is a method's has its name."""


def timed_region(subject: Subject, _case: Case) -> Iterator[CheckFinding]:
    """Look for work of a call that is done before or after it."""
    step = subject.step(LONG)
    for _ in range(FIRST_CALLS):
        jax.block_until_ready(step(zero_hidden(LONG.model), random_chunk(LONG, 1)))
    step.save()
    above = dict.fromkeys(LIMITS, 0.0)
    for attempt in range(ATTEMPTS):
        ratios = _ratios(step, attempt) if above else {}
        above = {kind: ratios[kind] for kind in above if ratios[kind] > LIMITS[kind].ratio}
    for kind, ratio in above.items():
        yield subject.finding(LIMITS[kind].expected, LIMITS[kind].seen.format(ratio), kind)


def _ratios(step: TrainStep, attempt: int) -> dict[str, float]:
    """Take all times in turns, and relate them to a call's time."""
    start, known = fresh_checkpoint(random_weights(LONG.model)), random_chunk(LONG, 1)
    hidden, rows = zero_hidden(LONG.model), []
    call = partial(step, hidden, known)
    for number in range(ROUNDS):
        new = random_chunk(LONG, 100 + attempt * ROUNDS + number)
        step.load(start)
        jax.block_until_ready(call())
        step.load(start)
        again = _seconds(call)
        step.load(start)
        first = _seconds(partial(step, hidden, new))
        save, save_again = _seconds(step.save), _seconds(step.save)
        busy = _seconds(call, time.process_time)
        wait = partial(time.sleep, max(IDLE_SECONDS, IDLE_CALLS * first))
        idle = _seconds(wait, time.process_time)
        rows.append((again, first, save, save_again, busy, idle))
    again, first, save, save_again, busy, idle = np.median(rows, axis=0)
    return {
        "new chunk": first / again,
        "save": (save - save_again) / first,
        "between calls": idle / busy,
    }


def _seconds(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    jax.block_until_ready(action())
    return clock() - start
