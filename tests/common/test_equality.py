"""Proof of equality: every entrant and style computes what the float64 reference says.

One table of entrant × style goes through every check; a new entrant is in it without an edit.
Planted differences go through the same checks, so that each check is known to fail.
"""

from __future__ import annotations

import dataclasses
import math
import re
from contextlib import nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from common import reference
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, flat, fresh_checkpoint, unflat, zero_hidden
from common.equality import (
    OPTIMISER,
    TRAJECTORY_STEPS,
    Case,
    Deviation,
    NotEqualError,
    answers,
    deviation,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
    trajectory,
)
from common.sample import sample
from common.steps import FunctionalStep, adamw, functional, pure_style, stages_of
from common.tolerances import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE
from common.vocab import Vocab
from common.weights import load, save
from impls import pure_jax
from tests.commands import saved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jaxtyping import Array

    from common.contract import Chunk, Hidden, Model, Params, State, TrainStep, Weights

    type StepOf = Callable[[str, str, Case], TrainStep]

ENTRANTS = [*impls.usual(), "numpy"]
ROWS = [(entrant, style) for entrant in ENTRANTS for style in impls.load(entrant).styles]
TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)
DECAYING = OptimiserConfig(0.01, weight_decay=10.0)
"""A decay that ten steps show; the default one they do not, nor what it is taken of."""
FEW = {"toy": TOY, "batch": Case(ModelConfig(7, 6, layers=2), 5, 8, optimiser=DECAYING)}
"""Cases of all but the baseline: a chunk alone and a batch. A run proves each arm once more at the
sizes that it measures."""
CASES = FEW | {"seed-2": Case(ModelConfig(64, 128), chunk=256, batch=2)}
BASELINE = (impls.BASELINE, "pure")
CELLS = {
    f"{entrant}-{style}-{name}": (entrant, style, case)
    for name, case in CASES.items()
    for entrant, style in ROWS
    if (entrant, style) == BASELINE or name in FEW
}


@cache
def model_of(entrant: str) -> Model:
    return impls.load(entrant).build(TOY.model)


@cache
def baseline_losses(step_of: StepOf, case: Case) -> np.ndarray:
    return trajectory(step_of(*BASELINE, case), case)


def describe(tree: Params) -> list[tuple[tuple[int, ...], np.dtype, bool]]:
    """Return shape and dtype of each leaf; a weak type would compile, and promote, differently."""
    return [
        (np.shape(leaf), np.asarray(leaf).dtype, getattr(leaf, "weak_type", False))
        for leaf in jax.tree.leaves(tree)
    ]


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that two trees are the same bit by bit, structure and dtypes included."""
    structure: Any = jax.tree.structure(ours)
    assert structure == jax.tree.structure(theirs)
    assert describe(ours) == describe(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def train(step: TrainStep, start: Checkpoint, numbers: range) -> list[float]:
    """Make the updates `numbers`, each from the zero state; return their losses."""
    step.load(start)
    return [float(step(zero_hidden(TOY.model), random_chunk(TOY, i))[1]) for i in numbers]


@pytest.mark.parametrize(("entrant", "style", "case"), CELLS.values(), ids=CELLS)
def test_loss_gradient_ten_steps_and_state(
    entrant: str, style: str, case: Case, step_of: StepOf
) -> None:
    step = step_of(entrant, style, case)
    deviation(step, case, baseline_losses(step_of, case)).require()
    step.load(fresh_checkpoint(random_weights(case.model)))
    before = random_hidden(case)
    after, _ = step(before, pair(case)[0])
    assert describe(after) == describe(before)
    for ours, theirs in zip(after, answers(case)[0].hidden, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ten_steps_of_the_baseline_are_the_references(case: Case, step_of: StepOf) -> None:
    checkpoint, losses = fresh_checkpoint(random_weights(case.model)), []
    hidden: tuple[Array | np.ndarray, ...] = zero_hidden(case.model, case.batch)
    for i in range(TRAJECTORY_STEPS):
        chunk = pair(case)[i % 2]
        loss, grads, hidden = reference.loss_and_grads(checkpoint.weights, hidden, chunk)
        checkpoint = reference.adamw(checkpoint, grads, case.optimiser)
        losses.append(loss)
    step = step_of(*BASELINE, case)
    ours = trajectory(step, case)
    assert len(set(ours)) == TRAJECTORY_STEPS
    np.testing.assert_allclose(ours, losses, rtol=0, atol=TRAJECTORY_TOLERANCE)
    assert relative_norm(step.save().weights, checkpoint.weights) < 1e-4


@pytest.mark.parametrize("entrant", ENTRANTS)
def test_weights_come_in_and_go_out(entrant: str) -> None:
    """Bit by bit: weights that no initialiser gives, and those that the library made itself."""
    model, given = model_of(entrant), random_weights(TOY.model)
    assert_same(model.to_weights(model.from_weights(given)), given)
    fresh = model.init(jax.random.key(0))
    exported = model.to_weights(fresh)
    assert describe(exported) == describe(given)
    assert_same(model.from_weights(exported), fresh)


@pytest.mark.parametrize(("entrant", "style"), ROWS, ids=map("-".join, ROWS))
def test_a_checkpoint_comes_back(entrant: str, style: str, step_of: StepOf) -> None:
    """Bit by bit, before and after training, and into a step that has been used."""
    step = step_of(entrant, style, TOY)
    trees = [random_weights(TOY.model, seed) for seed in range(3)]
    given = Checkpoint(trees[0], mu=trees[1], nu=jax.tree.map(np.square, trees[2]), updates=7)
    train(step, given, range(2))
    trained = step.save()
    assert trained.updates == 9
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(trained[:3]))
    for checkpoint in (given, trained):
        step.load(checkpoint)
        assert_same(step.save(), checkpoint)


@pytest.mark.parametrize(
    ("first", "second"),
    list(zip(ROWS, [*ROWS[1:], ROWS[0]], strict=True)),
    ids=map("-".join, ROWS),
)
def test_training_goes_on_in_another_style(
    first: tuple[str, str], second: tuple[str, str], step_of: StepOf
) -> None:
    """Three steps, and three steps in the next row, are six steps straight."""
    start = fresh_checkpoint(random_weights(TOY.model))
    straight = train(step_of(*first, TOY), start, range(6))
    expected = step_of(*first, TOY).save()
    before = train(step_of(*first, TOY), start, range(3))
    after = train(step_of(*second, TOY), step_of(*first, TOY).save(), range(3, 6))
    np.testing.assert_allclose(before + after, straight, rtol=0, atol=1e-6)
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, step_of(*second, TOY).save(), expected)


@pytest.mark.parametrize(
    ("entrant", "other"),
    list(zip(impls.usual(), [*impls.usual()[1:], impls.BASELINE], strict=True)),
)
def test_a_saved_model_samples_the_same_in_another_library(
    entrant: str, other: str, step_of: StepOf, tmp_path: Path
) -> None:
    step, vocab, path = step_of(entrant, "pure", TOY), Vocab("abcde"), tmp_path / "model"
    train(step, fresh_checkpoint(random_weights(TOY.model)), range(3))
    save(path, saved(checkpoint=step.save(), vocab=vocab, model=TOY.model))
    texts = [
        sample(model, model.from_weights(weights), TOY.model, vocab, "abc", 80, temperature=1.5)
        for model, weights in (
            (model_of(entrant), step.save().weights),
            (model_of(other), load(path).checkpoint.weights),
        )
    ]
    assert texts[0] == texts[1]
    assert set(texts[0][3:]) == set("abcde")


# Planted differences. Each is made of the baseline's step, which is compiled already, or of a
# model; the limits that it exceeds are named. A gradient that is cut short, or another learning
# rate, leaves the first losses as they are.


def with_cell(cell: Callable[..., Array], rate: float = OPTIMISER.learning_rate) -> TrainStep:
    """Return the baseline with another cell, or another learning rate."""

    def step(params: Params, state: State, token: Array) -> tuple[State, Array]:
        *cells, readout = params
        x, new_state = jax.nn.one_hot(token, readout["bias"].shape[0]), []
        for layer, hidden in zip(cells, state, strict=True):
            x = cell(layer, hidden, x)
            new_state.append(x)
        return tuple(new_state), pure_jax.dense(readout, x)

    model = pure_jax.build(TOY.model)._replace(step=step)
    optimiser = dataclasses.replace(OPTIMISER, learning_rate=rate)
    return pure_style(lambda _: model)(TOY.model, adamw(optimiser))


def relu(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return jax.nn.relu(pure_jax.dense(layer, jnp.concatenate([hidden, x])))


def no_memory(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return pure_jax.cell(layer, jnp.zeros_like(hidden), x)


def no_time(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return pure_jax.cell(layer, jax.lax.stop_gradient(hidden), x)


def shifted(update: Any, state: Any, hidden: Hidden, chunk: Chunk) -> Any:
    return update(state, hidden, chunk._replace(targets=jnp.roll(chunk.targets, 1, axis=0)))


def forgetful(update: Any, state: Any, hidden: Hidden, chunk: Chunk) -> Any:
    state, _, loss = update(state, hidden, chunk)
    return state, hidden, loss


def swapped(weights: Weights) -> Weights:
    first, second, *rest = flat(weights)
    return unflat([first._replace(bias=second.bias), second._replace(bias=first.bias), *rest])


def swapped_both_ways() -> Model:
    """Return a model that swaps biases on the way in and out, so that weights alone do not show."""
    model = pure_jax.build(TOY.model)
    return model._replace(
        from_weights=lambda weights: model.from_weights(swapped(weights)),
        to_weights=lambda params: swapped(model.to_weights(params)),
    )


ALL = "loss, gradient, ten steps' losses"
PLANTS: dict[str, tuple[Callable[[Any], TrainStep], str]] = {
    "nothing": (lambda step: step, ""),
    "relu": (lambda _: with_cell(relu), ALL),
    "no state from character to character": (lambda _: with_cell(no_memory), ALL),
    "no state from chunk to chunk": (lambda step: changed(step, forgetful), ALL),
    "shifted targets": (lambda step: changed(step, shifted), ALL),
    "swapped biases": (lambda step: changed(step, model=swapped_both_ways()), ALL),
    "gradient cut at each character": (lambda _: with_cell(no_time), "gradient, ten steps' losses"),
    "learning rate": (lambda _: with_cell(pure_jax.cell, rate=0.00202), "ten steps' losses"),
}


def changed(step: FunctionalStep, change: Any = None, model: Model | None = None) -> TrainStep:
    update = partial(change, step.update) if change else step.update
    model = model or pure_jax.build(TOY.model)
    return functional(update, model, adamw(OPTIMISER), stages_of(step.update))


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_fails(name: str, step_of: StepOf) -> None:
    plant, caught_by = PLANTS[name]
    away = deviation(plant(step_of(*BASELINE, TOY)), TOY, baseline_losses(step_of, TOY))
    with pytest.raises(NotEqualError) if caught_by else nullcontext() as caught:
        away.require()
    message = str(caught.value) if caught else ""
    assert ", ".join(re.findall(r"[:;] ([a-z ']+) off by \S+ ", message)) == caught_by


@pytest.mark.parametrize("field", ["loss", "gradient", "trajectory"])
def test_what_is_no_number_is_not_equal(field: str) -> None:
    with pytest.raises(NotEqualError, match="nan"):
        dataclasses.replace(Deviation(0.0, 0.0, 0.0), **{field: math.nan}).require()
    expected = reference.double(random_weights(TOY.model))
    for number, layer in enumerate(flat(expected)):  # `max` passes NaN over by where it stands
        layers = list(flat(expected))
        layers[number] = layer._replace(bias=layer.bias * np.nan)
        assert not relative_norm(unflat(layers), expected) <= GRADIENT_TOLERANCE
