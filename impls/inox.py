"""Character RNN in Inox: a module is a pytree; its parameters are a flat dict by their paths.

Its own `nn.Recurrent` begins at the cell's first state and returns no last one, so it cannot go on
from chunk to chunk.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["inox==0.8.0", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "602 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import inox
import jax
import jax.numpy as jnp
import optax
from inox import nn

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.inox import LIBRARY

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = dict[str, Array]

# The model


class Cell(nn.Module):
    """One tanh layer."""

    def __init__(self, rows: int, width: int, key: PRNGKeyArray) -> None:
        self.dense = nn.Linear(rows, width, key=key)

    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(nn.Module):
    """Cells bottom up, and a readout."""

    def __init__(self, config: ModelConfig, key: PRNGKeyArray) -> None:
        *keys, readout_key = jax.random.split(key, config.layers + 1)
        self.cells = [
            Cell(rows, config.width, key)
            for rows, key in zip(config.in_features, keys, strict=True)
        ]
        self.readout = nn.Linear(config.width, config.vocab_size, key=readout_key)
        self.vocab_size = config.vocab_size

    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = jax.nn.one_hot(token, self.vocab_size), []
        for cell, hidden in zip(self.cells, state, strict=True):
            x = cell(hidden, x)
            new_state.append(x)
        return tuple(new_state), self.readout(x)


# The loss


def loss_fn(model: CharRNN, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    hidden, logits = jax.lax.scan(jax.vmap(model), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over the module's parameters; the rest of it is not handed over."""
    static, params, others = model.partition(nn.Parameter)
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn(static(params, others), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


def lifted(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`inox.jit` and `inox.value_and_grad` over the whole module, as the documentation does."""
    opt_state = optimiser.init(model.partition(nn.Parameter)[1])

    @inox.jit  # type: ignore[untyped-decorator]
    def train_step(model: CharRNN, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = inox.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        static, params, others = model.partition(nn.Parameter)
        updates, opt_state = optimiser.update(grads.partition(nn.Parameter)[1], opt_state, params)
        params = optax.apply_updates(params, updates)
        return static(params, others), opt_state, hidden, loss

    return train_step, (model, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its parameters; `static` holds the rest of it."""
    static, _, others = CharRNN(config, jax.random.key(0)).partition(nn.Parameter)
    layers = [*(f".cells[{i}].dense" for i in range(config.layers)), ".readout"]

    def init(key: PRNGKeyArray) -> Params:
        return CharRNN(config, key).partition(nn.Parameter)[1]

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return static(params, others)(state, token)

    def to_weights(params: Params) -> Weights:
        return unflat(
            Dense(params[f"{layer}.weight.value"], params[f"{layer}.bias.value"])
            for layer in layers
        )

    def from_weights(weights: Weights) -> Params:
        params = {}
        for layer, (kernel, bias) in zip(layers, flat(weights), strict=True):
            params[f"{layer}.weight.value"] = jnp.asarray(kernel)
            params[f"{layer}.bias.value"] = jnp.asarray(bias)
        return params

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: CharRNN(config, jax.random.key(0)), loss_fn, LIBRARY)
STYLES = {"pure": rnn.threaded(pure), "lifted": rnn.threaded(lifted, can_donate=False)}
