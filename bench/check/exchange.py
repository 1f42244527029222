"""Weights in and out: what one library trains, another has to be able to go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.check.finding import Finding
from bench.check.subject import RAGGED, SMALL, arrays
from common.contract import Checkpoint, Dense, flat, unflat
from common.equality import random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import Subject
    from common.contract import Weights

UPDATES = 7
"""Of a checkpoint in the middle of a training run."""


def of_model(subject: Subject) -> Iterator[Finding]:
    """Send weights in and out, and fresh ones out, in and out again."""
    for case in (SMALL, RAGGED):
        model, given = subject.model(case), random_weights(case.model)
        back = model.to_weights(model.from_weights(given))
        where = subject.at("from_weights")
        if wrong := [*same("to_weights(from_weights(w)) is w, bit by bit", given, back, where)]:
            yield from wrong
            break
    model, params = subject.model(SMALL), subject.initial(SMALL)
    exported = model.to_weights(params)
    again = model.from_weights(exported)
    ours: Any = jax.tree.structure(again)
    if ours != jax.tree.structure(params):
        yield Finding(
            "from_weights makes the structure that init makes",
            f"{ours} where init makes {jax.tree.structure(params)}"[:400],
            where,
        )
    expected = "what init made comes out of to_weights, goes in by from_weights, and comes out"
    yield from same(expected, exported, model.to_weights(again), where)
    other = model.to_weights(subject.initial(SMALL, seed=1))
    both = zip(arrays(exported), arrays(other), strict=True)
    if all(np.array_equal(a, b) for (_, a), (_, b) in both):
        yield Finding(
            "init depends on its key: another key, other weights",
            "two keys gave the same weights, bit by bit",
            subject.at("init"),
        )


def of_step(subject: Subject) -> Iterator[Finding]:
    """Load a training run that is under way, and save it."""
    for case in (SMALL, RAGGED):
        given, step = under_way(case.model), subject.step(case)
        step.load(given)
        saved, where = step.save(), subject.style_at
        for part in ("weights", "mu", "nu"):
            ours, theirs = getattr(given, part), getattr(saved, part)
            expected = f"save() returns the {part} that load() was given"
            if wrong := [*same(expected, ours, theirs, where)]:
                yield from wrong
                return
        if saved.updates != given.updates:
            yield Finding(
                f"save() returns the updates that load() was given: {given.updates}",
                f"it returned {saved.updates}",
                where,
            )


def under_way(config: Any) -> Checkpoint:
    """Return a checkpoint with moments, as after a few updates."""
    squares = unflat(
        Dense(kernel**2 + 0.01, bias**2 + 0.01) for kernel, bias in flat(random_weights(config, 2))
    )
    return Checkpoint(random_weights(config), random_weights(config, 1), squares, UPDATES)


def same(expected: str, given: Weights, back: Weights, where: str) -> Iterator[Finding]:
    """Compare two sets of weights bit by bit."""
    for (name, ours), (_, theirs) in zip(arrays(given), arrays(back), strict=False):
        if ours.shape == theirs.shape and np.array_equal(ours, theirs):
            continue
        if ours.shape != theirs.shape:
            seen = f"{name} is {theirs.shape} instead of {ours.shape}"
        else:
            away = np.abs(ours.astype(np.float64) - theirs)
            seen = (
                f"{name} differs in {np.sum(away > 0)} of {away.size} numbers, by {away.max():.2g}"
            )
            if ours.ndim == 2 and ours.shape[0] == ours.shape[1] and np.array_equal(ours.T, theirs):
                seen += "; it is the transpose"
        yield Finding(expected, seen, where)
        return
