"""Character RNN in BrainState: layers hold states, which transformations read and write in place.

A Linear's weight and bias are one state, a dict.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["brainstate==0.6.0", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "636 MB"
# ///

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import brainstate as bs
import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.brainstate import LIBRARY

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = Any

# The model


class Cell(bs.nn.Module):
    """One tanh layer."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.dense = bs.nn.Linear(rows, width)

    def update(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(bs.nn.Module):
    """Cells bottom up, and a readout; initialisers draw from BrainState's own random numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.cells = [Cell(rows, config.width) for rows in config.in_features]
        self.readout = bs.nn.Linear(config.width, config.vocab_size)

    def update(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
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


def scanned_loss_fn(
    model: CharRNN, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same with BrainState's own `scan`, which also carries states that are written."""
    hidden, logits = bs.transform.scan(jax.vmap(model), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over the values of the model's states; `graphdef` holds the rest of it."""
    graphdef, params = bs.graph.treefy_split(model)
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn(bs.graph.treefy_merge(graphdef, params), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


def jit(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """BrainState's own `jit` and `grad` over a model's states, as its documentation writes it."""
    params = model.states(bs.ParamState)
    opt_state = bs.LongTermState(
        optimiser.init({path: state.value for path, state in params.items()})
    )

    @bs.transform.jit  # type: ignore[untyped-decorator]
    def train_step(hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = bs.transform.grad(
            partial(loss_fn, model), params, has_aux=True, return_value=True
        )
        grads, loss, hidden = grad_fn(hidden, chunk)
        values = {path: state.value for path, state in params.items()}
        updates, opt_state.value = optimiser.update(dict(grads), opt_state.value, values)
        for path, value in optax.apply_updates(values, updates).items():
            params[path].value = value
        return hidden, loss

    return train_step, (params, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its states; `graphdef` holds the rest of it."""
    graphdef, params = bs.graph.treefy_split(CharRNN(config))
    structure = jax.tree.structure(params)

    def init(key: PRNGKeyArray) -> Params:
        with bs.random.seed_context(key):
            return bs.graph.treefy_states(CharRNN(config))

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return bs.graph.treefy_merge(graphdef, params)(state, token)

    def to_weights(params: Params) -> Weights:
        arrays = jax.tree.leaves(params)
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        return unflat(Dense(kernel, bias) for bias, kernel in pairs)

    def from_weights(weights: Weights) -> Params:
        arrays = (jnp.asarray(array) for kernel, bias in flat(weights) for array in (bias, kernel))
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, CharRNN, loss_fn, LIBRARY)
STYLES = {
    "pure": rnn.threaded(pure),
    "jit": rnn.in_place(jit, bound=True, can_donate=False),
    "scan": rnn._replace(loss_fn=scanned_loss_fn).in_place(jit, bound=True, can_donate=False),
}
