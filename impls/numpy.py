"""Character RNN in NumPy, without autodiff: backpropagation through time is written by hand.

It shows a reader what the libraries do: one interpreted loop forward over the characters, one
backward, and AdamW, all in float32. No work is hoisted out of the loops. An outside reference, not
a JAX library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from common.contract import Checkpoint, Dense, Model, Weights, flat, unflat

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float32, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, TrainStep
    from common.steps import Configured

    type Array = Float32[Any, "..."]
    type Rows = tuple[Float32[Any, "*batch width"], ...]

DISTRIBUTION = "numpy"
JAX = False
NOTE = "NumPy is not a JAX library: an outside reference, which runs an interpreted loop."
COLOUR = "#8C6BB1"

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def dense(params: Dense, x: Float32[Any, "*batch in"]) -> Float32[Any, "*batch out"]:
    """Return `x @ kernel + bias`."""
    return x @ params.kernel + params.bias


def one_hot(params: Weights, tokens: Int[Any, "*shape"]) -> Float32[Any, "*shape vocab"]:
    """Return the vectors that stand for characters."""
    return np.eye(len(params.readout.bias), dtype=np.float32)[tokens]


def cells(params: Weights, state: Rows, x: Array) -> tuple[list[Array], Rows]:
    """Return what each layer read, which its gradient needs, and the new state of each."""
    read, new_state = [], []
    for layer, hidden in zip(params.cells, state, strict=True):
        read.append(np.concatenate([hidden, x], axis=-1))
        x = np.tanh(dense(layer, read[-1]))
        new_state.append(x)
    return read, tuple(new_state)


def char_rnn(params: Weights, state: Rows, token: Int[Any, ""]) -> tuple[Rows, Array]:
    """Return the new states and the logits of the next character."""
    _, new_state = cells(params, state, one_hot(params, token))
    return new_state, dense(params.readout, new_state[-1])


def loss_and_grads(params: Weights, hidden: Rows, chunk: Chunk) -> tuple[Array, Weights, Rows]:
    """Return the mean loss in nats per character, its gradient, and the state after the chunk."""
    inputs, targets, mask = (np.asarray(array) for array in chunk)
    read, states = [], []
    for x in one_hot(params, inputs):
        joined, hidden = cells(params, hidden, x)
        read.append(joined)
        states.append(hidden)

    logits = dense(params.readout, np.stack([state[-1] for state in states]))
    logits -= logits.max(axis=-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    of_target = (*np.indices(targets.shape), targets)
    weight = mask / mask.sum()
    loss = -(log_p[of_target] * weight).sum()

    d_logits = np.exp(log_p)
    d_logits[of_target] -= 1
    d_logits *= weight[..., None]
    grads = zeros_like(params)
    d_state = [np.zeros_like(rows) for rows in hidden]
    for t in reversed(range(len(inputs))):
        d_x = backward(params.readout, grads.readout, states[t][-1], d_logits[t])
        for i in reversed(range(len(d_state))):
            # two paths lead here: up to the layer above, and on to the next character
            d_sum = (d_x + d_state[i]) * (1 - states[t][i] ** 2)
            d_joined = backward(params.cells[i], grads.cells[i], read[t][i], d_sum)
            d_state[i], d_x = np.split(d_joined, [d_state[i].shape[-1]], axis=-1)
    return loss, grads, hidden


def backward(params: Dense, grads: Dense, x: Array, d_out: Array) -> Array:
    """Add to the gradient of an affine map in place; return the gradient by its input."""
    grads.kernel[...] += x.T @ d_out
    grads.bias[...] += d_out.sum(axis=0)
    return d_out @ params.kernel.T


def map_arrays(function: Callable[..., Array], *trees: Weights) -> Weights:
    """Return the weights whose arrays are `function` of the arrays of `trees`."""
    layers = zip(*map(flat, trees), strict=True)
    return unflat(Dense(*map(function, *layer)) for layer in layers)


def zeros_like(weights: Weights) -> Weights:
    """Return zeros of the shapes of `weights`."""
    return map_arrays(np.zeros_like, weights)


def copy_weights(weights: Weights) -> Weights:
    """Return `weights` in fresh buffers."""
    return map_arrays(lambda array: np.array(array, np.float32), weights)


def build(config: ModelConfig) -> Model:
    """Return the model as functions over library-neutral weights, whose arrays are NumPy's."""

    def init(key: PRNGKeyArray) -> Weights:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

        def lecun_normal(rows: int, columns: int) -> Dense:
            kernel = rng.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))
            return Dense(kernel, np.zeros(columns, np.float32))

        layers = [lecun_normal(rows, config.width) for rows in config.in_features]
        return unflat([*layers, lecun_normal(config.width, config.vocab_size)])

    return Model(init, char_rnn, to_weights=copy_weights, from_weights=copy_weights)


class Loop:
    """The training step, around a checkpoint that each call replaces."""

    def __init__(self, optimiser: Configured) -> None:
        self.config = optimiser.config

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.weights, self.mu, self.nu = (copy_weights(tree) for tree in checkpoint[:3])
        self.updates = checkpoint.updates

    def save(self) -> Checkpoint:  # noqa: D102
        weights, mu, nu = (copy_weights(tree) for tree in (self.weights, self.mu, self.nu))
        return Checkpoint(weights, mu, nu, self.updates)

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Rows, Array]:  # noqa: D102
        rows = tuple(np.asarray(row) for row in hidden)
        loss, grads, rows = loss_and_grads(self.weights, rows, chunk)
        self.adamw(grads)
        return rows, loss

    def adamw(self, grads: Weights) -> None:
        """Update weights and moments in place."""
        self.updates += 1
        of_mu, of_nu = 1 - BETA1**self.updates, 1 - BETA2**self.updates
        rate, decay = self.config.learning_rate, self.config.weight_decay

        def update(p: Array, m: Array, v: Array, g: Array) -> Array:
            m += (1 - BETA1) * (g - m)
            v += (1 - BETA2) * (g**2 - v)
            p -= rate * (m / of_mu / (np.sqrt(v / of_nu) + EPSILON) + decay * p)
            return p

        map_arrays(update, self.weights, self.mu, self.nu, grads)

    def program(self, hidden: Hidden, chunk: Chunk) -> None:  # noqa: ARG002, D102
        return None


def loop(config: ModelConfig, optimiser: Configured) -> TrainStep:  # noqa: ARG001
    """An interpreted loop over the characters, forward and back, and AdamW in place."""
    return Loop(optimiser)


STYLES = {"loop": loop}
