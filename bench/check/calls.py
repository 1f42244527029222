"""Checks of calls: computed anew, without compiling, and while they are timed.

Times do not depend on the machine: they are compared with other times of the same step and of the
same seconds, with wide margins, and a finding has to show three times in a row.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from bench.check.findings import ERROR, NOTE
from bench.check.subject import plain
from bench.worker.counts import compilations
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import Case, random_chunk, random_hidden, random_weights
from common.tolerances import LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.findings import CheckFinding
    from bench.check.subject import Subject
    from common.contract import TrainStep

LOOSE = 10 * LOSS_TOLERANCE
"""Relative difference of losses at weights that have come through several updates; a loss that was
not computed anew is off by far more."""
CHUNKS = (0, 0, 0, 0, 0, 0, 1, 0, 2)
"""Seeds of the chunks of calls in a row: the same one for longer than a cache may take to fill,
then others, among them one that was seen before."""
WARM, FURTHER = 3, 6
"""Calls after which a step is warm (the second and third can still compile), and calls after those
that should compile nothing."""


def fresh(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Look for results that were not computed from the arguments of their call."""
    right = _losses([plain().step(case)], case)[0]
    alone = _losses([subject.step(case)], case)
    steps = [subject.step(case), subject.new_step(case)]
    steps[1].load(fresh_checkpoint(random_weights(case.model)))
    for number, losses in enumerate([*alone, *_losses(steps, case)]):
        wrong = ~np.isclose(losses, right, rtol=LOOSE, atol=0)
        if np.any(wrong):
            at = int(np.argmax(wrong))
            seen = f"call {at + 1} returned {losses[at]:.6f}, plain JAX's returns {right[at]:.6f}"
            if losses[at] in losses[:at]:
                seen += f"; this is the loss that call {losses.index(losses[at]) + 1} returned"
            expected = "a call returns the loss of its chunk, at the weights before its update"
            if number:
                expected += ", also in turns with another step of the same style"
            yield subject.finding(expected, seen)
            return
    yield from _overwritten(subject, case)


def _losses(steps: list[TrainStep], case: Case) -> list[list[float]]:
    """Return the losses of steps that take turns, with the chunks of CHUNKS."""
    hidden, losses = random_hidden(case), [list[float]() for _ in steps]
    for seed in CHUNKS:
        for step, row in zip(steps, losses, strict=True):
            row.append(float(step(hidden, random_chunk(case, seed))[1]))
    return losses


def _overwritten(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """See that later calls leave alone what a call was given, and what it and save() returned."""
    step, hidden, chunk = subject.step(case), random_hidden(case), random_chunk(case, 1)
    after, loss = step(hidden, chunk)
    saved = jax.tree.leaves(step.save().weights)
    before, weights = jax.tree.map(np.array, ((*hidden, *after, loss), saved))
    for _ in range(WARM):
        jax.block_until_ready(step(after, chunk))
    equal = partial(np.array_equal, equal_nan=True)
    try:
        same = all(map(equal, (*hidden, *after, loss), before))
    except RuntimeError:  # a donated buffer cannot be read
        same = False
    if not same:
        expected = "arguments and results of a call stay as they are (donate only your state)"
        yield subject.finding(expected, "a later call wrote into them, or took their buffers")
    if not all(map(equal, saved, weights)):
        yield subject.finding("save() returns a copy", "later calls wrote into it", "save")


def retrace(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Count the programs that warm calls compile, also after a load."""
    step = subject.step(case)
    _compiled(step, case, WARM)
    if programs := _compiled(step, case, FURTHER):
        yield subject.finding(
            f"after {WARM} calls, nothing is compiled again",
            f"{FURTHER} further calls compiled {programs} programs: perhaps each call jits a new "
            "function, or passes an argument that jit takes for another one each time",
        )
        return
    step.load(fresh_checkpoint(random_weights(case.model, 5)))
    if programs := _compiled(step, case, WARM):
        yield subject.finding(
            "load() causes no compilation",
            f"{WARM} calls after a load compiled {programs} programs: what it loads differs from "
            "what calls make, in a dtype, a weak type or a structure",
            "load",
        )


def _compiled(step: TrainStep, case: Case, calls: int) -> int:
    """Return how many programs these calls compile, the state carried over."""
    hidden, chunks = random_hidden(case), [random_chunk(case, seed) for seed in range(calls)]
    programs = compilations()
    for chunk in chunks:
        hidden, _ = jax.block_until_ready(step(hidden, chunk))
    return programs()


LONG = Case(ModelConfig(5, width=24, layers=3), chunk=512, batch=1)
"""Sizes of what is timed: a call takes long compared with a load and a save of so few weights."""
ROUNDS, ATTEMPTS = 7, 3
"""Rounds whose medians are compared, and attempts in which a finding has to show each time."""
IDLE_CALLS, IDLE_SECONDS = 5, 0.05
"""Wait after a call, in calls and at least in seconds, to see whether something goes on: on a busy
machine, work in the background waits for its turn too."""
SLOW_LOAD = 3.0
"""Ratio to the time of plain JAX's load up to which a load may just hold parameters otherwise."""


class Limit(NamedTuple):
    """The largest ratio to a call's time that is chance, and what a larger one means."""

    ratio: float
    expected: str
    seen: str
    severity: str = ERROR


LIMITS = {
    "new chunk": Limit(
        3.0,
        "a call takes as long with a known chunk as with a new one",
        "a new chunk takes {:.1f} times as long: results were computed ahead, or kept",
    ),
    "load": Limit(
        0.5,
        "load() only puts weights in their place: build model and step once, outside of load()",
        "it takes {:.1f} of a call's time; it is not timed, but makes runs longer",
        NOTE,
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
    step, baseline = subject.step(LONG), plain().step(LONG)
    for _ in range(WARM):
        jax.block_until_ready(step(zero_hidden(LONG.model), random_chunk(LONG, 1)))
    step.save()
    above = dict.fromkeys(LIMITS, 0.0)
    for attempt in range(ATTEMPTS):
        ratios = _ratios(step, baseline, attempt) if above else {}
        above = {kind: ratios[kind] for kind in above if ratios[kind] > LIMITS[kind].ratio}
    for kind, ratio in above.items():
        limit = LIMITS[kind]
        seen = limit.seen.format(ratio)
        yield subject.finding(limit.expected, seen, kind, severity=limit.severity)


def _ratios(step: TrainStep, baseline: TrainStep, attempt: int) -> dict[str, float]:
    """Take all times in turns, and relate them to a call's time."""
    start, known = fresh_checkpoint(random_weights(LONG.model)), random_chunk(LONG, 1)
    hidden, rows = zero_hidden(LONG.model), []
    call = partial(step, hidden, known)
    for number in range(ROUNDS):
        new = random_chunk(LONG, 100 + attempt * ROUNDS + number)
        step.load(start)
        jax.block_until_ready(call())
        load = _seconds(partial(step.load, start))
        plain_load = _seconds(partial(baseline.load, start))
        again = _seconds(call)
        step.load(start)
        first = _seconds(partial(step, hidden, new))
        save, save_again = _seconds(step.save), _seconds(step.save)
        busy = _seconds(call, time.process_time)
        wait = partial(time.sleep, max(IDLE_SECONDS, IDLE_CALLS * first))
        idle = _seconds(wait, time.process_time)
        rows.append((again, first, load, plain_load, save, save_again, busy, idle))
    again, first, load, plain_load, save, save_again, busy, idle = np.median(rows, axis=0)
    return {
        "new chunk": first / again,
        "load": load / first if load > SLOW_LOAD * plain_load else 0.0,
        "save": (save - save_again) / first,
        "between calls": idle / busy,
    }


def _seconds(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    jax.block_until_ready(action())
    return clock() - start
