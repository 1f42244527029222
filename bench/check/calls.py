"""Checks of calls: computed anew, in the same way always, without compiling, while they are timed.

Times do not depend on the machine: they are compared with other times of the same step and of the
same seconds, with wide margins, and a finding has to show three times in a row.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.check.subject import plain
from bench.worker.counts import COUNTED, UNCOUNTED, compilations, python_counts
from common.config import ModelConfig
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import Case, random_chunk, random_hidden, random_weights
from common.tolerances import LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.check.findings import CheckFinding
    from bench.check.subject import Subject
    from common.contract import TrainStep

LOOSE = 10 * LOSS_TOLERANCE
"""Relative, for losses at weights that have come through several updates."""
CHUNKS = (*[0] * (UNCOUNTED + COUNTED), 1, 0, 2)
"""Seeds of the chunks of the calls that are repeated; the first one as often as a count takes."""
WARM, FURTHER = 3, 6
"""Calls after which a step is warm, and calls that should compile nothing."""


def fresh(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Look for results that were not computed from the arguments of their call."""
    right = _losses(plain().step(case), case, CHUNKS)
    for circumstance, losses in _circumstances(subject, case):
        first = len(right) - len(losses)
        wrong = ~np.isclose(losses, right[first:], rtol=LOOSE, atol=0)
        if np.any(wrong):
            at = int(np.argmax(wrong))
            seen = f"call {first + at + 1} returned {losses[at]:.6f}, plain JAX's returns "
            seen += f"{right[first + at]:.6f}"
            if losses[at] in losses[:at]:
                same = first + losses.index(losses[at]) + 1
                seen += f"; this is the loss that call {same} returned"
            expected = "a call returns the loss of its chunk, at the weights before its update"
            yield subject.finding(f"{expected}{circumstance}", seen)
            return
    yield from _kept(subject, case)


def _losses(step: TrainStep, case: Case, seeds: Sequence[int]) -> list[float]:
    """Return the losses of calls with these chunks, all from the same hidden state."""
    hidden = random_hidden(case)
    return [float(step(hidden, random_chunk(case, seed))[1]) for seed in seeds]


def _circumstances(subject: Subject, case: Case) -> Iterator[tuple[str, list[float]]]:
    """Make the calls of CHUNKS in several circumstances; yield each, and the last calls' losses."""
    yield "", _losses(subject.step(case), case, CHUNKS)

    step = subject.step(case)
    step.load(fresh_checkpoint(random_weights(case.model, 5)))
    _losses(step, case, range(10, 14))
    losses = _losses(subject.step(case), case, CHUNKS)
    yield ", also after other calls and a load of the same checkpoint", losses

    ahead, step = subject.new_step(case), subject.step(case)
    ahead.load(fresh_checkpoint(random_weights(case.model)))
    losses, behind = _losses(ahead, case, CHUNKS[:1]), list[float]()
    for index, seed in enumerate(CHUNKS):
        behind += _losses(step, case, [seed])
        losses += _losses(ahead, case, CHUNKS[index + 1 : index + 2])
    for each in (losses, behind):
        yield ", also in turns with another step of the same style", each

    step, hidden, losses = subject.step(case), random_hidden(case), []
    given = Chunk(*(np.array(part) for part in random_chunk(case, 0)))
    for seed in CHUNKS:
        for part, new in zip(given, random_chunk(case, seed), strict=True):
            part[...] = np.asarray(new)
        losses.append(float(step(hidden, given)[1]))
        step.save()  # waits for all that still reads the arrays
    yield ", also if arrays are changed in place", losses

    step = subject.step(case)
    python_counts(partial(step, random_hidden(case), random_chunk(case, CHUNKS[0])))
    losses = _losses(step, case, CHUNKS[UNCOUNTED + COUNTED :])
    yield ", also when the benchmark counts Python's work", losses


def _kept(subject: Subject, case: Case) -> Iterator[CheckFinding]:
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
        yield subject.finding(
            "arguments and results of a call stay as they are (donate only your state)",
            "a later call wrote into them, or took their buffers",
        )
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
"""Of what is timed: a call that takes long compared with a load and a save of so few weights."""
ROUNDS, ATTEMPTS = 7, 3
IDLE_CALLS, IDLE_SECONDS = 5, 0.05
"""Wait after each call, in calls and at least in seconds, to see whether something goes on: on a
busy machine, work in the background waits for its turn too."""
MORE = 3.0
"""So many times as long as plain JAX takes is no chance, and no other way to hold parameters."""
LIMITS = {
    "new chunk": (
        3.0,
        "a call takes as long with a known chunk as with a new one",
        "a new chunk takes {:.1f} times as long: results were computed ahead, or kept",
    ),
    "load": (
        0.5,
        "load() only puts weights in their place",
        "it takes {:.1f} of a call's time, far longer than plain JAX's: it does other work",
    ),
    "save": (
        0.5,
        "a call's update is done when its results are there: save() does not wait for it",
        "right after a call, save() takes longer than usual by {:.1f} of a call's time: work is "
        "put off until then",
    ),
    "between calls": (
        0.5,
        "nothing is computed between calls",
        "between calls, the processor is used for {:.1f} of a call's time: something goes on in "
        "the background",
    ),
}
"""By the ratios to a call's time that `_ratios` returns: the largest that is chance, what is
expected, and what is seen. A method has the name of its ratio."""


def timed_region(subject: Subject, _case: Case) -> Iterator[CheckFinding]:
    """Look for work that is done before or after the call."""
    step, baseline = subject.step(LONG), plain().step(LONG)
    for _ in range(WARM):
        jax.block_until_ready(step(zero_hidden(LONG.model), random_chunk(LONG, 1)))
    step.save()
    found = dict.fromkeys(LIMITS, 0.0)
    for attempt in range(ATTEMPTS):
        ratios = _ratios(step, baseline, attempt) if found else {}
        found = {kind: ratios[kind] for kind in found if ratios[kind] > LIMITS[kind][0]}
    for kind, ratio in found.items():
        _, expected, seen = LIMITS[kind]
        yield subject.finding(expected, seen.format(ratio), kind)


def _ratios(step: TrainStep, baseline: TrainStep, attempt: int) -> dict[str, float]:
    """Take all times in turns, and relate them to a call's time."""
    start, seen = fresh_checkpoint(random_weights(LONG.model)), random_chunk(LONG, 1)
    hidden, rows = zero_hidden(LONG.model), []
    known = partial(step, hidden, seen)
    for index in range(ROUNDS):
        new = random_chunk(LONG, 100 + attempt * ROUNDS + index)
        step.load(start)
        jax.block_until_ready(known())
        load = _seconds(partial(step.load, start))
        plain_load = _seconds(partial(baseline.load, start))
        again = _seconds(known)
        step.load(start)
        first = _seconds(partial(step, hidden, new))
        save, save_again = _seconds(step.save), _seconds(step.save)
        busy = _seconds(known, time.process_time)
        wait = partial(time.sleep, max(IDLE_SECONDS, IDLE_CALLS * first))
        idle = _seconds(wait, time.process_time)
        rows.append((again, first, load, plain_load, save, save_again, busy, idle))
    again, first, load, plain_load, save, save_again, busy, idle = np.median(rows, axis=0)
    return {
        "new chunk": first / again,
        "load": load / first if load > MORE * plain_load else 0.0,
        "save": (save - save_again) / first,
        "between calls": idle / busy,
    }


def _seconds(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many seconds an action takes by a clock, its results waited for."""
    start = clock()
    jax.block_until_ready(action())
    return clock() - start
