"""The RNN in NumPy, with backpropagation through time written by hand: forward, back, AdamW.

In float64 it is the reference that styles are compared with; `impls/numpy.py` trains with it in
float32. It shares no line with the other entrants. Gradients follow Werbos, "Backpropagation
through time: what it does and how to do it" (Proc. IEEE 78, 1990); AdamW follows Loshchilov and
Hutter, "Decoupled weight decay regularization" (ICLR 2019), with optax's defaults.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.contract import Checkpoint, Dense, Weights, map_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from common.config import OptimiserConfig
    from common.contract import AnyArray, Chunk

    type Array = Float[np.ndarray, "..."]
    type Rows = tuple[Float[np.ndarray, "*batch width"], ...]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Gradient(NamedTuple):
    """Loss, gradient and state for one chunk."""

    loss: Any
    """Mean loss in nats per character."""
    grads: Weights
    hidden: Rows
    """State after the chunk."""


def double(weights: Weights) -> Weights:
    """Return `weights` in float64."""
    return map_arrays(partial(np.asarray, dtype=np.float64), weights)


def dense(params: Dense, x: Float[Any, "*batch in"]) -> Float[Any, "*batch out"]:
    """Return `x @ kernel + bias`."""
    return x @ params.kernel + params.bias


def one_hot(weights: Weights, tokens: Int[Any, "*shape"]) -> Float[Any, "*shape vocab"]:
    """Return the vectors that stand for characters."""
    bias = weights.readout.bias
    return np.eye(len(bias), dtype=bias.dtype)[tokens]


def cells(weights: Weights, state: Rows, x: Array) -> tuple[list[Array], Rows]:
    """Return what each layer read, which its gradient needs, and the new state of each."""
    read, new_state = [], []
    for layer, hidden in zip(weights.cells, state, strict=True):
        read.append(np.concatenate([hidden, x], axis=-1))
        x = np.tanh(dense(layer, read[-1]))
        new_state.append(x)
    return read, tuple(new_state)


def loss_and_grads(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> Gradient:
    """Return the mean cross entropy over unmasked targets, and its gradient by every weight.

    Args:
        weights: Arrays of NumPy, in whose type all is computed.
        hidden: Each layer's state before the chunk, `batch width`.
        chunk: The characters.
    """
    dtype = weights.readout.bias.dtype
    state: Rows = tuple(np.asarray(rows, dtype) for rows in hidden)
    inputs, targets, mask = (np.asarray(array) for array in chunk)
    read, states = [], []
    for x in one_hot(weights, inputs):
        joined, state = cells(weights, state, x)
        read.append(joined)
        states.append(state)

    logits = dense(weights.readout, np.stack([rows[-1] for rows in states]))
    logits -= logits.max(axis=-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    of_target = (*np.indices(targets.shape), targets)
    weight = mask.astype(dtype) / mask.astype(dtype).sum()
    loss = -(log_p[of_target] * weight).sum()

    d_logits = np.exp(log_p)
    d_logits[of_target] -= 1
    d_logits *= weight[..., None]
    grads = map_arrays(np.zeros_like, weights)
    d_state = [np.zeros_like(rows) for rows in state]
    for t in reversed(range(len(inputs))):
        d_x = backward(weights.readout, grads.readout, states[t][-1], d_logits[t])
        for i in reversed(range(len(d_state))):
            # Two paths lead here: up to the layer above, and on to the next character
            d_sum = (d_x + d_state[i]) * (1 - states[t][i] ** 2)
            d_joined = backward(weights.cells[i], grads.cells[i], read[t][i], d_sum)
            d_state[i], d_x = np.split(d_joined, [d_state[i].shape[-1]], axis=-1)
    return Gradient(loss, grads, state)


def backward(params: Dense, grads: Dense, x: Array, d_out: Array) -> Array:
    """Add to the gradient of an affine map in place; return the gradient by its input."""
    grads.kernel[...] += x.T @ d_out
    grads.bias[...] += d_out.sum(axis=0)
    return d_out @ params.kernel.T


def adamw(checkpoint: Checkpoint, grads: Weights, config: OptimiserConfig) -> Checkpoint:
    """Return the checkpoint after one update, in the type of its arrays."""
    weights, mu, nu, updates = checkpoint
    updates += 1
    mu = map_arrays(lambda m, g: BETA1 * m + (1 - BETA1) * g, mu, grads)
    nu = map_arrays(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, nu, grads)

    def update(p: Array, m: Array, v: Array) -> Array:
        direction = m / (1 - BETA1**updates) / (np.sqrt(v / (1 - BETA2**updates)) + EPSILON)
        return p - config.learning_rate * (direction + config.weight_decay * p)

    return Checkpoint(map_arrays(update, weights, mu, nu), mu, nu, updates)
