"""Character RNN in NumPy, without autodiff: backpropagation through time is written by hand.

It shows what the libraries do: one interpreted loop forward over the characters, one backward, and
AdamW, all in float32, in `common/reference.py`. An outside reference, not a JAX library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from common.contract import Checkpoint, Dense, Model, Weights, map_arrays, unflat
from common.reference import adamw, cells, dense, loss_and_grads, one_hot

if TYPE_CHECKING:
    from jaxtyping import Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, TrainStep
    from common.steps import Configured

# The model


def char_rnn(params: Weights, state: Any, token: Int[Any, ""]) -> Any:
    """Return the new states and the logits of the next character."""
    _, new_state = cells(params, state, one_hot(params, token))
    return new_state, dense(params.readout, new_state[-1])


# Training step


class Loop:
    """The training step, around a checkpoint that each call replaces."""

    def __init__(self, optimiser: Configured) -> None:
        self.config = optimiser.config

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.checkpoint = copy(checkpoint)

    def save(self) -> Checkpoint:  # noqa: D102
        return copy(self.checkpoint)

    def __call__(self, hidden: Hidden, chunk: Chunk) -> Any:  # noqa: D102
        loss, grads, after = loss_and_grads(self.checkpoint.weights, hidden, chunk)
        self.checkpoint = adamw(self.checkpoint, grads, self.config)
        return after, loss

    def program(self, hidden: Hidden, chunk: Chunk) -> None:  # noqa: ARG002, D102
        return None


def loop(config: ModelConfig, optimiser: Configured) -> TrainStep:  # noqa: ARG001
    """An interpreted loop over the characters, forward and back, and AdamW."""
    return Loop(optimiser)


# Weights in and out, and the styles for the harness


def copy_weights(weights: Weights) -> Weights:
    """Return `weights` in fresh buffers, in float32."""
    return map_arrays(lambda array: np.array(array, np.float32), weights)


def copy(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint in fresh buffers."""
    weights, mu, nu = (copy_weights(tree) for tree in checkpoint[:3])
    return Checkpoint(weights, mu, nu, checkpoint.updates)


def build(config: ModelConfig) -> Model:
    """Return the model as functions over library-neutral weights, whose arrays are NumPy's."""

    def init(key: PRNGKeyArray) -> Weights:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

        def lecun_normal(rows: int, columns: int) -> Dense:
            kernel = rng.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))
            return Dense(kernel, np.zeros(columns, np.float32))

        return unflat(lecun_normal(*shape) for shape in config.kernels)

    return Model(init, char_rnn, to_weights=copy_weights, from_weights=copy_weights)


STYLES = {"loop": loop}
