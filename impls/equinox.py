"""Character RNN in Equinox. Linear stores its weight out by in, so kernels are transposed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from common.contract import Dense, Model, Program, Weights
from common.steps import AtRest, FunctionalStep, plain_style, pure_style, rnn_style

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, State

DISTRIBUTION = "equinox"
PACKAGES = ("jaxtyping", "wadler-lindig", "typing-extensions")
COLOUR = "#D55E00"
IF_NAMED = ("flat",)
NAMES = {"filter_jit": "`eqx.filter_jit`"}
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


def partition_shapes(config: ModelConfig) -> tuple[CharRNN, CharRNN]:
    """Return the shapes of the trainable arrays, and the rest of the module."""
    rnn = eqx.filter_eval_shape(CharRNN, config, jax.random.key(0))
    return eqx.partition(rnn, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its arrays; `static` holds the rest of the module."""
    shapes, static = partition_shapes(config)

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
    model: eqx.Module,
    loss: ModelLoss,
    optimiser: optax.GradientTransformation,
    *,
    donate: bool = False,
) -> FunctionalStep:
    """`eqx.filter_jit` over the whole module, as the documentation writes it."""

    def train_step(state: tuple[eqx.Module, Any], hidden: Hidden, chunk: Chunk) -> Any:
        @eqx.filter_value_and_grad(has_aux=True)
        def loss_fn(module: eqx.Module) -> tuple[Array, Hidden]:
            return loss(module, hidden, chunk)

        module, opt_state = state
        (value, hidden_after), grads = loss_fn(module)
        params = eqx.filter(module, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (eqx.apply_updates(module, updates), opt_state), hidden_after, value

    def swap_arguments(function: Any) -> Any:
        """Return a function of state, hidden and chunk from one of (hidden, chunk) and state."""
        return lambda state, *data: function(data, state)

    update: Any = eqx.filter_jit(train_step)
    lower = update.lower
    if donate:  # everything but the first argument: so what is kept comes first
        jit: Any = eqx.filter_jit(donate="all-except-first")
        last = jit(lambda data, state: train_step(state, *data))
        update, lower = swap_arguments(last), swap_arguments(last.lower)

    _, _, static = split(model)

    def load(rest: AtRest) -> tuple[eqx.Module, Any]:
        return merge(rest.params, (), static), rest.opt_state

    def save(state: tuple[eqx.Module, Any]) -> AtRest:
        return AtRest(split(state[0])[0], state[1])

    def stages(*arguments: Any) -> Program:
        return Program(lambda: lower(*arguments).lowered, trace=None)

    return FunctionalStep(update, load, save, stages)


def split(model: eqx.Module) -> tuple[eqx.Module, tuple[()], eqx.Module]:
    """Take a module apart: the arrays that are trained, and the rest."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return params, (), static


def merge(params: eqx.Module, _: tuple[()], static: eqx.Module) -> eqx.Module:
    """Put a module together again."""
    return eqx.combine(params, static)


def make_rnn(config: ModelConfig) -> CharRNN:
    """Return the module; its numbers are not used."""
    return CharRNN(config, jax.random.key(0))


STYLES = {
    "pure": pure_style(build),
    "filter_jit": rnn_style(filter_jit, build, make_rnn),
    "flat": rnn_style(plain_style(split, merge, flat=True), build, make_rnn),
}
