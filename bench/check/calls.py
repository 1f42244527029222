"""Whether a call computes anew from what it is given, and the same wherever it is called."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from bench.check.subject import SMALL, arrays
from bench.worker.counts import COUNTED, UNCOUNTED, UnsteadyCountsError, python_counts
from bench.worker.turns import CALLS as TIMED_CALLS
from bench.worker.turns import StepTurn
from common import reference
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import random_chunk, random_hidden, random_weights
from common.tolerances import LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.findings import Finding
    from bench.check.subject import Subject
    from common.contract import Checkpoint, TrainStep

CALLS = 4
LOOSE = 10 * LOSS_TOLERANCE
"""Relative, for losses at weights that have come through several updates."""
MARKS = ("BAKEOFF", "PYTEST", "JAX_", "NPROC", "PJRT_")
"""Beginnings of environment variables by which a benchmark may be recognised."""
OTHER_CALLS = 2


def fresh(subject: Subject) -> Iterator[Finding]:
    """Look for every way in which a call can return what it has not computed."""
    for part in (_each_loss, _same_twice, _two_runs, _changed_in_place, _kept):
        yield from part(subject)


def _near(loss: float, expected: float) -> bool:
    return abs(loss / expected - 1) <= LOOSE


def _each_loss(subject: Subject) -> Iterator[Finding]:
    """Compare each loss of a few updates with the reference's, at the weights of that moment."""
    step = subject.step(SMALL)
    hidden, first = step(zero_hidden(SMALL.model), random_chunk(SMALL, CALLS))
    losses = [float(first)]
    for index in range(CALLS):
        chunk, weights = random_chunk(SMALL, index), step.save().weights
        expected = reference.loss_and_grads(weights, hidden, chunk).loss
        hidden, loss = step(hidden, chunk)
        losses.append(float(loss))
        if _near(losses[-1], expected):
            continue
        seen = f"call {index + 2} returned {losses[-1]:.6f}, where that loss is {expected:.6f}"
        if losses[-1] in losses[:-1]:
            seen += f"; call {losses.index(losses[-1]) + 1} had returned this loss: it is stale"
        elif _near(losses[-1], reference.loss_and_grads(step.save().weights, hidden, chunk).loss):
            seen += "; it is the loss after the update"
        yield subject.finding(
            "a call returns the loss of the chunk it is given, with the weights before its update",
            seen,
        )
        return


def _same_twice(subject: Subject) -> Iterator[Finding]:
    """Load the same checkpoint twice, with other calls in between."""

    def results() -> list[np.ndarray]:
        step = subject.step(SMALL)
        hidden, loss = step(random_hidden(SMALL), random_chunk(SMALL, 1))
        return [np.asarray(a) for a in (loss, *hidden, *arrays(step.save().weights).values())]

    def words(found: list[np.ndarray]) -> str:
        total = sum(float(np.abs(array).sum()) for array in found[1 + SMALL.model.layers :])
        return f"loss {float(found[0]):.6f}, weights' absolute sum {total:.5f}"

    first, step = results(), subject.step(SMALL)
    for index in range(CALLS):
        step(random_hidden(SMALL), random_chunk(SMALL, 10 + index))
    second = results()
    if not all(
        np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    ):
        yield subject.finding(
            "load() starts anew: the same checkpoint, state and chunk give the same loss, state "
            "and weights",
            f"the first time {words(first)}, after other calls {words(second)}",
            "load",
        )


def _two_runs(subject: Subject) -> Iterator[Finding]:
    """Let two steps train from two checkpoints in turns, and compare each with its own run."""
    steps = [subject.step(SMALL), subject.new_step(SMALL)]
    starts = [fresh_checkpoint(random_weights(SMALL.model, seed)) for seed in (0, 5)]
    chunks = [random_chunk(SMALL, seed) for seed in range(CALLS)]

    def losses(order: list[int]) -> list[list[float]]:
        """Return the losses of both steps, called in this order after one load each."""
        found: list[list[float]] = [[], []]
        for which in order:
            step, call = steps[which], len(found[which])
            if not call:
                step.load(starts[which])
            found[which].append(float(step(zero_hidden(SMALL.model), chunks[call])[1]))
        return found

    alone, turns = losses([0] * CALLS + [1] * CALLS), losses([0, 1] * CALLS)
    same = np.isclose(turns, alone, rtol=LOOSE, atol=0, equal_nan=True)
    if not np.all(same):
        which, at = map(int, np.argwhere(~same)[0])
        yield subject.finding(
            "two training steps know nothing of each other, whatever the order of their calls",
            f"in turns, call {at + 1} of one has the loss {turns[which][at]:.6f}, alone "
            f"{alone[which][at]:.6f}: something is kept outside of the step, or beyond a load",
        )


def _changed_in_place(subject: Subject) -> Iterator[Finding]:
    """Give the same NumPy arrays again, with other characters in them."""
    hidden = random_hidden(SMALL)
    given = Chunk(*(np.array(part) for part in random_chunk(SMALL, 1)))
    jax.block_until_ready(subject.step(SMALL)(hidden, given))
    for part, other in zip(given, random_chunk(SMALL, 2), strict=True):
        part[...] = np.asarray(other)
    loss = float(subject.step(SMALL)(hidden, given)[1])
    expected = reference.loss_and_grads(random_weights(SMALL.model), hidden, given).loss
    if not _near(loss, expected):
        yield subject.finding(
            "a call reads the characters that it is given, be they in arrays that it had before",
            f"arrays were changed in place, and the loss is {loss:.6f} instead of {expected:.6f}",
        )


def _kept(subject: Subject) -> Iterator[Finding]:
    """See that what was given, returned and saved stays as it was."""
    step, hidden, chunk = subject.step(SMALL), random_hidden(SMALL), random_chunk(SMALL, 1)
    after, loss = step(hidden, chunk)
    saved = step.save()
    before = [np.array(value) for value in (*hidden, *after, loss)]
    weights = {name: value.copy() for name, value in arrays(saved.weights).items()}
    for _ in range(CALLS):
        jax.block_until_ready(step(after, chunk))
    expected = "what a call was given and has returned stays readable, and as it was"
    try:
        now = [np.asarray(value) for value in (*hidden, *after, loss)]
    except RuntimeError as error:
        seen = f"a later call took it: {' '.join(str(error).split())[:120]}"
        yield subject.finding(f"{expected}: nobody donates buffers", seen)
        return
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, now, strict=True)):
        yield subject.finding(expected, "a later call wrote into it")
    if not all(np.array_equal(a, weights[name]) for name, a in arrays(saved.weights).items()):
        seen = "later calls wrote into what save() had returned"
        yield subject.finding("save() returns a copy", seen, "save")


def same_updates(subject: Subject) -> Iterator[Finding]:
    """Make the same updates in several surroundings, and compare the weights that they lead to."""
    surroundings: dict[str, tuple[int, Callable[[TrainStep], None]]] = {
        "when the benchmark times them": (TIMED_CALLS + 1, _timed),
        "when Python's work is counted": (UNCOUNTED + COUNTED, _counted),
        "without the benchmark's environment variables": (CALLS, _without_marks),
    }
    for name, (calls, run) in surroundings.items():
        step = subject.step(SMALL)
        _loop(step, calls)
        expected = step.save()
        for _ in range(OTHER_CALLS):  # what it keeps from call to call is of another chunk now
            subject.step(SMALL)(random_hidden(SMALL), random_chunk(SMALL, 2))
        step = subject.step(SMALL)
        run(step)
        if seen := _difference(expected, step.save()):
            yield subject.finding(
                f"{calls} calls make the same {calls} updates {name}",
                f"{seen}: it does something else there",
            )


def _loop(step: TrainStep, calls: int) -> None:
    hidden, chunk = random_hidden(SMALL), random_chunk(SMALL, 1)
    for _ in range(calls):
        jax.block_until_ready(step(hidden, chunk))


def _timed(step: TrainStep) -> None:
    StepTurn(step, random_hidden(SMALL), random_chunk(SMALL, 1))()


def _counted(step: TrainStep) -> None:
    with suppress(UnsteadyCountsError):  # the counts are of no interest here
        python_counts(partial(step, random_hidden(SMALL), random_chunk(SMALL, 1)))


def _without_marks(step: TrainStep) -> None:
    marks = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(MARKS)}
    try:
        _loop(step, CALLS)
    finally:
        os.environ.update(marks)


def _difference(expected: Checkpoint, found: Checkpoint) -> str:
    """Return in words how two checkpoints differ; empty where they do not."""
    if found.updates != expected.updates:
        return f"updates made: {found.updates}, in a plain loop {expected.updates}"
    given = arrays(found.weights)
    for name, theirs in arrays(expected.weights).items():
        if not np.allclose(given[name], theirs, rtol=1e-5, atol=1e-6):
            away = np.max(np.abs(given[name] - theirs))
            return f"{name} is off by {away:.2g} from where a plain loop gets to"
    return ""
