"""Whether the numbers are the reference's: loss, gradient, ten steps, update, inputs and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.check.contract import checkpoint_under_way
from bench.check.subject import RAGGED, SMALL, arrays, sizes
from common import reference
from common.contract import Dense, flat, fresh_checkpoint, unflat, zero_hidden
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
    relative_norm,
    trajectory,
)
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.check.findings import Finding
    from bench.check.subject import Subject
    from common.contract import AnyArray, Checkpoint, Chunk, Hidden, Weights

UPDATE_TOLERANCE = 1e-3
"""Norm of the difference to the reference's change of an array, relative to that change's norm: a
hundred times what float32 does to weights of one and changes of a hundredth."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute, of states between -1 and 1."""
LEAST_CHANGE = 0.01
"""A smaller part of the change that the reference makes counts as no change."""
EXPLAINED = 2e-5
"""Relative difference within which a usual mistake explains a loss."""


def equality(subject: Subject) -> Iterator[Finding]:
    """Compare the losses of two chunks in a row, the second one padded, with the reference's."""
    for case, hidden, chunk, answer in _chunks_in_a_row(subject.cases):
        loss = float(subject.step(case)(hidden, chunk)[1])
        if abs(loss / answer.loss - 1) <= LOSS_TOLERANCE:
            continue
        padded = "" if np.all(chunk.mask) else ", padded"
        mistake = usual_mistake(loss, random_weights(case.model), hidden, chunk)
        yield subject.finding(
            f"the loss is {answer.loss:.7f} nats, the float64 reference's, within "
            f"{LOSS_TOLERANCE:g} of it ({sizes(case)}{padded})",
            f"it is {loss:.7f}" + (f"; that is the loss where {mistake}" if mistake else ""),
            "step",
            "build",
        )
        return


def gradient(subject: Subject) -> Iterator[Finding]:
    """Compare every array's gradient, read off the first moment after one update from zero."""
    for case, hidden, chunk, answer in _chunks_in_a_row(subject.cases):
        step = subject.step(case)
        step(hidden, chunk)
        given, right = arrays(gradient_of(step)), arrays(answer.grads)
        wrong = _too_far(given, right, GRADIENT_TOLERANCE)
        if not wrong:
            continue
        seen = "save().mu is zero after an update: there was none"
        if any(np.any(array) for array in given.values()):
            worst = max(wrong, key=lambda name: np.nan_to_num(wrong[name], nan=np.inf))
            seen = f"{len(wrong)} of {len(right)} arrays are off, the worst {worst} by "
            seen += f"{wrong[worst]:.2g} of its norm"
        yield subject.finding(
            f"every array's gradient is the reference's, within {GRADIENT_TOLERANCE:g} of its "
            f"norm ({sizes(case)})",
            seen,
        )
        return


def ten_steps(subject: Subject) -> Iterator[Finding]:
    """Compare the losses of ten updates."""
    for case in subject.cases:
        expected, losses = _ten_losses(case), trajectory(subject.step(case), case)
        wrong = ~(np.abs(losses - expected) <= TRAJECTORY_TOLERANCE)
        if not np.any(wrong):
            continue
        at = int(np.argmax(wrong))
        seen = f"step {at + 1} of {TRAJECTORY_STEPS} has {losses[at]:.6f}, not {expected[at]:.6f}"
        if at >= 2 and losses[at] == losses[at - 2]:
            seen += "; the same chunk had this loss before: nothing was learned in between"
        yield subject.finding(
            f"ten updates have the right losses, within {TRAJECTORY_TOLERANCE:g} nats "
            f"({sizes(case)})",
            seen,
        )
        return


def _ten_losses(case: Case) -> np.ndarray:
    """Return the losses of ten updates: the reference's, and where that takes long, plain JAX's."""
    if case not in (SMALL, RAGGED):
        return trajectory(make(impls.load(impls.BASELINE).style("pure"), case), case)
    at, losses = fresh_checkpoint(random_weights(case.model)), []
    hidden: Any = zero_hidden(case.model, case.batch)
    chunks = pair(case)
    for i in range(TRAJECTORY_STEPS):
        answer = reference.loss_and_grads(at.weights, hidden, chunks[i % 2])
        at, hidden = reference.adamw(at, answer.grads, case.optimiser), answer.hidden
        losses.append(answer.loss)
    return np.array(losses)


def optimiser(subject: Subject) -> Iterator[Finding]:
    """Compare what an update does to weights, second moments and count, with the reference's."""
    for case in (SMALL, RAGGED):
        start, step = checkpoint_under_way(case.model), subject.step(case)
        step.load(start)
        step(zero_hidden(case.model, case.batch), random_chunk(case, 1))
        saved = step.save()
        after = reference.adamw(start, _gradient_between(start.mu, saved.mu), case.optimiser)
        if seen := _wrong_update(start, saved, after):
            yield subject.finding(
                "one update is AdamW's, with the rate, the decay and the moments that it is given "
                f"(rate {case.optimiser.learning_rate:g}, decay {case.optimiser.weight_decay:g}, "
                f"update {start.updates + 1})",
                seen,
            )
            return


def _wrong_update(start: Checkpoint, saved: Checkpoint, right: Checkpoint) -> str:
    """Return in words what an update has done wrong; empty where it is right."""
    weights = arrays(start.weights)
    if all(np.array_equal(array, weights[n]) for n, array in arrays(saved.weights).items()):
        return "no weight changed"
    for part in ("weights", "nu"):
        before, given, expected = (arrays(getattr(tree, part)) for tree in (start, saved, right))
        changes = {name: given[name] - before[name] for name in before}
        right_changes = {name: expected[name] - before[name] for name in before}
        for name, away in _too_far(changes, right_changes, UPDATE_TOLERANCE).items():
            return f"the change of {part}.{name} is off by {away:.2g} of its norm"
    return "" if saved.updates == right.updates else f"save().updates is {saved.updates}"


def _gradient_between(before: Weights, after: Weights) -> Weights:
    """Return the gradient that has moved the first moments; whether it is right is not asked."""
    return reference.on_arrays(
        lambda old, new: (new - reference.BETA1 * old) / (1 - reference.BETA1),
        reference.double(before),
        reference.double(after),
    )


def inputs(subject: Subject) -> Iterator[Finding]:
    """Change one thing that a call is given, and see whether the loss changes."""
    for case in (SMALL, RAGGED):
        hidden, chunk = random_hidden(case), random_chunk(case, 1)
        before, expected = float(subject.step(case)(hidden, chunk)[1]), _loss(case, hidden, chunk)
        unused = []
        for what, variant in _variants(case, hidden, chunk).items():
            change = _loss(case, *variant) - expected
            seen = float(subject.step(case)(*variant)[1]) - before
            if abs(seen) < LEAST_CHANGE * abs(change):
                unused.append(
                    f"another {what} changes it by {seen:.2g} nats instead of {change:+.2g}"
                )
        if unused:
            yield subject.finding(
                f"all that a call is given changes the loss ({sizes(case)})",
                f"{'; '.join(unused)}: that is not used",
                "step",
                "build",
            )
            return


def _loss(case: Case, hidden: Hidden, chunk: Chunk) -> float:
    """Return the reference's loss from the usual weights."""
    return reference.loss_and_grads(random_weights(case.model), hidden, chunk).loss


def _variants(case: Case, hidden: Hidden, chunk: Chunk) -> dict[str, tuple[Hidden, Chunk]]:
    """Return other arguments of a call, by the one thing that is changed in them."""
    last = case.chunk - 1

    def other(tokens: Any, time: int) -> Any:
        changed = np.array(tokens)
        changed[time] = (changed[time] + 1) % case.model.vocab_size
        return jax.device_put(changed)

    mask = np.array(chunk.mask)
    mask[last] = 0
    variants: dict[str, tuple[Hidden, Chunk]] = {
        "input at time 0": (hidden, chunk._replace(inputs=other(chunk.inputs, 0))),
        f"input at time {last}": (hidden, chunk._replace(inputs=other(chunk.inputs, last))),
        "target at the last time": (hidden, chunk._replace(targets=other(chunk.targets, last))),
        "mask": (hidden, chunk._replace(mask=jax.device_put(mask))),
    }
    for layer in range(case.model.layers):
        rows = [-rows if i == layer else rows for i, rows in enumerate(hidden)]
        variants[f"hidden state of layer {layer}"] = tuple(rows), chunk
    return variants


def state(subject: Subject) -> Iterator[Finding]:
    """Compare the state after a chunk, and see whether gradients flow through it in the chunk."""
    for case, hidden, chunk, answer in _chunks_in_a_row((SMALL, RAGGED)):
        after = [np.asarray(rows) for rows in subject.step(case)(hidden, chunk)[0]]
        away = [np.max(np.abs(a - b)) for a, b in zip(after, answer.hidden, strict=True)]
        if np.max(away) <= HIDDEN_TOLERANCE:
            continue
        seen = f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}"
        if all(np.array_equal(a, b) for a, b in zip(after, hidden, strict=True)):
            seen += "; it is the one that the call was given"
        yield subject.finding(
            "a call returns the state after its last character, the reference's within "
            f"{HIDDEN_TOLERANCE:g} ({sizes(case)})",
            seen,
        )
        return
    one_character = Case(SMALL.model, 1, batch=1)
    if _gradient_is_right(subject, SMALL) is False and _gradient_is_right(subject, one_character):
        yield subject.finding(
            "gradients flow back through the hidden state, from each character of a chunk to those "
            "before it",
            "the gradient of one character is right, that of eight is not: the state is detached, "
            "as by stop_gradient, or the chunk is cut",
            "step",
            "build",
        )


def _gradient_is_right(subject: Subject, case: Case) -> bool | None:
    """Return whether the gradient of a chunk is the reference's; None where it is zero."""
    hidden, chunk, step = random_hidden(case), random_chunk(case, 1), subject.step(case)
    step(hidden, chunk)
    gradient = gradient_of(step)
    if not any(np.any(array) for array in arrays(gradient).values()):
        return None
    right = reference.loss_and_grads(random_weights(case.model), hidden, chunk).grads
    return relative_norm(gradient, right) <= GRADIENT_TOLERANCE


def _chunks_in_a_row(
    cases: Sequence[Case],
) -> Iterator[tuple[Case, Hidden, Chunk, reference.Gradient]]:
    """Yield two chunks of each case, with the state that each begins with and the answer to it."""
    for case in cases:
        hidden = random_hidden(case)
        for chunk, answer in zip(pair(case), answers(case), strict=True):
            yield case, hidden, chunk, answer
            hidden = tuple(jax.device_put(rows.astype(np.float32)) for rows in answer.hidden)


def _too_far(
    given: dict[str, np.ndarray], right: dict[str, np.ndarray], tolerance: float
) -> dict[str, float]:
    """Return the arrays whose difference has a norm above `tolerance` of the right one's norm."""
    away = {
        name: float(np.linalg.norm(given[name] - right[name]) / np.linalg.norm(right[name]))
        for name in right
    }
    return {name: distance for name, distance in away.items() if not distance <= tolerance}


def usual_mistake(
    seen: float, weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk
) -> str | None:
    """Return in words the usual mistake that gives the loss that was seen; None if none does."""
    for words, loss in losses_of_mistakes(weights, hidden, chunk).items():
        if abs(seen / loss - 1) <= EXPLAINED:
            return words
    return None


def losses_of_mistakes(
    weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk
) -> dict[str, float]:
    """Return the reference's losses in nats where a usual mistake is made, by the mistake."""

    def loss(
        weights: Weights = weights, hidden: Sequence[AnyArray] = hidden, chunk: Chunk = chunk
    ) -> float:
        return reference.loss_and_grads(weights, hidden, chunk).loss

    right, mask, width = loss(), np.asarray(chunk.mask), len(weights.readout.kernel)
    input_first = [
        Dense(np.concatenate([kernel[-width:], kernel[:-width]]), bias)
        for kernel, bias in weights.cells
    ]
    no_biases = [Dense(kernel, np.zeros_like(bias)) for kernel, bias in flat(weights)]
    zero_state = [np.zeros(np.shape(rows)) for rows in hidden]
    zero_inputs = np.zeros_like(np.asarray(chunk.inputs))
    return {
        "kernels are applied to concatenate([x, hidden]), not to concatenate([hidden, x])": loss(
            unflat([*input_first, weights.readout])
        ),
        "biases are not added": loss(unflat(no_biases)),
        "the hidden state that a call is given is not used": loss(hidden=zero_state),
        "the mask is not used: padding counts": loss(chunk=chunk._replace(mask=np.ones_like(mask))),
        "losses are summed, where the mean is asked for": right * mask.sum(),
        "the sum is divided by the chunk's length, not by the targets that count": (
            right * mask.sum() / mask.size
        ),
        "inputs stand where the targets belong": loss(chunk=chunk._replace(targets=chunk.inputs)),
        "inputs are not used: each one is taken for character 0": loss(
            chunk=chunk._replace(inputs=zero_inputs)
        ),
        "it is in bits, where nats are asked for": right / float(np.log(2)),
    }
