"""Character RNN in Flax NNX: modules are mutable objects, which most styles update in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from common.contract import Dense, Model, Weights
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.flax_nnx import LIBRARY

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

# The model


class Cell(nnx.Module):
    """One tanh layer."""

    def __init__(self, in_features: int, width: int, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(in_features, width, rngs=rngs)

    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(nnx.Module):
    """Cells bottom up, and a readout."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.cells = nnx.List([Cell(rows, config.width, rngs) for rows in config.in_features])
        self.readout = nnx.Linear(config.width, config.vocab_size, rngs=rngs)

    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = jax.nn.one_hot(token, self.readout.out_features), []
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
    """Return the same with NNX's own `nnx.scan`, which takes the model as an argument."""

    @nnx.scan(in_axes=(None, nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def unroll(model: CharRNN, hidden: Hidden, tokens: Int[Array, " batch"]) -> Any:
        return jax.vmap(model)(hidden, tokens)

    hidden, logits = unroll(model, hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over parameters and `aux`, all other Variables; the graph is not handed over."""
    graphdef, params, aux = nnx.split(model, nnx.Param, ...)
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(
        params: nnx.State, aux: nnx.State, opt_state: Any, hidden: Hidden, chunk: Chunk
    ) -> Any:
        model = nnx.merge(graphdef, params, aux)
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        aux = nnx.state(model, nnx.Not(nnx.Param))
        return optax.apply_updates(params, updates), aux, opt_state, hidden, loss

    return train_step, (params, aux, opt_state)


def jit(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`nnx.jit` over model and optimiser, as most tutorials write it."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def train_step(model: Any, optimizer: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        optimizer.update(model, grads)
        return hidden, loss

    return train_step, (model, optimizer)


def jit_tree(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`nnx.jit` in tree mode: modules are pytrees, in which no two places share a Variable."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    def train_step(model: Any, optimizer: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        optimizer.update(model, grads)
        return hidden, loss

    return nnx.jit(train_step, graph=False), (model, optimizer)


def cached_partial(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`nnx.cached_partial`: the graph is traversed once; the step still updates it in place."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def train_step(model: Any, optimizer: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        optimizer.update(model, grads)
        return hidden, loss

    return nnx.cached_partial(train_step, model, optimizer), (model, optimizer)


def jit_partial(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`nnx.jit_partial` in tree mode: the trees are flattened once, and updated in place."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    def train_step(model: Any, optimizer: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        optimizer.update(model, grads)
        return hidden, loss

    return nnx.jit_partial(train_step, model, optimizer, graph=False), (model, optimizer)


def jax_jit(model: nnx.Module, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over model and optimiser, which are pytrees: each call returns new ones."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @jax.jit
    def train_step(model: Any, optimizer: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = nnx.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        optimizer.update(model, grads)
        return model, optimizer, hidden, loss

    return train_step, (model, optimizer)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over the State that `nnx.split` gives."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: CharRNN(config, nnx.Rngs(0))))

    def init(key: PRNGKeyArray) -> nnx.State:
        return nnx.state(CharRNN(config, nnx.Rngs(key)), nnx.Param)

    def step(params: nnx.State, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return nnx.merge(graphdef, params)(state, token)

    def to_weights(params: nnx.State) -> Weights:
        layers = nnx.to_pure_dict(params)
        cells = tuple(Dense(**layers["cells"][i]["dense"]) for i in range(config.layers))
        return Weights(cells, Dense(**layers["readout"]))

    def from_weights(weights: Weights) -> nnx.State:
        variables = jax.tree.map(lambda array: nnx.Param(jnp.asarray(array)), weights)
        cells = {i: {"dense": cell._asdict()} for i, cell in enumerate(variables.cells)}
        return nnx.State({"cells": cells, "readout": variables.readout._asdict()})

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: CharRNN(config, nnx.Rngs(0)), loss_fn, LIBRARY)
STYLES = {
    "pure": rnn.threaded(pure),
    "jit": rnn.in_place(jit),
    "jit_tree": rnn.in_place(jit_tree),
    "cached_partial": rnn.in_place(cached_partial, bound=True),
    "jit_partial": rnn.in_place(jit_partial, bound=True),
    "jax_jit": rnn.threaded(jax_jit),
    "scan": rnn._replace(loss_fn=scanned_loss_fn, serves_others=False).in_place(jit),
    "flat": rnn.flat(pure),
}
