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
import numpy as np
import pytest

import impls
from common import reference
from common.config import GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE, WORKLOADS, ModelConfig
from common.contract import Checkpoint, flat, fresh_checkpoint, map_arrays, unflat, zero_hidden
from common.equality import (
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
from common.steps import Threaded, adamw, functional, pure_style
from impls import pure_jax
from tests.commands import TOY, every_style

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.config import Workload
    from common.contract import Chunk, Hidden, Params, State, TrainStep
    from tests.commands import StepOf

ENTRANTS = [*impls.list_usual(), "numpy"]
ROWS = [(entrant, style) for entrant in ENTRANTS for style in impls.load(entrant).styles]
BASELINE = (impls.BASELINE, "pure")


@cache
def baseline_losses(step_of: StepOf) -> np.ndarray:
    return trajectory(step_of(*BASELINE, TOY), TOY)


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


@every_style(ROWS)
def test_loss_gradient_ten_steps_and_state(entrant: str, style: str, step_of: StepOf) -> None:
    step = step_of(entrant, style, TOY)
    deviation(step, TOY, baseline_losses(step_of))[0].require()
    step.load(fresh_checkpoint(random_weights(TOY.model)))
    before = random_hidden(TOY)
    after, _ = step(before, pair(TOY)[0])
    assert describe(after) == describe(before)
    for ours, theirs in zip(after, answers(TOY)[0].hidden, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_the_decay_is_exact_for_a_library_that_multiplies_weights_by_it(workload: Workload) -> None:
    optimiser = Case.from_workload(workload, vocab_size=64).optimiser
    factor = 1 - optimiser.learning_rate * optimiser.weight_decay
    assert float(np.float32(factor)) == factor < 1


def test_ten_steps_of_the_baseline_are_the_references(step_of: StepOf) -> None:
    case = Case(ModelConfig(64, 128), chunk=64, batch=1)
    checkpoint, losses = fresh_checkpoint(reference.double(random_weights(case.model))), []
    hidden: tuple[jax.Array | np.ndarray, ...] = zero_hidden(case.model, case.batch)
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


def test_the_layerwise_gradient_is_equal_in_three_groups_of_streams(step_of: StepOf) -> None:
    """In one group it is one of the rows; in the last chunk, some groups have no character."""
    case = Case(ModelConfig(7, 8, layers=1), chunk=4, batch=24)
    baseline = trajectory(step_of(*BASELINE, case), case)
    deviation(step_of(impls.BASELINE, "tuned", case), case, baseline)[0].require()


@pytest.mark.parametrize("entrant", ENTRANTS)
def test_weights_come_in_and_go_out(entrant: str) -> None:
    """Bit by bit: weights that no initialiser gives, and those that the library made itself, which
    depend on the key alone, and differ from layer to layer."""
    model, given = impls.load(entrant).build(TOY.model), random_weights(TOY.model)
    assert_same(model.to_weights(model.from_weights(given)), given)
    fresh = model.init(jax.random.key(0))
    exported = model.to_weights(fresh)
    assert describe(exported) == describe(given)
    assert_same(model.from_weights(exported), fresh)
    assert_same(model.to_weights(model.init(jax.random.key(0))), exported)
    other = model.to_weights(model.init(jax.random.key(1)))
    kernels = [layer.kernel for weights in (exported, other) for layer in flat(weights)]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == len(kernels)


@every_style(ROWS)
def test_training_goes_on_from_a_checkpoint_in_any_style(
    entrant: str, style: str, step_of: StepOf
) -> None:
    """As in the baseline, bit by bit at its start, and into a step that has been used."""
    trees = [random_weights(TOY.model, seed) for seed in range(3)]
    start = Checkpoint(trees[0], mu=trees[1], nu=map_arrays(np.square, trees[2]), updates=7)
    losses, ends = [], []
    for step in (step_of(*BASELINE, TOY), step_of(entrant, style, TOY)):
        step.load(start)
        assert_same(step.save(), start)
        steps = (step(random_hidden(TOY), random_chunk(TOY, i)) for i in range(3))
        losses.append([float(loss) for _, loss in steps])
        ends.append(step.save())
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-5), *ends)
    assert ends[1].updates == 10
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(ends[1][:3]))
    assert describe(ends[1][:3]) == describe(start[:3])
    step.load(ends[1])
    assert_same(step.save(), ends[1])


@pytest.mark.parametrize("arm", [("numpy", "loop"), BASELINE], ids="-".join)
def test_large_logits_give_no_nan(arm: tuple[str, str], step_of: StepOf) -> None:
    """A gap of 90 nats, at which softmax and then its logarithm overflow."""
    *cells, readout = flat(random_weights(TOY.model))
    weights = unflat([*cells, readout._replace(kernel=readout.kernel * 1000)])
    step, hidden, chunk = step_of(*arm, TOY), random_hidden(TOY), random_chunk(TOY, 1)
    step.load(fresh_checkpoint(weights))
    _, loss = step(hidden, chunk)
    expected = reference.loss_and_grads(reference.double(weights), hidden, chunk).loss
    assert expected > 90
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.save()))


# Planted differences, and the limits that each exceeds: a gradient that is cut short, or another
# learning rate, leaves the first losses as they are.

PLAIN = pure_jax.build(TOY.model)


def altered(step: Any = PLAIN.step, rate: float = TOY.optimiser.learning_rate) -> TrainStep:
    """Return plain JAX with another step of the model, or another learning rate."""
    optimiser = dataclasses.replace(TOY.optimiser, learning_rate=rate)
    return pure_style(lambda _: PLAIN._replace(step=step))(TOY.model, adamw(optimiser))


def no_time(params: Params, state: State, token: jax.Array) -> tuple[State, jax.Array]:
    """Cut the gradient at the state of the character before."""
    return PLAIN.step(params, jax.lax.stop_gradient(state), token)


def forgetful(step: Threaded) -> TrainStep:
    """Return the step with the state as it was before the chunk."""

    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state, _, loss = step.step(params, opt_state, hidden, chunk)
        return params, opt_state, hidden, loss

    return functional(train_step, PLAIN, adamw(TOY.optimiser), step.step)


PLANTS: dict[str, tuple[Callable[[Any], TrainStep], str]] = {
    "nothing": (lambda step: step, ""),
    "no state from chunk to chunk": (forgetful, "loss, gradient, ten steps' losses"),
    "gradient cut at each character": (lambda _: altered(no_time), "gradient, ten steps' losses"),
    "learning rate": (lambda _: altered(rate=0.0101), "ten steps' losses"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_difference_fails(name: str, step_of: StepOf) -> None:
    plant, caught_by = PLANTS[name]
    away, _ = deviation(plant(step_of(*BASELINE, TOY)), TOY, baseline_losses(step_of))
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


@pytest.mark.parametrize(("size", "is_equal"), [(1e-40, True), (1e-30, False)])
def test_what_float32_cannot_hold_is_not_compared(size: float, *, is_equal: bool) -> None:
    """The gradient of the first of 154 layers is less than its smallest number."""
    first, *others = flat(reference.double(random_weights(TOY.model)))
    tiny, nothing = (
        unflat([first._replace(kernel=factor * first.kernel), *others]) for factor in (size, 0.0)
    )
    assert (relative_norm(nothing, tiny) <= GRADIENT_TOLERANCE) == is_equal
