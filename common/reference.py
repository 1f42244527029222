"""The reference: the RNN in NumPy float64, with backpropagation through time written by hand.

It shares no line with the entrants, and nothing here is fast. Gradients follow Werbos,
"Backpropagation through time: what it does and how to do it" (Proc. IEEE 78, 1990); AdamW follows
Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), with optax's defaults.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.contract import Checkpoint, Weights, flat, map_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from common.config import OptimiserConfig
    from common.contract import AnyArray, Chunk

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Gradient(NamedTuple):
    """Loss, gradient and state for one chunk."""

    loss: float
    grads: Weights
    hidden: tuple[Float64[np.ndarray, "batch width"], ...]
    """State after the chunk."""


def double(weights: Weights) -> Weights:
    """Return `weights` in float64."""
    return map_arrays(partial(np.asarray, dtype=np.float64), weights)


def loss_and_grads(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> Gradient:
    """Return the mean cross entropy over unmasked targets, and its gradient by every weight."""
    weights = double(weights)
    cells, readout = weights
    state = [np.asarray(rows, np.float64) for rows in hidden]
    inputs, targets, mask = (np.asarray(array) for array in chunk)
    mask = mask.astype(np.float64)
    time, batch = inputs.shape
    width, vocab = readout.kernel.shape
    one_hot = np.eye(vocab)

    seen, outputs, logits = [], [], []
    for t in range(time):
        x, joined = one_hot[inputs[t]], []
        for layer, cell in enumerate(cells):
            joined.append(np.concatenate([state[layer], x], axis=1))
            x = state[layer] = np.tanh(joined[-1] @ cell.kernel + cell.bias)
        seen.append(joined)
        outputs.append(list(state))
        logits.append(x @ readout.kernel + readout.bias)

    shifted = np.stack(logits) - np.max(logits, axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    target = one_hot[targets]
    loss = -(log_p * target).sum(axis=-1)
    d_logits = (np.exp(log_p) - target) * (mask / mask.sum())[..., None]

    grads = map_arrays(np.zeros_like, weights)
    layers = flat(grads)
    d_state = [np.zeros((batch, width)) for _ in cells]
    for t in reversed(range(time)):
        layers[-1].kernel[...] += outputs[t][-1].T @ d_logits[t]
        layers[-1].bias[...] += d_logits[t].sum(axis=0)
        d_x = d_logits[t] @ readout.kernel.T
        for layer in reversed(range(len(cells))):
            d_sum = (d_state[layer] + d_x) * (1 - outputs[t][layer] ** 2)
            layers[layer].kernel[...] += seen[t][layer].T @ d_sum
            layers[layer].bias[...] += d_sum.sum(axis=0)
            d_joined = d_sum @ cells[layer].kernel.T
            d_state[layer], d_x = d_joined[:, :width], d_joined[:, width:]
    mean = float((loss * mask).sum() / mask.sum())
    return Gradient(mean, grads, tuple(state))


def adamw(checkpoint: Checkpoint, grads: Weights, config: OptimiserConfig) -> Checkpoint:
    """Return the checkpoint after one update."""
    weights, mu, nu = map(double, checkpoint[:3])
    updates = checkpoint.updates + 1
    mu = map_arrays(lambda m, g: BETA1 * m + (1 - BETA1) * g, mu, grads)
    nu = map_arrays(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, nu, grads)

    def update(p: np.ndarray, m: np.ndarray, v: np.ndarray) -> np.ndarray:
        direction = m / (1 - BETA1**updates) / (np.sqrt(v / (1 - BETA2**updates)) + EPSILON)
        return p - config.learning_rate * (direction + config.weight_decay * p)

    return Checkpoint(map_arrays(update, weights, mu, nu), mu, nu, updates)
