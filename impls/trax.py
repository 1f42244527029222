"""Character RNN in Trax: layers take their inputs from a stack, and put their outputs back on it.

So the hidden states lie on the stack below what a layer reads, and `Select` brings each up in turn.
A layer keeps the weights that it was made with; `pure_fn` takes others.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["trax==1.4.1", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "3.0 GB"
# ///

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from trax import layers as tl
from trax.shapes import ShapeDtype

from common.contract import Dense, Model, Weights, unflat
from common.library import Pairs
from common.loss import cross_entropy
from common.steps import Rnn

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, Params, State, StepAndState

type TraxModel = tuple[Params, Callable[..., Any]]
"""Parameters, and a function that applies them to states and characters."""

# The model


def cell(width: int) -> tl.Layer:
    """Return one tanh layer: `x` and its hidden state in, its output and the new state out."""
    return tl.Serial(tl.Swap(), tl.Concatenate(), tl.Dense(width), tl.Tanh(), tl.Dup())


def char_rnn(config: ModelConfig, *, scan: bool) -> tl.Layer:
    """Return cells bottom up, and a readout.

    One-hot characters and the states come in, bottom up; logits and the new states come out. With
    `scan`, each layer reads a whole sequence, time first, before the layer above it does.
    """
    layers = []
    for _ in range(config.layers):
        layer = cell(config.width)
        layers.append(tl.Scan(layer, axis=0) if scan else layer)
        layers.append(tl.Select([0, *range(2, config.layers + 1), 1]))
    return tl.Serial(layers, tl.Dense(config.vocab_size))


# The loss


def loss_fn(model: TraxModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, apply = model
    hidden, logits = jax.lax.scan(jax.vmap(partial(apply, params)), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def sequence_loss_fn(
    model: TraxModel, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same of a model of `tl.Scan` layers, which take a whole chunk."""
    params, apply = model
    hidden, logits = apply(params, hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: TraxModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over parameters and optimiser state."""
    params, apply = model
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn((params, apply), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig, *, scan: bool = False) -> Model:
    """Return the model as pure functions over Trax's nested tuples.

    With `scan`, `step` takes a sequence of characters, and returns the logits after each.
    """

    def fresh(key: PRNGKeyArray) -> tuple[Params, Any]:
        x = ShapeDtype((1, config.vocab_size) if scan else (config.vocab_size,))
        state = [ShapeDtype((config.width,))] * config.layers
        return char_rnn(config, scan=scan).init((x, *state), rng=key)

    rnn = char_rnn(config, scan=scan)
    shapes, no_state = jax.eval_shape(fresh, jax.random.key(0))
    structure = jax.tree.structure(shapes)

    def init(key: PRNGKeyArray) -> Params:
        return fresh(key)[0]

    def step(
        params: Params, state: State, token: Int[Array, "*shape"]
    ) -> tuple[State, Float[Array, "*shape vocab"]]:
        inputs = tl.one_hot(jnp.asarray(token), config.vocab_size), *state
        (logits, *new_state), _ = rnn.pure_fn(inputs, params, no_state, jax.random.key(0))
        return tuple(new_state), logits

    def to_weights(params: Params) -> Weights:
        arrays = jax.tree.leaves(params)
        return unflat(map(Dense, arrays[::2], arrays[1::2]))

    def from_weights(weights: Weights) -> Params:
        return jax.tree.unflatten(structure, map(jnp.asarray, jax.tree.leaves(weights)))

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: ((), build(config).step), loss_fn, Pairs())
sequences = rnn._replace(
    build=partial(build, scan=True),
    make_model=lambda config: ((), build(config, scan=True).step),
    loss_fn=sequence_loss_fn,
)
STYLES = {"pure": rnn.threaded(pure), "scan": sequences.threaded(pure)}
