"""The judge is judged: by finite differences, by a formula written another way, and by optax."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from common import reference
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Chunk, Weights, fresh_checkpoint
from common.equality import Case, random_chunk, random_hidden, random_weights

EPSILON = 1e-6


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


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_loss_is_the_formula_and_gradients_are_its_central_differences(layers: int) -> None:
    case = Case(ModelConfig(4, 3, layers), chunk=5, batch=2)
    weights = reference.double(random_weights(case.model))
    hidden = [np.asarray(rows, np.float64) for rows in random_hidden(case)]
    chunk = random_chunk(case, seed=1, masked=1)
    mask = np.array(chunk.mask)
    mask[case.chunk - 2 :, 1] = 0  # padded as the chunker pads: whole times, and a stream's end
    chunk = chunk._replace(mask=mask)
    answer = reference.loss_and_grads(weights, hidden, chunk)
    ignored = np.where(np.asarray(chunk.mask) == 0, 1 - chunk.targets % 2, chunk.targets)
    assert (ignored != chunk.targets).any()
    again = reference.loss_and_grads(weights, hidden, chunk._replace(targets=ignored))
    assert jax.tree.all(jax.tree.map(np.array_equal, again, answer))
    assert answer.loss == pytest.approx(loss_one_by_one(weights, hidden, chunk), rel=1e-13)
    for array, expected in zip(*map(jax.tree.leaves, (weights, answer.grads)), strict=True):
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value, around = array[index], []
            for array[index] in (value - EPSILON, value + EPSILON):
                around.append(loss_one_by_one(weights, hidden, chunk))
            numeric[index] = np.diff(around)[0] / (2 * EPSILON)
            array[index] = value
        assert np.linalg.norm(expected) > 1e-3
        np.testing.assert_allclose(expected, numeric, rtol=0, atol=1e-9)


def test_adamw_is_optax_adamw() -> None:
    """Ten steps on gradients of many magnitudes, both in float64."""
    config = OptimiserConfig(learning_rate=0.05, weight_decay=0.3)  # a decay that shows
    rng = np.random.default_rng(0)
    ours = fresh_checkpoint(reference.double(random_weights(ModelConfig(4, 3, layers=2))))
    optimiser = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, ours.weights)
        state, update = optimiser.init(params), jax.jit(optimiser.update)
        for _ in range(10):
            grads = jax.tree.map(
                lambda a: rng.normal(size=a.shape) * 10.0 ** rng.integers(-8, 2), ours.weights
            )
            ours = reference.adamw(ours, grads, config)
            updates, state = update(grads, state, params)
            params = jax.tree.map(np.add, params, updates)
        mu, nu = (optax.tree.get(state, name) for name in ("mu", "nu"))
        theirs = Checkpoint(params, mu, nu, int(optax.tree.get(state, "count")))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=0), ours, theirs)
