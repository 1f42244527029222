"""Checks of the numbers against the reference: loss, gradient, ten updates and state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.check.subject import PARTS, SMALL, checkpoint_under_way, named_arrays, plain
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
norm: ten times the gradient's tolerance, for each update adds to the difference."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute difference of states between -1 and 1: some roundings of float32 per character."""
EXPLAINED = 2e-5
"""Relative difference within which a usual mistake explains a loss. At SMALL, each mistake's loss
is at least ten times as far from the right one."""


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
        norms = {
            name: float(np.linalg.norm(given[name] - right[name]) / np.linalg.norm(right[name]))
            for name in right
        }
        wrong = {name: norm for name, norm in norms.items() if not norm <= GRADIENT_TOLERANCE}
        if not wrong:
            continue
        worst = max(wrong, key=lambda name: np.nan_to_num(wrong[name], nan=np.inf))
        single = subject.calls(Case(SMALL.model, chunk=1, batch=1))[0]
        seen = (
            f"{len(wrong)} of {len(right)} arrays are off; the worst is {worst}, by "
            f"{wrong[worst]:.2g} of its norm"
        )
        if not any(map(np.any, given.values())):
            seen = "save().mu is zero after an update: no update was made"
        elif relative_norm(single.gradient, single.answer.grads) <= GRADIENT_TOLERANCE:
            seen += (
                "; the gradient of a single character is right: the state is detached, as by "
                "stop_gradient, or the chunk is cut"
            )
        expected = f"every array's gradient is the reference's, within {GRADIENT_TOLERANCE:g}"
        yield subject.finding(f"{expected} of its norm", seen, "step", "build")
        return


def ten_steps(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare updates with plain JAX's, from new weights and in the middle of a run."""
    for start in (fresh_checkpoint(random_weights(case.model)), checkpoint_under_way(case.model)):
        right, right_saved = _trained(plain().step(case), case, start)
        losses, saved = _trained(subject.step(case), case, start)
        wrong, seen = ~(np.abs(losses - right) <= TRAJECTORY_TOLERANCE), ""
        if np.any(wrong):
            at = int(np.argmax(wrong))
            seen = f"loss {at + 1} is {losses[at]:.6f} instead of {right[at]:.6f}"
            if relative_norm(saved.weights, start.weights) == 0:
                seen += "; no weight changed"
        elif saved.updates != right_saved.updates:
            seen = f"save().updates is {saved.updates} instead of {right_saved.updates}"
        elif start.updates:  # before, Adam's updates follow mere signs, also those of roundings
            away = {p: relative_norm(getattr(saved, p), getattr(right_saved, p)) for p in PARTS}
            parts = [part for part in PARTS if not away[part] <= PART_TOLERANCE]
            seen = "; ".join(
                f"save().{part} is off by {away[part]:.2g} of its norm" for part in parts
            )
        if seen:
            yield subject.finding(
                f"ten updates are AdamW's: they have plain JAX's losses, within "
                f"{TRAJECTORY_TOLERANCE:g} nats, and lead to its checkpoint, with learning rate "
                f"{case.optimiser.learning_rate:g}, weight decay {case.optimiser.weight_decay:g} "
                f"and {start.updates} updates made before",
                seen,
            )
            return


def _trained(step: TrainStep, case: Case, start: Checkpoint) -> tuple[np.ndarray, Checkpoint]:
    step.load(start)
    hidden, losses, chunks = zero_hidden(case.model, case.batch), [], pair(case)
    for number in range(TRAJECTORY_STEPS):
        hidden, loss = step(hidden, chunks[number % 2])
        losses.append(float(loss))
    return np.array(losses), step.save()


def state(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare the hidden state after a chunk with the reference's."""
    for call in subject.calls(case):
        after = [np.asarray(rows) for rows in call.after]
        away = [np.max(np.abs(a - b)) for a, b in zip(after, call.answer.hidden, strict=True)]
        if not np.max(away) <= HIDDEN_TOLERANCE:
            seen = f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}"
            if all(np.array_equal(a, b) for a, b in zip(after, call.hidden, strict=True)):
                seen += "; it is the state that the call was given"
            expected = "a call returns the state after its last character, the reference's within"
            yield subject.finding(f"{expected} {HIDDEN_TOLERANCE:g}", seen)
            return


def usual_mistake(call: FirstCall) -> str:
    """Return in words the usual mistake that explains a call's loss; empty if none does."""
    for words, loss in losses_of_mistakes(call).items():
        if abs(float(call.loss) / loss - 1) <= EXPLAINED:
            return words
    return ""


def losses_of_mistakes(call: FirstCall) -> dict[str, float]:
    """Return the reference's losses in nats with a usual mistake, by the mistake in words."""
    weights, chunk = random_weights(call.case.model), Chunk(*map(np.asarray, call.chunk))

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
        "the hidden state that a call is given is not used": loss(
            hidden=[np.zeros_like(rows) for rows in call.hidden]
        ),
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
