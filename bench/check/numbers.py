"""Whether the numbers are right: loss, gradient, ten steps, and what an update does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

import impls
from bench.check.diagnose import explained
from bench.check.exchange import under_way
from bench.check.finding import Finding
from bench.check.subject import RAGGED, SMALL, arrays, number, sizes
from common import reference
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import (
    TRAJECTORY_STEPS,
    Case,
    answers,
    gradient_of,
    make,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.check.subject import Subject
    from common.contract import Chunk, Hidden, Weights

UPDATE_TOLERANCE = 1e-3
"""Norm of the difference to the reference's change of an array, relative to that change's norm: a
hundred times what float32 does to weights of one and changes of a hundredth."""


def equality(subject: Subject) -> Iterator[Finding]:
    """Compare the losses of two chunks in a row, the second one padded, with the reference's."""
    for case in subject.cases:
        weights, hidden = random_weights(case.model), random_hidden(case)
        for chunk, answer, kind in zip(pair(case), answers(case), ("", ", padded"), strict=True):
            given, loss = hidden, number(subject_call(subject, case, hidden, chunk)[1])
            if not abs(loss / answer.loss - 1) <= LOSS_TOLERANCE:
                yield Finding(
                    f"the loss is {answer.loss:.7f} nats, the float64 reference's, within "
                    f"{LOSS_TOLERANCE:g} of it ({sizes(case)}{kind})",
                    f"it is {loss:.7f}{explained(loss, weights, given, chunk)}",
                    subject.at("step", "build", subject.style_name, "STYLES"),
                )
                return
            hidden = on_device(answer.hidden)


def subject_call(
    subject: Subject, case: Case, hidden: Hidden, chunk: Chunk
) -> tuple[Hidden, object]:
    """Call the subject's step once from the same weights."""
    return subject.step(case)(hidden, chunk)


def on_device(hidden: Iterable[np.ndarray]) -> Hidden:
    """Return the reference's state as a call takes it."""
    return tuple(jax.device_put(rows.astype(np.float32)) for rows in hidden)


def gradient(subject: Subject) -> Iterator[Finding]:
    """Compare every array's gradient, read off the first moment after one update from zero."""
    for case in subject.cases:
        hidden = random_hidden(case)
        for chunk, answer in zip(pair(case), answers(case), strict=True):
            step = subject.step(case)
            step(hidden, chunk)
            wrong = {
                name: float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
                for (name, ours), (_, theirs) in zip(
                    arrays(gradient_of(step)), arrays(answer.grads), strict=True
                )
            }
            wrong = {name: away for name, away in wrong.items() if not away <= GRADIENT_TOLERANCE}
            if wrong:
                worst = max(wrong, key=lambda name: np.nan_to_num(wrong[name], nan=np.inf))
                none = all(not np.any(mu) for _, mu in arrays(step.save().mu))
                seen = f"{len(wrong)} of {2 * case.model.layers + 2} arrays are off, the worst "
                seen += f"{worst} by {wrong[worst]:.2g} of its norm"
                yield Finding(
                    f"every array's gradient is the reference's, within {GRADIENT_TOLERANCE:g} of "
                    f"its norm ({sizes(case)})",
                    "save().mu is zero after an update: there was none" if none else seen,
                    subject.style_at,
                )
                return
            hidden = on_device(answer.hidden)


def ten_steps(subject: Subject) -> Iterator[Finding]:
    """Compare the losses of ten updates."""
    for case in subject.cases:
        expected = wanted(case)
        losses = trajectory(subject.step(case), case)
        away = np.abs(losses - expected)
        if np.all(away <= TRAJECTORY_TOLERANCE):
            continue
        at = int(np.argmax(~(away <= TRAJECTORY_TOLERANCE)))
        seen = f"step {at + 1} of {TRAJECTORY_STEPS} has {losses[at]:.6f}, not {expected[at]:.6f}"
        if at >= 2 and losses[at] == losses[at - 2]:
            seen += "; the same chunk had this loss before: nothing was learned in between"
        yield Finding(
            f"ten updates have the right losses, within {TRAJECTORY_TOLERANCE:g} nats "
            f"({sizes(case)})",
            seen,
            subject.style_at,
        )
        return


def wanted(case: Case) -> np.ndarray:
    """Return the losses of ten updates: the reference's, and where that takes long, plain JAX's."""
    if case not in (SMALL, RAGGED):
        return trajectory(make(impls.load(impls.BASELINE).style("pure"), case), case)
    at, losses = fresh_checkpoint(random_weights(case.model)), []
    hidden, chunks = zero_hidden(case.model, case.batch), pair(case)
    for i in range(TRAJECTORY_STEPS):
        answer = reference.loss_and_grads(at.weights, hidden, chunks[i % 2])
        at = reference.adamw(at, answer.grads, case.optimiser)
        hidden = answer.hidden  # type: ignore[assignment]
        losses.append(answer.loss)
    return np.array(losses)


def optimiser(subject: Subject) -> Iterator[Finding]:
    """Compare what an update does to weights, second moments and count, with the reference's."""
    for case in (SMALL, RAGGED):
        start, chunk = under_way(case.model), random_chunk(case, 1)
        step = subject.step(case)
        step.load(start)
        step(zero_hidden(case.model, case.batch), chunk)
        saved, where = step.save(), subject.style_at
        after = reference.adamw(start, implied(start.mu, saved.mu), case.optimiser)
        expected = (
            "one update is AdamW's, with the rate, the decay and the moments that it is given "
            f"(rate {case.optimiser.learning_rate:g}, decay {case.optimiser.weight_decay:g}, "
            f"update {start.updates + 1})"
        )
        if all(
            np.array_equal(a, b)
            for (_, a), (_, b) in zip(arrays(saved.weights), arrays(start.weights), strict=True)
        ):
            yield Finding(expected, "no weight changed", where)
            return
        for part in ("weights", "nu"):
            parts = (getattr(tree, part) for tree in (start, saved, after))
            found = changes(*(dict(arrays(tree)) for tree in parts))
            wrong = {name: away for name, away in found.items() if not away <= UPDATE_TOLERANCE}
            if wrong:
                name = next(iter(wrong))
                seen = f"the change of {part}.{name} is off by {wrong[name]:.2g} of its norm"
                yield Finding(expected, seen, where)
                return
        if saved.updates != after.updates:
            yield Finding(expected, f"save().updates is {saved.updates}", where)
            return


def implied(before: Weights, after: Weights) -> Weights:
    """Return the gradient that has moved the first moments: of a wrong one, others tell."""
    beta = reference.BETA1
    return reference.on_arrays(
        lambda old, new: (new - beta * old) / (1 - beta),
        reference.double(before),
        reference.double(after),
    )


def changes(
    start: dict[str, np.ndarray], saved: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> dict[str, float]:
    """Return how far the change of each array is from the one that was wanted."""
    return {
        name: float(
            np.linalg.norm(saved[name] - wanted[name]) / np.linalg.norm(wanted[name] - start[name])
        )
        for name in start
    }


def loss_of(subject: Subject, case: Case, hidden: Hidden, chunk: Chunk) -> float:
    """Return the loss of one call from the usual weights."""
    return number(subject_call(subject, case, hidden, chunk)[1])
