"""Character RNN in Equinox: a module is a pytree, whose leaves are arrays and anything else.

Linear stores its weight out by in, so kernels are transposed. Equinox has no recurrence of its own:
its documentation scans with `jax.lax.scan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.equinox import LIBRARY

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

# The model


class Cell(eqx.Module):
    """One tanh layer."""

    dense: eqx.nn.Linear

    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(eqx.Module):
    """Cells bottom up, and a readout."""

    cells: list[Cell]
    readout: eqx.nn.Linear
    vocab_size: int = eqx.field(static=True)

    def __init__(self, config: ModelConfig, key: PRNGKeyArray) -> None:
        *keys, readout_key = jax.random.split(key, config.layers + 1)
        self.cells = [
            Cell(eqx.nn.Linear(rows, config.width, key=key))
            for rows, key in zip(config.in_features, keys, strict=True)
        ]
        self.vocab_size = config.vocab_size
        self.readout = eqx.nn.Linear(config.width, config.vocab_size, key=readout_key)

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


def pure(model: eqx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over the module's arrays; the rest of it, `static`, is not handed over."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: eqx.Module, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: eqx.Module) -> Any:
            return loss_fn(eqx.combine(params, static), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


def filter_jit(model: eqx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`eqx.filter_jit` over the whole module, as the documentation writes it."""
    opt_state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(model: eqx.Module, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = eqx.filter_value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, hidden, loss

    return train_step, (model, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its arrays."""
    outline = eqx.filter_eval_shape(CharRNN, config, jax.random.key(0))
    shapes, static = eqx.partition(outline, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def init(key: PRNGKeyArray) -> CharRNN:
        return eqx.filter(CharRNN(config, key), eqx.is_inexact_array)

    def step(params: CharRNN, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return eqx.combine(params, static)(state, token)

    def linears(rnn: CharRNN) -> list[Any]:
        return [*(cell.dense for cell in rnn.cells), rnn.readout]

    def to_weights(params: CharRNN) -> Weights:
        return unflat(Dense(linear.weight.T, linear.bias) for linear in linears(params))

    def from_weights(weights: Weights) -> CharRNN:
        arrays = [jnp.asarray(a) for kernel, bias in flat(weights) for a in (kernel.T, bias)]
        return eqx.tree_at(
            lambda rnn: [a for li in linears(rnn) for a in (li.weight, li.bias)], shapes, arrays
        )

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: CharRNN(config, jax.random.key(0)), loss_fn, LIBRARY)
STYLES = {
    "pure": rnn.threaded(pure),
    "filter_jit": rnn.threaded(filter_jit),
    "flat": rnn.flat(pure),
}
