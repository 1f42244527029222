"""Checks of the numbers against the reference and plain JAX, as `pytest bench` proves them.

Beyond that proof, each says which array or call is off, and which usual mistake explains it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import impls
from bench.check.subject import PARTS, SMALL, Subject, checkpoint_under_way, named_arrays
from common import reference
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE
from common.contract import Checkpoint, Chunk, Dense, flat, unflat
from common.equality import TRAJECTORY_STEPS, Case, pair, random_weights, relative_norm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.check.subject import CheckFinding, FirstCall
    from common.contract import AnyArray, TrainStep, Weights

    type Difference = tuple[str, str]
    """What was expected of a call, and what was seen."""

PLAIN = Subject(impls.BASELINE, "pure")
"""Plain JAX's step, whose ten steps are the right ones."""
PART_TOLERANCE = 1e-4
"""Norm of the difference to plain JAX's weights or moments after ten updates, relative to their
norm: ten times the gradient's tolerance, for each update adds to the difference."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute difference of states between -1 and 1: some roundings of float32 per character."""
EXPLAINED = 2e-5
"""Relative difference within which a usual mistake explains a loss. At SMALL, each mistake's loss
is at least ten times as far from the right one."""


def equality(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare loss, hidden state and gradient of two calls with the reference's."""
    for call in subject.calls(case):
        for expected, seen in chain(_of_loss(call), _of_state(call), _of_gradient(subject, call)):
            yield subject.finding(expected, seen, "step", "build")
            return


def _of_loss(call: FirstCall) -> Iterator[Difference]:
    loss, right = float(call.loss), call.answer.loss
    if not abs(loss / right - 1) <= LOSS_TOLERANCE:
        of = "" if np.all(call.chunk.mask) else " of a padded chunk"
        mistake = usual_mistake(call)
        yield (
            f"the loss{of} is {right:.7f} nats, the float64 reference's, within "
            f"{LOSS_TOLERANCE:g} of it",
            f"it is {loss:.7f}" + (f"; this is the loss if {mistake}" if mistake else ""),
        )


def _of_state(call: FirstCall) -> Iterator[Difference]:
    after = [np.asarray(rows) for rows in call.after]
    away = [np.max(np.abs(a - b)) for a, b in zip(after, call.answer.hidden, strict=True)]
    if not np.max(away) <= HIDDEN_TOLERANCE:
        yield (
            "a call returns the state after its last character, the reference's within "
            f"{HIDDEN_TOLERANCE:g}",
            f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}",
        )


def _of_gradient(subject: Subject, call: FirstCall) -> Iterator[Difference]:
    given, right = named_arrays(call.gradient), named_arrays(call.answer.grads)
    norms = {
        name: float(np.linalg.norm(given[name] - right[name]) / np.linalg.norm(right[name]))
        for name in right
    }
    wrong = {name: norm for name, norm in norms.items() if not norm <= GRADIENT_TOLERANCE}
    if not wrong:
        return
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
    yield f"{expected} of its norm", seen


class Training(NamedTuple):
    """What ten steps of training came to."""

    losses: np.ndarray
    saved: Checkpoint


def ten_steps(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare training with plain JAX's: from new weights, in the middle of a run, and in turns."""
    alone = [subject.compiled(case)]
    runs = [(case.fresh(), alone), (checkpoint_under_way(case.model), alone)]
    if case == SMALL:
        runs.append((case.fresh(), [*alone, subject.new_step(case)]))
    expected = (
        f"ten updates are AdamW's: they have plain JAX's losses, within {TRAJECTORY_TOLERANCE:g} "
        f"nats, and lead to its checkpoint, with learning rate {case.optimiser.learning_rate:g}, "
        f"weight decay {case.optimiser.weight_decay:g} and "
    )
    for start, steps in runs:
        [right] = trained([PLAIN.compiled(case)], case, start)
        for training in trained(steps, case, start):
            if seen := _of_training(training, right, start):
                turns = ", in turns with another step of the same style" * (len(steps) > 1)
                whole = f"{expected}{start.updates} updates made before{turns}"
                yield subject.finding(whole, seen)
                return


def trained(steps: Sequence[TrainStep], case: Case, start: Checkpoint) -> list[Training]:
    """Return what ten steps come to, of each of some steps that take turns."""
    hidden = [case.zero() for _ in steps]
    losses, chunks = [list[float]() for _ in steps], pair(case)
    for step in steps:
        step.load(start)
    for number in range(TRAJECTORY_STEPS):
        for i, step in enumerate(steps):
            hidden[i], loss = step(hidden[i], chunks[number % 2])
            losses[i].append(float(loss))
    return [Training(np.array(row), step.save()) for row, step in zip(losses, steps, strict=True)]


def _of_training(training: Training, right: Training, start: Checkpoint) -> str:
    """Return in words how a training differs from the right one; empty where it is near enough."""
    losses, saved = training
    wrong = ~(np.abs(losses - right.losses) <= TRAJECTORY_TOLERANCE)
    if np.any(wrong):
        at = int(np.argmax(wrong))
        seen = f"loss {at + 1} is {losses[at]:.6f} instead of {right.losses[at]:.6f}"
        if losses[at] in losses[:at]:
            before = losses.tolist().index(losses[at]) + 1
            seen += f"; this is the loss that call {before} returned: compute each call's anew"
        return seen
    if saved.updates != right.saved.updates:
        return f"save().updates is {saved.updates} instead of {right.saved.updates}"
    if not start.updates:  # Adam's first updates follow mere signs, also those of roundings
        return ""
    away = {p: relative_norm(getattr(saved, p), getattr(right.saved, p)) for p in PARTS}
    return "; ".join(
        f"save().{part} is off by {norm:.2g} of its norm"
        for part, norm in away.items()
        if not norm <= PART_TOLERANCE
    )


def usual_mistake(call: FirstCall) -> str:
    """Return in words the usual mistake that explains a call's loss; empty if none does."""
    losses, seen = losses_of_mistakes(call), float(call.loss)
    return next((words for words in losses if abs(seen / losses[words] - 1) <= EXPLAINED), "")


def losses_of_mistakes(call: FirstCall) -> dict[str, float]:
    """Return the reference's losses in nats with a usual mistake, by the mistake in words."""
    weights, chunk = random_weights(call.case.model), Chunk(*map(np.asarray, call.chunk))

    def loss(
        weights: Weights = weights, hidden: Sequence[AnyArray] = call.hidden, **parts: AnyArray
    ) -> float:
        return reference.loss_and_grads(weights, hidden, chunk._replace(**parts)).loss

    width = call.case.model.width
    input_first = [Dense(np.roll(kernel, width, axis=0), bias) for kernel, bias in weights.cells]
    no_biases = [Dense(kernel, np.zeros_like(bias)) for kernel, bias in flat(weights)]
    return {
        "cells read concatenate([x, hidden]) instead of concatenate([hidden, x])": loss(
            unflat([*input_first, weights.readout])
        ),
        "biases are not added": loss(unflat(no_biases)),
        "the hidden state that a call is given is not used": loss(
            hidden=[np.zeros_like(rows) for rows in call.hidden]
        ),
        "the mask is not used, so padding counts": loss(mask=np.ones_like(chunk.mask)),
        "losses are summed instead of averaged": call.answer.loss * float(np.sum(chunk.mask)),
    }
