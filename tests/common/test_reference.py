"""The judge is judged: by finite differences, by a formula written another way, and by optax."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from common import reference
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Chunk, Weights, flat, fresh_checkpoint
from common.equality import Case, random_chunk, random_hidden, random_weights

EPSILON = 1e-6
DECAYING = OptimiserConfig(learning_rate=0.05, weight_decay=0.3)
"""A decay that shows: at the default, ten steps with and without it agree to ten digits."""


def tiny(layers: int) -> Case:
    return Case(ModelConfig(4, 3, layers), chunk=5, batch=2)


def half_masked(case: Case) -> Chunk:
    """Return a chunk that is padded as the chunker pads: whole times, and one stream's end."""
    chunk = random_chunk(case, seed=1, masked=1)
    mask = np.array(chunk.mask)
    mask[case.chunk - 2 :, 1] = 0
    return chunk._replace(mask=mask)


def loss_one_by_one(weights: Weights, hidden: list[np.ndarray], chunk: Chunk) -> float:
    """Return the mean of -log p(target), stream by stream, character by character."""
    inputs, targets, mask = (np.asarray(array) for array in chunk)
    losses = []
    for stream in range(inputs.shape[1]):
        state = [rows[stream] for rows in hidden]
        for token, target, counts in zip(
            inputs[:, stream], targets[:, stream], mask[:, stream], strict=True
        ):
            x = np.zeros(weights.readout.bias.size)
            x[token] = 1
            for layer, (kernel, bias) in enumerate(weights.cells):
                recurrent, below = np.split(np.asarray(kernel), [len(state[layer])])
                x = state[layer] = np.tanh(state[layer] @ recurrent + x @ below + bias)
            odds = np.exp(x @ weights.readout.kernel + weights.readout.bias)
            if counts:
                losses.append(-np.log(odds[target] / odds.sum()))
    return float(np.mean(losses))


def as_double(case: Case) -> tuple[Weights, list[np.ndarray]]:
    hidden = [np.asarray(rows, np.float64) for rows in random_hidden(case)]
    return reference.double(random_weights(case.model)), hidden


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_loss_is_the_formula_and_gradients_are_its_central_differences(layers: int) -> None:
    case = tiny(layers)
    weights, hidden = as_double(case)
    chunk = half_masked(case)
    answer = reference.loss_and_grads(weights, hidden, chunk)
    ignored = np.where(np.asarray(chunk.mask) == 0, 1 - chunk.targets % 2, chunk.targets)
    assert (ignored != chunk.targets).any()
    again = reference.loss_and_grads(weights, hidden, chunk._replace(targets=ignored))
    assert jax.tree.all(jax.tree.map(np.array_equal, again, answer))
    assert answer.loss == pytest.approx(loss_one_by_one(weights, hidden, chunk), rel=1e-13)
    for dense, gradient in zip(flat(weights), flat(answer.grads), strict=True):
        for array, expected in zip(dense, gradient, strict=True):
            assert isinstance(array, np.ndarray)
            numeric = np.zeros_like(array)
            for index in np.ndindex(array.shape):
                value = array[index]
                array[index] = value + EPSILON
                above = loss_one_by_one(weights, hidden, chunk)
                array[index] = value - EPSILON
                below = loss_one_by_one(weights, hidden, chunk)
                numeric[index] = (above - below) / (2 * EPSILON)
                array[index] = value
            assert np.linalg.norm(expected) > 1e-3
            np.testing.assert_allclose(expected, numeric, rtol=0, atol=1e-9)


def test_two_chunks_are_one_long_chunk() -> None:
    case = tiny(3)
    weights, hidden = as_double(case)
    chunk = random_chunk(case, seed=1)
    whole = reference.loss_and_grads(weights, hidden, chunk)
    first = reference.loss_and_grads(weights, hidden, Chunk(*(array[:2] for array in chunk)))
    second = reference.loss_and_grads(weights, first.hidden, Chunk(*(a[2:] for a in chunk)))
    assert (2 * first.loss + 3 * second.loss) / 5 == pytest.approx(whole.loss, rel=1e-13)
    for ours, theirs in zip(second.hidden, whole.hidden, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("config", [OptimiserConfig(), DECAYING], ids=["default", "decaying"])
def test_adamw_is_optax_adamw(config: OptimiserConfig) -> None:
    """Ten steps on gradients of many magnitudes, both in float64."""
    rng = np.random.default_rng(0)
    ours = fresh_checkpoint(reference.double(random_weights(tiny(2).model)))
    optimiser = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, ours.weights)
        state = optimiser.init(params)
        for _ in range(10):
            grads = jax.tree.map(
                lambda a: rng.normal(size=a.shape) * 10.0 ** rng.integers(-8, 2), ours.weights
            )
            ours = reference.adamw(ours, grads, config)
            updates, state = optimiser.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        mu, nu = (optax.tree.get(state, name) for name in ("mu", "nu"))
        theirs = Checkpoint(params, mu, nu, int(optax.tree.get(state, "count")))
    assert ours.updates == theirs.updates == 10
    for name, ours_tree, theirs_tree in zip(Checkpoint._fields[:3], ours, theirs, strict=False):
        for a, b in zip(jax.tree.leaves(ours_tree), jax.tree.leaves(theirs_tree), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=0, err_msg=name)
