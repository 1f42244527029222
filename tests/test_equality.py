"""Proof of equality: every entrant and style computes what the float64 reference says.

One table of entrant × style goes through every check; a new entrant is in it without an edit.
Planted differences go through the same checks, so that each check is known to fail.
"""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from common import reference
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import (
    Checkpoint,
    Chunk,
    Model,
    Params,
    Weights,
    flat,
    fresh_checkpoint,
    unflat,
    zero_hidden,
)
from common.equality import (
    OPTIMISER,
    TRAJECTORY_STEPS,
    Case,
    Deviation,
    NotEqualError,
    deviation,
    loss_and_gradient_deviation,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
    trajectory,
)
from common.sample import sample
from common.steps import FunctionalStep, adamw, functional, pure_style, stages_of
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE
from common.vocab import Vocab
from common.weights import Saved, load, save
from impls import pure_jax

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jaxtyping import Array

    from common.contract import Hidden, State, TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]
    type Build = Callable[[ModelConfig], Model]

ENTRANTS = [*impls.usual(), "numpy"]
ROWS = [(entrant, style) for entrant in ENTRANTS for style in impls.load(entrant).styles]
TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)
DECAYING = OptimiserConfig(0.01, weight_decay=10.0)
"""With a decay that shows; ten steps do not see the default one, nor what it is taken of."""
FEW = {"toy": TOY, "batch": Case(ModelConfig(7, 6, layers=2), 5, 8, optimiser=DECAYING)}
"""Cases of all but the baseline: a chunk alone and a batch. A run proves each arm once more at the
sizes that it measures."""
CASES = FEW | {"seed-8": Case(ModelConfig(64, 128), chunk=256, batch=8)}
BASELINE = (impls.BASELINE, "pure")
each_row = pytest.mark.parametrize(("entrant", "style"), ROWS, ids=map("-".join, ROWS))
CELLS = {
    f"{entrant}-{style}-{name}": (entrant, style, case)
    for name, case in CASES.items()
    for entrant, style in ROWS
    if (entrant, style) == BASELINE or name in FEW
}
each_cell = pytest.mark.parametrize(("entrant", "style", "case"), CELLS.values(), ids=CELLS)


# The checks. Entrants have to pass all of them; each plant below fails those that it can.


def check_ten_steps(step: TrainStep, case: Case, expected: np.ndarray) -> None:
    losses = trajectory(step, case)
    assert len(losses) == len(set(losses)) == TRAJECTORY_STEPS
    np.testing.assert_allclose(losses, expected, rtol=0, atol=TRAJECTORY_TOLERANCE)


def check_identity(model: Model, config: ModelConfig) -> None:
    """Weights that no initialiser gives, biases all different, come back bit by bit."""
    given = random_weights(config)
    assert_same(model.to_weights(model.from_weights(given)), given)


def check_fresh_init(model: Model, config: ModelConfig) -> None:
    """Parameters that the library made itself export, and come back as what they were."""
    fresh = model.init(jax.random.key(0))
    exported = model.to_weights(fresh)
    assert describe(exported) == describe(random_weights(config))
    assert_same(model.from_weights(exported), fresh)


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
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@cache
def model_of(entrant: str) -> Model:
    return impls.load(entrant).build(TOY.model)


@cache
def baseline_losses(step_of: StepOf, case: Case) -> np.ndarray:
    return trajectory(step_of(*BASELINE, case), case)


def train(step: TrainStep, start: Checkpoint, numbers: range) -> list[float]:
    """Make the updates `numbers`, each from the zero state; return their losses."""
    step.load(start)
    return [float(step(zero_hidden(TOY.model), random_chunk(TOY, i))[1]) for i in numbers]


# Every entrant and style.


@each_cell
def test_loss_gradient_and_ten_steps(entrant: str, style: str, case: Case, step_of: StepOf) -> None:
    loss, gradient = loss_and_gradient_deviation(step_of(entrant, style, case), case)
    assert loss <= LOSS_TOLERANCE
    assert gradient <= GRADIENT_TOLERANCE
    check_ten_steps(step_of(entrant, style, case), case, baseline_losses(step_of, case))


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
    check_ten_steps(step, case, np.array(losses))
    assert relative_norm(step.save().weights, checkpoint.weights) < 1e-4


@each_cell
def test_the_state_after_a_chunk(entrant: str, style: str, case: Case, step_of: StepOf) -> None:
    step = step_of(entrant, style, case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    chunk, before = random_chunk(case, 1), random_hidden(case)
    after, _ = step(before, chunk)
    answer = reference.loss_and_grads(random_weights(case.model), before, chunk)
    assert describe(after) == describe(before)
    for ours, theirs in zip(after, answer.hidden, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entrant", ENTRANTS)
def test_weights_come_in_and_go_out(entrant: str) -> None:
    check_identity(model_of(entrant), TOY.model)
    check_fresh_init(model_of(entrant), TOY.model)


@each_row
def test_a_checkpoint_comes_back(entrant: str, style: str, step_of: StepOf) -> None:
    """Bit by bit, before and after training, and into a step that has been used."""
    step = step_of(entrant, style, TOY)
    trees = [random_weights(TOY.model, seed) for seed in range(3)]
    given = Checkpoint(trees[0], mu=trees[1], nu=jax.tree.map(np.square, trees[2]), updates=7)
    step.load(given)
    assert_same(step.save(), given)
    train(step, given, range(2))
    trained = step.save()
    assert trained.updates == 9
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(trained[:3]))
    step.load(given)
    assert_same(step.save(), given)
    step.load(trained)
    assert_same(step.save(), trained)


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
    given = step_of(*second, TOY).save()
    assert given.updates == expected.updates == 6
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("entrant", "other"),
    list(zip(impls.usual(), [*impls.usual()[1:], impls.BASELINE], strict=True)),
)
def test_a_saved_model_samples_the_same_in_another_library(
    entrant: str, other: str, step_of: StepOf, tmp_path: Path
) -> None:
    step, vocab, path = step_of(entrant, "pure", TOY), Vocab("abcde"), tmp_path / "model"
    train(step, fresh_checkpoint(random_weights(TOY.model)), range(3))
    data = DataConfig(TOY.chunk)
    about = (vocab, TOY.model, data, OPTIMISER, 0, 1, "toy", "", entrant, "pure")
    save(path, Saved(step.save(), *about))
    texts = [
        sample(model, model.from_weights(weights), TOY.model, vocab, "abc", 80, temperature=1.5)
        for model, weights in (
            (model_of(entrant), step.save().weights),
            (model_of(other), load(path).checkpoint.weights),
        )
    ]
    assert texts[0] == texts[1]
    assert set(texts[0][3:]) == set("abcde")


# Planted differences.


class Plant(NamedTuple):
    """A difference to the baseline, and the names of the checks that have to fail for it."""

    build: Build
    around: Callable[[FunctionalStep, Model], TrainStep]
    """The training step, given the baseline's, which is compiled already."""
    caught_by: str


def fed_by(
    step: FunctionalStep, model: Model, change: Callable[[Any], Any] = lambda update: update
) -> TrainStep:
    """Return the baseline's step, which loads and saves through the functions of `model`."""
    return functional(change(step.update), model, adamw(OPTIMISER), stages_of(step.update))


def shifted(update: Any) -> Any:
    def changed(state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        targets = jnp.roll(chunk.targets, 1, axis=0)
        return update(state, hidden, chunk._replace(targets=targets))

    return changed


def forgetful(update: Any) -> Any:
    def changed(state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        state, _, loss = update(state, hidden, chunk)
        return state, hidden, loss

    return changed


def compiled(_: FunctionalStep, model: Model, rate: float = OPTIMISER.learning_rate) -> TrainStep:
    tuned = dataclasses.replace(OPTIMISER, learning_rate=rate)
    return pure_style(lambda _: model)(TOY.model, adamw(tuned))


def with_cell(cell: Callable[..., Array]) -> Build:
    """Return the baseline with another cell."""

    def step(params: Params, state: State, token: Array) -> tuple[State, Array]:
        *cells, readout = params
        x, new_state = jax.nn.one_hot(token, readout["bias"].shape[0]), []
        for layer, hidden in zip(cells, state, strict=True):
            x = cell(layer, hidden, x)
            new_state.append(x)
        return tuple(new_state), pure_jax.dense(readout, x)

    return lambda config: pure_jax.build(config)._replace(step=step)


def relu(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return jax.nn.relu(pure_jax.dense(layer, jnp.concatenate([hidden, x])))


def no_memory(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return pure_jax.cell(layer, jnp.zeros_like(hidden), x)


def no_time(layer: dict[str, Array], hidden: Array, x: Array) -> Array:
    return pure_jax.cell(layer, jax.lax.stop_gradient(hidden), x)


def swapped_bias(config: ModelConfig) -> Model:
    """Return the baseline, into which weights come with the biases of two layers swapped."""
    model = pure_jax.build(config)

    def from_weights(weights: Weights) -> Params:
        first, second, *rest = flat(weights)
        first, second = first._replace(bias=second.bias), second._replace(bias=first.bias)
        return model.from_weights(unflat([first, second, *rest]))

    return model._replace(from_weights=from_weights)


def swapped_bias_both_ways(config: ModelConfig) -> Model:
    """Return one that swaps them back on the way out, so that nothing shows from outside."""
    model, swapping = pure_jax.build(config), swapped_bias(config)

    def to_weights(params: Params) -> Weights:
        return model.to_weights(swapping.from_weights(model.to_weights(params)))

    return swapping._replace(to_weights=to_weights)


def wrong_path(config: ModelConfig) -> Model:
    """Return one whose weights come in at a place where nobody but `to_weights` looks."""
    model = pure_jax.build(config)

    def to_weights(params: Params) -> Weights:
        return model.to_weights(params["layers"] if isinstance(params, dict) else params)

    def from_weights(weights: Weights) -> Params:
        return {"layers": model.from_weights(weights)}

    def step(params: Params, state: State, token: Array) -> tuple[State, Array]:
        return model.step(params["layers"], state, token)

    return model._replace(to_weights=to_weights, from_weights=from_weights, step=step)


def double_precision(config: ModelConfig) -> Model:
    """Return one that hands its weights out in another dtype."""
    model = pure_jax.build(config)
    return model._replace(to_weights=lambda params: reference.double(model.to_weights(params)))


# What cannot be caught, and why:
# identity, fresh: weights go in and out the same whatever is computed from them; so only plants in
#   `to_weights` and `from_weights` show. A bias that is swapped both ways shows in neither, which
#   is why a weight test alone proves nothing.
# fresh: a fresh bias is zero, and a swapped zero is still zero (identity has other biases).
# loss: with the gradient cut short, or another learning rate, the first loss is the same.
# gradient: it is taken before the learning rate.
PLANTS = {
    "nothing": Plant(pure_jax.build, fed_by, ""),
    "relu": Plant(with_cell(relu), compiled, "loss, gradient, ten steps"),
    "swapped bias": Plant(swapped_bias, fed_by, "loss, gradient, ten steps, identity"),
    "swapped bias, both ways": Plant(swapped_bias_both_ways, fed_by, "loss, gradient, ten steps"),
    "no state from character to character": Plant(
        with_cell(no_memory), compiled, "loss, gradient, ten steps"
    ),
    "no state from chunk to chunk": Plant(
        pure_jax.build, partial(fed_by, change=forgetful), "loss, gradient, ten steps"
    ),
    "shifted targets": Plant(
        pure_jax.build, partial(fed_by, change=shifted), "loss, gradient, ten steps"
    ),
    "gradient cut at each character": Plant(with_cell(no_time), compiled, "gradient, ten steps"),
    "learning rate": Plant(
        pure_jax.build, partial(compiled, rate=OPTIMISER.learning_rate * 1.01), "ten steps"
    ),
    "wrong path": Plant(wrong_path, compiled, "fresh"),
    "float64 weights": Plant(double_precision, fed_by, "identity, fresh"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_fails(name: str, step_of: StepOf) -> None:
    baseline, losses = step_of(*BASELINE, TOY), baseline_losses(step_of, TOY)
    assert isinstance(baseline, FunctionalStep)
    plant = PLANTS[name]
    model = plant.build(TOY.model)
    step = plant.around(baseline, model)
    loss, gradient = loss_and_gradient_deviation(step, TOY)
    caught = {"loss": loss > LOSS_TOLERANCE, "gradient": gradient > GRADIENT_TOLERANCE}
    checks: dict[str, Callable[[], None]] = {
        "ten steps": partial(check_ten_steps, step, TOY, losses),
        "identity": partial(check_identity, model, TOY.model),
        "fresh": partial(check_fresh_init, model, TOY.model),
    }
    for name, check in checks.items():
        caught[name] = False
        try:
            check()
        except AssertionError:
            caught[name] = True
    assert ", ".join(name for name, failed in caught.items() if failed) == plant.caught_by


def test_a_deviation_says_what_differs(step_of: StepOf) -> None:
    baseline, losses = step_of(*BASELINE, TOY), baseline_losses(step_of, TOY)
    away = deviation(baseline, TOY, losses)
    away.require()
    assert away.trajectory == 0
    assert isinstance(baseline, FunctionalStep)
    other = fed_by(baseline, model_of(impls.BASELINE), shifted)
    with pytest.raises(
        NotEqualError,
        match=r"^not equal: loss off by \S+ relative to the float64 reference \(allowed: 1e-06\); "
        r"gradient off by .* \(allowed: 1e-05\); ten steps' losses off by .* \(allowed: 1e-05\)$",
    ):
        deviation(other, TOY, losses).require()


@pytest.mark.parametrize("field", ["loss", "gradient", "trajectory"])
def test_what_is_no_number_is_not_equal(field: str) -> None:
    with pytest.raises(NotEqualError, match="nan"):
        dataclasses.replace(Deviation(0.0, 0.0, 0.0), **{field: float("nan")}).require()
    expected = reference.double(random_weights(TOY.model))
    for number, layer in enumerate(flat(expected)):  # `max` passes NaN over by where it stands
        layers = list(flat(expected))
        layers[number] = layer._replace(bias=layer.bias * np.nan)
        assert not relative_norm(unflat(layers), expected) <= GRADIENT_TOLERANCE
