"""Character RNN in Trax. Layers take their inputs from a stack, and put their outputs back on it.

So the hidden states lie on the stack below what a layer reads, and `Select` brings each up in turn.
A layer keeps the weights that it was made with; `pure_fn` takes others.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["trax==1.4.1", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "3.0 GB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from trax import layers as tl
from trax.shapes import ShapeDtype

from common.contract import Dense, Model, Weights
from common.loss import cross_entropy
from common.steps import functional, pure_style, stages_of, state_argnums, update_of

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Params, State, TrainStep

DISTRIBUTION = "trax"
RECOMMENDED = False
NOTE = "Trax ended in 2021 with this release, which runs on today's JAX and needs TensorFlow."
COLOUR = "#999933"


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
        arrays = iter(jax.tree.leaves(params))
        *cells, readout = (Dense(kernel, next(arrays)) for kernel in arrays)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> Params:
        return jax.tree.unflatten(structure, map(jnp.asarray, jax.tree.leaves(weights)))

    return Model(init, step, to_weights, from_weights)


def scan(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`tl.Scan` over whole sequences, layer by layer: as Trax writes recurrent layers."""
    model = build(config, scan=True)

    def loss(params: Params, hidden: Hidden, chunk: Chunk) -> tuple[Array, Hidden]:
        hidden, logits = model.step(params, hidden, jnp.asarray(chunk.inputs))
        return cross_entropy(logits, chunk), hidden

    update = jax.jit(update_of(loss, optimiser), donate_argnums=state_argnums(donate))
    return functional(update, model, optimiser, stages_of(update))


STYLES = {"pure": pure_style(build), "scan": scan}
