"""Character RNN in Inox. A module is a pytree; its parameters are a flat dict by their paths."""

# /// script
# requires-python = ">=3.12"
# dependencies = ["inox==0.8.0", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "602 MB"
# ///

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import inox
import jax
import jax.numpy as jnp
import optax
from inox import nn

from common.compatibility import make_program
from common.contract import Dense, Model, Weights, flat
from common.loss import scan_loss
from common.steps import FunctionalStep, load_adam, pure_style, save_adam

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, Program, State, TrainStep

DISTRIBUTION = "inox"
COLOUR = "#117733"

type Params = dict[str, Array]


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


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its parameters; `static` holds the rest of it."""
    static, _, others = CharRNN(config, jax.random.key(0)).partition(nn.Parameter)
    layers = [*(f".cells[{i}].dense" for i in range(config.layers)), ".readout"]

    def init(key: PRNGKeyArray) -> Params:
        return CharRNN(config, key).partition(nn.Parameter)[1]

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return static(params, others)(state, token)

    def to_weights(params: Params) -> Weights:
        *cells, readout = (
            Dense(params[f"{layer}.weight.value"], params[f"{layer}.bias.value"])
            for layer in layers
        )
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> Params:
        params = {}
        for layer, (kernel, bias) in zip(layers, flat(weights), strict=True):
            params[f"{layer}.weight.value"] = jnp.asarray(kernel)
            params[f"{layer}.bias.value"] = jnp.asarray(bias)
        return params

    return Model(init, step, to_weights, from_weights)


def lifted(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """`inox.jit` and `inox.value_and_grad` over the whole module, as the documentation does."""

    @inox.jit  # type: ignore[untyped-decorator]
    def update(state: tuple[CharRNN, Any], hidden: Hidden, chunk: Chunk) -> Any:
        @partial(inox.value_and_grad, has_aux=True)
        def loss_fn(rnn: CharRNN) -> tuple[Array, Hidden]:
            return scan_loss(rnn, hidden, chunk)

        rnn, opt_state = state
        (loss, hidden_after), grads = loss_fn(rnn)
        static, params, others = rnn.partition(nn.Parameter)
        updates, opt_state = optimiser.update(grads.partition(nn.Parameter)[1], opt_state, params)
        params = optax.apply_updates(params, updates)
        return (static(params, others), opt_state), hidden_after, loss

    model = build(config)
    static, _, others = CharRNN(config, jax.random.key(0)).partition(nn.Parameter)

    def load(checkpoint: Checkpoint) -> tuple[CharRNN, Any]:
        params = model.from_weights(checkpoint.weights)
        return static(params, others), load_adam(optimiser, params, model, checkpoint)

    def save(state: tuple[CharRNN, Any]) -> Checkpoint:
        return save_adam(state[0].partition(nn.Parameter)[1], state[1], model)

    def stages(*arguments: Any) -> Program:
        return make_program(update.__wrapped__, *inox.tree.mask(arguments))

    return FunctionalStep(update, load, save, stages)


STYLES = {"pure": pure_style(build), "lifted": lifted}
