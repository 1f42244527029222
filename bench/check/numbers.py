"""The proof's numbers at small sizes, with findings: which array or call is off, and why.

`common.equality` is the judge, as in `pytest bench`; this module explains its verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import impls
from bench.check import SMALL, Subject, list_arrays
from bench.worker.arms import End, describe_difference, stable_start
from common import reference
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE
from common.contract import Chunk, Dense, flat, unflat
from common.equality import Case, first_calls, random_weights, trajectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.check import CheckFinding
    from common.contract import AnyArray, Weights
    from common.equality import FirstCall

    type Difference = tuple[str, str] | None
    """Expectation of a call, and its wrong result; None where it is right."""

PLAIN = Subject(impls.BASELINE, "pure")
"""Plain JAX: the reference of ten updates."""
SINGLE = Case(SMALL.model, chunk=1, batch=1)
"""One character: nothing flows from one to the next."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute difference of states between -1 and 1: some roundings of float32 per character."""
MISTAKE_TOLERANCE = 2e-5
"""Relative difference within which a usual mistake explains a loss. At SMALL, each mistake's loss
is at least ten times as far from the right one."""


def check_equality(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare loss, hidden state and gradient of two calls with the reference's."""
    for call in first_calls(subject.step(case), case):
        wrong = _check_loss(call, case) or _check_state(call) or _check_gradient(call, subject)
        if wrong:
            yield subject.finding(*wrong, "step", "build")
            return


def _check_loss(call: FirstCall, case: Case) -> Difference:
    if call.loss_deviation <= LOSS_TOLERANCE:
        return None
    of = "" if np.all(call.chunk.mask) else " of a padded chunk"
    mistake = find_mistake(call, case)
    return (
        f"the loss{of} is {call.expected.loss:.7f} nats, the float64 reference's, within "
        f"{LOSS_TOLERANCE:g} of it",
        f"it is {float(call.loss):.7f}" + (f"; this is the loss if {mistake}" if mistake else ""),
    )


def _check_state(call: FirstCall) -> Difference:
    pairs = zip(call.after, call.expected.hidden, strict=True)
    away = [np.max(np.abs(np.asarray(ours) - right)) for ours, right in pairs]
    if np.max(away) <= HIDDEN_TOLERANCE:
        return None
    return (
        "a call returns the state after its last character, the reference's within "
        f"{HIDDEN_TOLERANCE:g}",
        f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}",
    )


def _check_gradient(call: FirstCall, subject: Subject) -> Difference:
    if call.gradient_deviation <= GRADIENT_TOLERANCE:
        return None
    given, right = list_arrays(call.gradient), list_arrays(call.expected.grads)
    norms = {
        name: float(np.linalg.norm(given[name] - right[name]) / np.linalg.norm(right[name]))
        for name in right
    }
    wrong = {name: norm for name, norm in norms.items() if not norm <= GRADIENT_TOLERANCE}
    worst = max(wrong, key=lambda name: np.nan_to_num(wrong[name], nan=np.inf))
    seen = (
        f"{len(wrong)} of {len(right)} arrays are off; the worst is {worst}, by "
        f"{wrong[worst]:.2g} of its norm"
    )
    single = next(first_calls(subject.step(SINGLE), SINGLE))
    if not any(map(np.any, given.values())):
        seen = "save().mu is zero after an update: no update was made"
    elif single.gradient_deviation <= GRADIENT_TOLERANCE:
        seen += (
            "; the gradient of a single character is right: the state is detached, as by "
            "stop_gradient, or the chunk is cut"
        )
    expected = f"every array's gradient is the reference's, within {GRADIENT_TOLERANCE:g}"
    return f"{expected} of its norm", seen


def check_ten_steps(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare ten updates with plain JAX's: from new weights, and from the middle of a run."""
    expected = (
        f"ten updates are AdamW's: they have plain JAX's losses, within {TRAJECTORY_TOLERANCE:g} "
        f"nats, and lead to its checkpoint, with learning rate {case.optimiser.learning_rate:g}, "
        f"weight decay {case.optimiser.weight_decay:g} and "
    )
    for start in (case.fresh(), stable_start(random_weights(case.model))):
        step, plain = subject.step(case), PLAIN.step(case)
        losses, right = trajectory(step, case, start), trajectory(plain, case, start)
        seen = _compare_losses(losses, right)
        if start.updates and not seen:  # Adam's first updates magnify rounding errors
            end = End(losses.size, float(losses[-1]), step.save())
            seen = describe_difference(end, End(right.size, float(right[-1]), plain.save()))
        if seen:
            yield subject.finding(f"{expected}{start.updates} updates made before", seen)
            return


def _compare_losses(losses: np.ndarray, right: np.ndarray) -> str:
    """Return in words how ten losses differ from the right ones; empty where they do not."""
    wrong = ~(np.abs(losses - right) <= TRAJECTORY_TOLERANCE)
    if not np.any(wrong):
        return ""
    at = int(np.argmax(wrong))
    seen = f"loss {at + 1} is {losses[at]:.6f} instead of {right[at]:.6f}"
    if losses[at] in losses[:at]:
        before = losses.tolist().index(losses[at]) + 1
        seen += f"; this is the loss that call {before} returned: compute each call's anew"
    return seen


def find_mistake(call: FirstCall, case: Case) -> str:
    """Return the usual mistake that explains a call's loss, in words; empty if none does."""
    losses, seen = compute_mistakes(call, case), float(call.loss)
    return next(
        (words for words in losses if abs(seen / losses[words] - 1) <= MISTAKE_TOLERANCE), ""
    )


def compute_mistakes(call: FirstCall, case: Case) -> dict[str, float]:
    """Return usual mistake, in words → the reference's loss with it, in nats."""
    weights = reference.double(random_weights(case.model))
    chunk = Chunk(*map(np.asarray, call.chunk))

    def loss(
        weights: Weights = weights, hidden: Sequence[AnyArray] = call.hidden, **parts: AnyArray
    ) -> float:
        return reference.loss_and_grads(weights, hidden, chunk._replace(**parts)).loss

    width = case.model.width
    # In a kernel, the rows of the hidden state come before those of x
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
        "losses are summed instead of averaged": call.expected.loss * float(np.sum(chunk.mask)),
    }
