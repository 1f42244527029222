"""Character RNN in Equinox. Linear stores its weight out by in, so kernels are transposed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from common.contract import Dense, Model, Program, Weights
from common.loss import scan_loss
from common.steps import (
    FunctionalStep,
    donated,
    load_adam,
    pure_style,
    pure_update,
    save_adam,
    stages_of,
)

if TYPE_CHECKING:
    import optax
    from jax.extend.core import ClosedJaxpr
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, State, TrainStep

DISTRIBUTION = "equinox"
PACKAGES = ("jaxtyping", "wadler-lindig", "typing-extensions")
COLOUR = "#D55E00"
IF_NAMED = ("flat",)
WAITS = ("filter_jit",)


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


def layers(rnn: CharRNN) -> list[Any]:
    """Return all weights and biases, bottom up, in the order of a layer's `weight`, `bias`."""
    linears = [*(cell.dense for cell in rnn.cells), rnn.readout]
    return [array for linear in linears for array in (linear.weight, linear.bias)]


def partitioned(config: ModelConfig) -> tuple[CharRNN, CharRNN]:
    """Return the shapes of the trainable arrays, and the rest of the module."""
    rnn = eqx.filter_eval_shape(CharRNN, config, jax.random.key(0))
    return eqx.partition(rnn, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its arrays; `static` holds the rest of the module."""
    shapes, static = partitioned(config)

    def init(key: PRNGKeyArray) -> CharRNN:
        return eqx.filter(CharRNN(config, key), eqx.is_inexact_array)

    def step(params: CharRNN, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return eqx.combine(params, static)(state, token)

    def to_weights(params: CharRNN) -> Weights:
        arrays = iter(layers(params))
        *cells, readout = (Dense(weight.T, next(arrays)) for weight in arrays)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> CharRNN:
        denses = (*weights.cells, weights.readout)
        arrays = [jnp.asarray(array) for kernel, bias in denses for array in (kernel.T, bias)]
        return eqx.tree_at(layers, shapes, arrays)

    return Model(init, step, to_weights, from_weights)


def filter_jit(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`eqx.filter_jit` over the whole module, as the documentation writes it."""

    def plain(state: tuple[CharRNN, Any], hidden: Hidden, chunk: Chunk) -> Any:
        @eqx.filter_value_and_grad(has_aux=True)
        def loss_fn(rnn: CharRNN) -> tuple[Array, Hidden]:
            return scan_loss(rnn, hidden, chunk)

        rnn, opt_state = state
        (loss, hidden_after), grads = loss_fn(rnn)
        params = eqx.filter(rnn, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (eqx.apply_updates(rnn, updates), opt_state), hidden_after, loss

    def data_first(function: Any) -> Any:
        """Return a function of state, hidden state and chunk, by one of the last two and state."""
        return lambda state, *data: function(data, state)

    update: Any = eqx.filter_jit(plain)
    lower = update.lower
    if donate:  # everything but the first argument: so what is kept comes first
        jit: Any = eqx.filter_jit(donate="all-except-first")
        last = jit(lambda data, state: plain(state, *data))
        update, lower = data_first(last), data_first(last.lower)

    model, (_, static) = build(config), partitioned(config)

    def load(checkpoint: Checkpoint) -> tuple[CharRNN, Any]:
        params = model.from_weights(checkpoint.weights)
        return eqx.combine(params, static), load_adam(optimiser, params, model, checkpoint)

    def save(state: tuple[CharRNN, Any]) -> Checkpoint:
        return save_adam(eqx.filter(state[0], eqx.is_inexact_array), state[1], model)

    def stages(*arguments: Any) -> Program:
        def jaxpr() -> ClosedJaxpr:
            return eqx.filter_make_jaxpr(update)(*arguments)[0]

        return Program(lambda: lower(*arguments).lowered, jaxpr, trace=None)

    return FunctionalStep(update, load, save, stages)


def flat(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`jax.jit` over arrays alone: the tree is flattened once, and put together while tracing."""
    model = build(config)
    update = pure_update(model, optimiser)
    params = jax.eval_shape(model.init, jax.random.key(0))
    structure = jax.tree.structure((params, jax.eval_shape(optimiser.init, params)))

    @partial(jax.jit, donate_argnums=donated(donate))
    def flat_update(arrays: list[Array], hidden: Hidden, chunk: Chunk) -> Any:
        state, hidden, loss = update(jax.tree.unflatten(structure, arrays), hidden, chunk)
        return jax.tree.leaves(state), hidden, loss

    def load(checkpoint: Checkpoint) -> list[Array]:
        params = model.from_weights(checkpoint.weights)
        return jax.tree.leaves((params, load_adam(optimiser, params, model, checkpoint)))

    def save(arrays: list[Array]) -> Checkpoint:
        params, opt_state = jax.tree.unflatten(structure, arrays)
        return save_adam(params, opt_state, model)

    return FunctionalStep(flat_update, load, save, stages_of(flat_update))


STYLES = {"pure": pure_style(build), "filter_jit": filter_jit, "flat": flat}
