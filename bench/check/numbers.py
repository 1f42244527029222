"""Checks of the numbers against the reference: loss, gradient, ten updates and state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.check.subject import (
    PARTS,
    SMALL,
    checkpoint_under_way,
    difference,
    named_arrays,
    plain,
)
from common import reference
from common.contract import Chunk, Dense, flat, fresh_checkpoint, unflat, zero_hidden
from common.equality import TRAJECTORY_STEPS, Case, pair, random_weights, relative_norm
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.check.findings import CheckFinding
    from bench.check.subject import FirstCall, Subject
    from common.contract import AnyArray, Checkpoint, TrainStep, Weights

PART_TOLERANCE = 1e-4
"""Norm of the difference to plain JAX's weights or moments after ten updates, relative to their
norm."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute, of states between -1 and 1."""
EXPLAINED = 2e-5
"""Relative difference within which a usual mistake explains a loss."""


def equality(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare losses with the reference's, and say which usual mistake explains a wrong one."""
    for call in subject.calls(case):
        loss, right = float(call.loss), call.answer.loss
        if not abs(loss / right - 1) <= LOSS_TOLERANCE:
            mistake = usual_mistake(call)
            of = "" if np.all(call.chunk.mask) else " of a padded chunk"
            yield subject.finding(
                f"the loss{of} is {right:.7f} nats, the float64 reference's, within "
                f"{LOSS_TOLERANCE:g} of it",
                f"it is {loss:.7f}" + (f"; this is the loss if {mistake}" if mistake else ""),
                "step",
                "build",
            )
            return


def gradient(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare every array's gradient, read off the first moment after one update from zero."""
    for call in subject.calls(case):
        given, right = named_arrays(call.gradient), named_arrays(call.answer.grads)
        away = {
            name: float(np.linalg.norm(given[name] - right[name]) / np.linalg.norm(right[name]))
            for name in right
        }
        wrong = {name: norm for name, norm in away.items() if not norm <= GRADIENT_TOLERANCE}
        if wrong:
            worst = max(wrong, key=lambda name: np.nan_to_num(wrong[name], nan=np.inf))
            seen = (
                f"{len(wrong)} of {len(right)} arrays are off; the worst is {worst}, by "
                f"{wrong[worst]:.2g} of its norm"
            )
            single = subject.calls(Case(SMALL.model, chunk=1, batch=1))[0]
            if not any(map(np.any, given.values())):
                seen = "save().mu is zero after an update: no update was made"
            elif relative_norm(single.gradient, single.answer.grads) <= GRADIENT_TOLERANCE:
                seen += (
                    "; the gradient of a single character is right: the state is detached, as by "
                    "stop_gradient, or the chunk is cut"
                )
            expected = (
                f"the gradient of every array is the reference's, within {GRADIENT_TOLERANCE:g} of "
                "its norm"
            )
            yield subject.finding(expected, seen, "step", "build")
            return


def ten_steps(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare updates with plain JAX's, from new weights and in the middle of a run."""
    for start in (fresh_checkpoint(random_weights(case.model)), checkpoint_under_way(case.model)):
        right = _run(plain().step(case), case, start)
        if seen := _wrong_run(start, _run(subject.step(case), case, start), right):
            yield subject.finding(
                f"ten updates are AdamW's: they have plain JAX's losses, within "
                f"{TRAJECTORY_TOLERANCE:g} nats, and lead to its checkpoint, with learning rate "
                f"{case.optimiser.learning_rate:g}, weight decay {case.optimiser.weight_decay:g} "
                f"and {start.updates} updates made before",
                seen,
            )
            return


def _run(step: TrainStep, case: Case, start: Checkpoint) -> tuple[np.ndarray, Checkpoint]:
    """Return the losses of ten updates, and the checkpoint after them."""
    step.load(start)
    hidden, losses, chunks = zero_hidden(case.model, case.batch), [], pair(case)
    for number in range(TRAJECTORY_STEPS):
        hidden, loss = step(hidden, chunks[number % 2])
        losses.append(float(loss))
    return np.array(losses), step.save()


def _wrong_run(
    start: Checkpoint, given: tuple[np.ndarray, Checkpoint], right: tuple[np.ndarray, Checkpoint]
) -> str:
    """Return in words what is wrong with ten updates; empty if nothing is."""
    (losses, saved), (right_losses, right_saved) = given, right
    wrong = ~(np.abs(losses - right_losses) <= TRAJECTORY_TOLERANCE)
    if np.any(wrong):
        at = int(np.argmax(wrong))
        unchanged = "" if difference(start.weights, saved.weights) else "; no weight changed"
        return f"loss {at + 1} is {losses[at]:.6f} instead of {right_losses[at]:.6f}{unchanged}"
    if saved.updates != right_saved.updates:
        return f"save().updates is {saved.updates} instead of {right_saved.updates}"
    for part in PARTS:
        away = relative_norm(getattr(saved, part), getattr(right_saved, part))
        if start.updates and not away <= PART_TOLERANCE:  # the first updates follow mere signs
            return f"save().{part} is off by {away:.2g} of its norm"
    return ""


def state(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare the hidden state after a chunk with the reference's."""
    for call in subject.calls(case):
        after = [np.asarray(rows) for rows in call.after]
        away = [np.max(np.abs(a - b)) for a, b in zip(after, call.answer.hidden, strict=True)]
        if not np.max(away) <= HIDDEN_TOLERANCE:
            expected = "a call returns the state after its last character, the reference's within"
            seen = f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}"
            if all(np.array_equal(a, b) for a, b in zip(after, call.hidden, strict=True)):
                seen += "; it is the state that the call was given"
            yield subject.finding(f"{expected} {HIDDEN_TOLERANCE:g}", seen)
            return


def usual_mistake(call: FirstCall) -> str | None:
    """Return in words the usual mistake that explains a call's loss; None if none does."""
    for words, loss in losses_of_mistakes(call).items():
        if abs(float(call.loss) / loss - 1) <= EXPLAINED:
            return words
    return None


def losses_of_mistakes(call: FirstCall) -> dict[str, float]:
    """Return the reference's losses in nats with a usual mistake, by the mistake in words."""
    weights, chunk = random_weights(call.case.model), Chunk(*map(np.asarray, call.chunk))
    zeros = tuple(map(np.zeros_like, call.hidden))

    def loss(
        weights: Weights = weights, hidden: Sequence[AnyArray] = call.hidden, **parts: AnyArray
    ) -> float:
        return reference.loss_and_grads(weights, hidden, chunk._replace(**parts)).loss

    right, targets, width = call.answer.loss, float(np.sum(chunk.mask)), call.case.model.width
    input_first = [Dense(np.roll(kernel, width, axis=0), bias) for kernel, bias in weights.cells]
    no_biases = [Dense(kernel, np.zeros_like(bias)) for kernel, bias in flat(weights)]
    start = fresh_checkpoint(weights)
    updated = reference.adamw(start, call.answer.grads, call.case.optimiser).weights
    return {
        "cells read concatenate([x, hidden]) instead of concatenate([hidden, x])": loss(
            unflat([*input_first, weights.readout])
        ),
        "biases are not added": loss(unflat(no_biases)),
        "the hidden state that a call is given is not used": loss(hidden=zeros),
        "the mask is not used, so padding counts": loss(mask=np.ones_like(chunk.mask)),
        "losses are summed instead of averaged": right * targets,
        "the sum is divided by the chunk's length instead of the number of targets that count": (
            right * targets / chunk.mask.size
        ),
        "inputs are used as targets": loss(targets=chunk.inputs),
        "inputs are not used: each is read as character 0": loss(inputs=0 * chunk.inputs),
        "it is in bits instead of nats": right / float(np.log(2)),
        "it is the loss after the update": loss(updated),
    }
