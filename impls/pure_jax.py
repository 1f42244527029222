"""Character RNN in plain JAX. Parameters are a list of kernel and bias; there is no library to ask.

The baseline: what the others take beyond it is the cost of a library.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat
from common.steps import functional, pure_style, stages_of, state_argnums
from impls.layerwise import loss_and_gradient

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Params, State, TrainStep

DISTRIBUTION = "jax"
PACKAGES = ("scipy", "ml-dtypes", "opt-einsum", "absl-py", "chex")
COLOUR = "#0072B2"
REFERENCES = ("tuned",)

type Layer = dict[str, Float[Array, "..."]]


def dense(params: Layer, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """Return `x @ kernel + bias`."""
    return x @ params["kernel"] + params["bias"]


def cell(params: Layer, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
    """Return the new hidden state of one layer."""
    return jnp.tanh(dense(params, jnp.concatenate([hidden, x])))


def char_rnn(
    params: list[Layer], state: State, token: Int[Array, ""]
) -> tuple[State, Float[Array, " vocab"]]:
    """Return the new states and the logits of the next character."""
    *cells, readout = params
    x, new_state = jax.nn.one_hot(token, readout["bias"].shape[0]), []
    for layer, hidden in zip(cells, state, strict=True):
        x = cell(layer, hidden, x)
        new_state.append(x)
    return tuple(new_state), dense(readout, x)


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over a list of layers, the readout last."""

    def init(key: PRNGKeyArray) -> list[Layer]:
        sizes = [(rows, config.width) for rows in config.in_features]
        sizes.append((config.width, config.vocab_size))
        return [
            {"kernel": jax.nn.initializers.lecun_normal()(key, size), "bias": jnp.zeros(size[1])}
            for key, size in zip(jax.random.split(key, len(sizes)), sizes, strict=True)
        ]

    def to_weights(params: list[Layer]) -> Weights:
        *cells, readout = (Dense(layer["kernel"], layer["bias"]) for layer in params)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> list[Layer]:
        return [
            {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
            for kernel, bias in flat(weights)
        ]

    return Model(init, char_rnn, to_weights, from_weights)


def tuned(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """One step written for speed, layer by layer: it shows how fast plain JAX can be."""
    model = build(config)

    @partial(jax.jit, donate_argnums=state_argnums(donate))
    def update(state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state = state
        weights = model.to_weights(params)
        loss, hidden, grads = loss_and_gradient(weights, hidden, chunk)
        updates, opt_state = optimiser.update(model.from_weights(grads), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    return functional(update, model, optimiser, stages_of(update))


STYLES = {"pure": pure_style(build), "tuned": tuned}
