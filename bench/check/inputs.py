"""Whether all that a call is given matters: every character, the state, and what flows back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.check.finding import Finding
from bench.check.numbers import loss_of, on_device, subject_call
from bench.check.subject import RAGGED, SMALL, array, arrays, sizes
from common import reference
from common.equality import (
    Case,
    answers,
    gradient_of,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
)
from common.tolerances import GRADIENT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import Subject
    from common.contract import Chunk, Hidden

LITTLE = 0.01
"""A change of less than this part of what it should be is none."""
HIDDEN_TOLERANCE = 1e-5
"""Absolute, of states between -1 and 1."""


def inputs(subject: Subject) -> Iterator[Finding]:
    """Change one thing that a call is given, and see whether the loss changes."""
    for case in (SMALL, RAGGED):
        hidden, chunk = random_hidden(case), random_chunk(case, 1)
        before = loss_of(subject, case, hidden, chunk)
        expected, unused = answer(case, hidden, chunk), []
        for what, (other_hidden, other) in variants(case, hidden, chunk).items():
            change = answer(case, other_hidden, other) - expected
            seen = loss_of(subject, case, other_hidden, other) - before
            if abs(seen) < LITTLE * abs(change):
                unused.append(
                    f"another {what} changes it by {seen:.2g} nats instead of {change:+.2g}"
                )
        if unused:
            yield Finding(
                f"all that a call is given changes the loss ({sizes(case)})",
                f"{'; '.join(unused)}: that is not used",
                subject.at("step", "build", subject.style_name, "STYLES"),
            )
            return


def answer(case: Case, hidden: Hidden, chunk: Chunk) -> float:
    """Return the reference's loss from the usual weights."""
    return reference.loss_and_grads(random_weights(case.model), hidden, chunk).loss


def variants(case: Case, hidden: Hidden, chunk: Chunk) -> dict[str, tuple[Hidden, Chunk]]:
    """Return what a call may be given instead, by what is changed."""
    last = case.chunk - 1

    def other(tokens: Any, time: int) -> Any:
        changed = np.array(tokens)
        changed[time] = (changed[time] + 1) % case.model.vocab_size
        return jax.device_put(changed)

    mask = np.array(chunk.mask)
    mask[last] = 0
    found: dict[str, tuple[Hidden, Chunk]] = {
        f"input at time {time}": (hidden, chunk._replace(inputs=other(chunk.inputs, time)))
        for time in (0, last)
    }
    found["target at the last time"] = hidden, chunk._replace(targets=other(chunk.targets, last))
    found["mask"] = hidden, chunk._replace(mask=jax.device_put(mask))
    for layer in range(case.model.layers):
        rows = [-rows if i == layer else rows for i, rows in enumerate(hidden)]
        found[f"hidden state of layer {layer}"] = tuple(rows), chunk
    return found


def state(subject: Subject) -> Iterator[Finding]:
    """Compare the state after a chunk, and see whether gradients flow through it in the chunk."""
    for case in (SMALL, RAGGED):
        hidden: Hidden = random_hidden(case)
        for chunk, found in zip(pair(case), answers(case), strict=True):
            after = [array(rows) for rows in subject_call(subject, case, hidden, chunk)[0]]
            away = [np.max(np.abs(a - b)) for a, b in zip(after, found.hidden, strict=True)]
            if not np.max(away) <= HIDDEN_TOLERANCE:
                unchanged = all(np.array_equal(a, b) for a, b in zip(after, hidden, strict=True))
                seen = f"layer {int(np.argmax(away))} is off by {np.max(away):.2g}"
                seen += "; it is the one that the call was given" if unchanged else ""
                yield Finding(
                    "a call returns the state after its last character, the reference's within "
                    f"{HIDDEN_TOLERANCE:g} ({sizes(case)})",
                    seen,
                    subject.style_at,
                )
                return
            hidden = on_device(found.hidden)
    yield from through_time(subject)


def through_time(subject: Subject) -> Iterator[Finding]:
    """Compare gradients of one character, where there is no time, and of a whole chunk."""
    if near(subject, SMALL) is not False or not near(subject, Case(SMALL.model, 1, batch=1)):
        return
    yield Finding(
        "gradients flow back through the hidden state, from each character of a chunk to those "
        "before it",
        "the gradient of one character is right, that of eight is not: the state is detached, as "
        "by stop_gradient, or the chunk is cut",
        subject.at("step", "build", subject.style_name, "STYLES"),
    )


def near(subject: Subject, case: Case) -> bool | None:
    """Return whether the gradient of a chunk of this case is the reference's; None if it is zero.

    Where there is none at all, it says nothing of the state.
    """
    hidden, chunk = random_hidden(case), random_chunk(case, 1)
    step = subject.step(case)
    step(hidden, chunk)
    if not any(np.any(moment) for _, moment in arrays(step.save().mu)):
        return None
    found = reference.loss_and_grads(random_weights(case.model), hidden, chunk).grads
    return relative_norm(gradient_of(step), found) <= GRADIENT_TOLERANCE
