"""Whether a call computes anew: no cache, no stale loss, nothing left from one run to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.check.finding import Finding
from bench.check.subject import SMALL, array, arrays, number
from common import reference
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import random_chunk, random_hidden, random_weights
from common.tolerances import LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import Subject
    from common.contract import Chunk as Chunks
    from common.contract import TrainStep, Weights

CALLS = 4
LOOSE = 10 * LOSS_TOLERANCE
"""Of weights that have come through several updates."""


def fresh(subject: Subject) -> Iterator[Finding]:
    """Go through all the ways in which a call can return what it has not computed."""
    for part in (each_loss, the_same_twice, two_runs, changed_in_place, kept):
        yield from part(subject)


def near(loss: float, expected: float) -> bool:
    """Return whether a loss is the expected one."""
    return abs(loss / expected - 1) <= LOOSE


def each_loss(subject: Subject) -> Iterator[Finding]:
    """Compare each loss of a few updates with the reference's, at the weights of that moment."""
    step = subject.step(SMALL)
    hidden, first = step(zero_hidden(SMALL.model), random_chunk(SMALL, CALLS))
    losses = [number(first)]
    for index in range(CALLS):
        chunk, weights = random_chunk(SMALL, index), step.save().weights
        expected = reference.loss_and_grads(weights, hidden, chunk).loss
        hidden, loss = step(hidden, chunk)
        losses.append(number(loss))
        if near(losses[-1], expected):
            continue
        seen = f"call {index + 2} returned {losses[-1]:.6f}, where that loss is {expected:.6f}"
        if losses[-1] in losses[:-1]:
            seen += f"; call {losses.index(losses[-1]) + 1} had returned this loss: it is stale"
        elif near(losses[-1], reference.loss_and_grads(step.save().weights, hidden, chunk).loss):
            seen += "; it is the loss after the update"
        yield Finding(
            "a call returns the loss of the chunk it is given, with the weights before its update",
            seen,
            subject.style_at,
        )
        return


def the_same_twice(subject: Subject) -> Iterator[Finding]:
    """Load the same checkpoint twice, with other calls in between."""
    hidden, chunk = random_hidden(SMALL), random_chunk(SMALL, 1)
    first = outcome(subject.step(SMALL), hidden, chunk)
    step = subject.step(SMALL)
    for index in range(CALLS):
        step(hidden, random_chunk(SMALL, 10 + index))
    second = outcome(subject.step(SMALL), hidden, chunk)
    if not close(first, second):
        yield Finding(
            "load() starts anew: the same checkpoint, state and chunk give the same loss, state "
            "and weights",
            f"the first time {words(first)}, after other calls {words(second)}",
            subject.at("load", subject.style_name, "STYLES"),
        )


def two_runs(subject: Subject) -> Iterator[Finding]:
    """Let two steps train from two checkpoints in turns, and compare each with its own run."""
    starts = [fresh_checkpoint(random_weights(SMALL.model, seed)) for seed in (0, 5)]
    steps = [subject.step(SMALL), subject.another(SMALL)]
    chunks = [random_chunk(SMALL, seed) for seed in range(CALLS)]

    def train(step: TrainStep, numbers: range) -> list[float]:
        return [number(step(zero_hidden(SMALL.model), chunks[i])[1]) for i in numbers]

    alone = []
    for step, start in zip(steps, starts, strict=True):
        step.load(start)
        alone.append(train(step, range(CALLS)))
    for step, start in zip(steps, starts, strict=True):
        step.load(start)
    turns: list[list[float]] = [[], []]
    for i in range(CALLS):
        for step, losses in zip(steps, turns, strict=True):
            losses += train(step, range(i, i + 1))
    same = np.isclose(turns, alone, rtol=LOOSE, atol=0, equal_nan=True)
    if not np.all(same):
        which, at = map(int, np.argwhere(~same)[0])
        yield Finding(
            "two training steps know nothing of each other, whatever the order of their calls",
            f"in turns, call {at + 1} of one has the loss {turns[which][at]:.6f}, alone "
            f"{alone[which][at]:.6f}: something is kept outside of the step, or beyond a load",
            subject.style_at,
        )


def changed_in_place(subject: Subject) -> Iterator[Finding]:
    """Give the same NumPy arrays again, with other characters in them."""
    hidden = random_hidden(SMALL)
    given = Chunk(*(np.array(part) for part in random_chunk(SMALL, 1)))
    number(subject.step(SMALL)(hidden, given)[1])
    for part, other in zip(given, random_chunk(SMALL, 2), strict=True):
        part[...] = np.asarray(other)
    loss = number(subject.step(SMALL)(hidden, given)[1])
    expected = reference.loss_and_grads(random_weights(SMALL.model), hidden, given).loss
    if not near(loss, expected):
        yield Finding(
            "a call reads the characters that it is given, be they in arrays that it had before",
            f"arrays were changed in place, and the loss is {loss:.6f} instead of {expected:.6f}",
            subject.style_at,
        )


def kept(subject: Subject) -> Iterator[Finding]:
    """See that what was returned and saved stays as it was."""
    step, hidden, chunk = subject.step(SMALL), random_hidden(SMALL), random_chunk(SMALL, 1)
    after, loss = step(hidden, chunk)
    saved = step.save()
    before = [array(value).copy() for value in (*hidden, *after, loss)]
    weights = [value.copy() for _, value in arrays(saved.weights)]
    for _ in range(CALLS):
        jax.block_until_ready(step(after, chunk))
    expected = "what a call was given and has returned stays readable, and as it was"
    try:
        now = [array(value) for value in (*hidden, *after, loss)]
    except RuntimeError as error:
        seen = f"a later call took it: {' '.join(str(error).split())[:120]}"
        yield Finding(f"{expected}: nobody donates buffers", seen, subject.style_at)
        return
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, now, strict=True)):
        yield Finding(expected, "a later call wrote into it", subject.style_at)
    saved_now = [value for _, value in arrays(saved.weights)]
    if not all(np.array_equal(a, b) for a, b in zip(weights, saved_now, strict=True)):
        seen = "later calls wrote into what save() had returned"
        yield Finding("save() returns a copy", seen, subject.at("save", "STYLES"))


type Result = tuple[float, list[np.ndarray], Weights]


def outcome(step: TrainStep, hidden: object, chunk: Chunks) -> Result:
    """Return loss, state and weights after one call."""
    after, loss = step(hidden, chunk)  # type: ignore[arg-type]
    return number(loss), [array(rows) for rows in after], step.save().weights


def close(one: Result, other: Result) -> bool:
    """Return whether two outcomes are the same, up to rounding."""
    pairs: Any = zip(
        [one[0], *one[1], *(value for _, value in arrays(one[2]))],
        [other[0], *other[1], *(value for _, value in arrays(other[2]))],
        strict=True,
    )
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True) for a, b in pairs)


def words(result: Result) -> str:
    """Return an outcome's loss and the sum of its weights."""
    total = sum(float(np.abs(value).sum()) for _, value in arrays(result[2]))
    return f"loss {result[0]:.6f}, weights' absolute sum {total:.5f}"
