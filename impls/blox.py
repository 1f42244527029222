"""Character RNN in Blox: a module is called with its parameters and returns them, too.

Its names are a graph's, its parameters are made by a first call, and its recurrence takes a batch.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["jax-blox==0.1.6", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "605 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import blox as bx
import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat, unflat, zero_hidden
from common.library import Pairs
from common.loss import cross_entropy
from common.steps import Rnn

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

# The model


class CharRNN(bx.RecurrenceBase):
    """Cells bottom up, and a readout; takes one stream or a batch of them."""

    def __init__(self, graph: bx.Graph, config: ModelConfig, rng: bx.Rng) -> None:
        super().__init__(graph)
        self.config = config
        self.cells = [
            bx.Linear(graph.child(f"cell_{i}"), config.width, rng) for i in range(config.layers)
        ]
        self.readout = bx.Linear(graph.child("readout"), config.vocab_size, rng)

    def initial_state(self, params: bx.Params, inputs: Array) -> tuple[State, bx.Params]:
        """Return zeros; every recurrence has to say where it starts."""
        return zero_hidden(self.config, len(inputs)), params

    def __call__(
        self, params: bx.Params, inputs: Int[Array, "*batch"], prev_state: State, *_: Any
    ) -> tuple[tuple[Float[Array, "*batch vocab"], State], bx.Params]:
        """Return the logits of the next character and the new states, and the parameters."""
        x, new_state = jax.nn.one_hot(inputs, self.config.vocab_size), []
        for cell, hidden in zip(self.cells, prev_state, strict=True):
            x, params = cell(params, jnp.concatenate([hidden, x], axis=-1))
            x = jnp.tanh(x)
            new_state.append(x)
        logits, params = self.readout(params, x)
        return (logits, tuple(new_state)), params


def char_rnn(config: ModelConfig) -> tuple[CharRNN, bx.Rng]:
    """Return the model, and the random numbers for its parameters, which its first call draws."""
    graph = bx.Graph("net")
    rng = bx.Rng(graph.child("rng"))
    return CharRNN(graph.child("char_rnn"), config, rng), rng


type BloxModel = tuple[bx.Params, CharRNN]
"""Parameters, and the module that is called with them."""

# The loss


def loss_fn(model: BloxModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, rnn = model

    def step(state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        (logits, state), _ = rnn(params, token, state)
        return state, logits

    hidden, logits = jax.lax.scan(jax.vmap(step), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def applied_loss_fn(
    model: BloxModel, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same by Blox's own `apply`, which carries the parameters beside the state."""
    params, rnn = model
    (logits, hidden), _ = rnn.apply(params, chunk.inputs.T, hidden)
    return cross_entropy(jnp.swapaxes(logits, 0, 1), chunk), hidden


# Training steps


def pure(model: BloxModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over parameters and optimiser state."""
    params, rnn = model
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: bx.Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: bx.Params) -> Any:
            return loss_fn((params, rnn), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its trainable parameters."""
    rnn, rng = char_rnn(config)
    layers = [*rnn.cells, rnn.readout]

    def init(key: PRNGKeyArray) -> bx.Params:
        params = rng.seed(bx.Params(), seed=key)
        _, params = rnn(params, jnp.zeros(1, int), zero_hidden(config))
        return params.locked().split()[0]

    def step(
        params: bx.Params, state: State, token: Int[Array, ""]
    ) -> tuple[State, Float[Array, " vocab"]]:
        (logits, new_state), _ = rnn(params, token, state)
        return new_state, logits

    def to_weights(params: bx.Params) -> Weights:
        return unflat(
            Dense(*(params[layer.param_path(name)].value for name in Dense._fields))
            for layer in layers
        )

    def from_weights(weights: Weights) -> bx.Params:
        params = bx.Params()
        for layer, dense in zip(layers, flat(weights), strict=True):
            for name, array in dense._asdict().items():
                params[layer.param_path(name)] = bx.Param(jnp.asarray(array))
        return params.locked()

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: ({}, char_rnn(config)[0]), loss_fn, Pairs())
STYLES = {
    "pure": rnn.threaded(pure),
    "apply": rnn._replace(loss_fn=applied_loss_fn).threaded(pure, can_donate=False),
}
