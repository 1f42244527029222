"""Character RNN in plain JAX: parameters are a list of dicts, and there is no library to ask.

The baseline: what the others take beyond it is the cost of a library.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls._layerwise import loss_and_gradient
from impls.libraries.pure_jax import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Layer = dict[str, Float[Array, "..."]]
type Params = list[Layer]

# The model


def dense(params: Layer, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """Return `x @ kernel + bias`."""
    return x @ params["kernel"] + params["bias"]


def transposed_dense(params: Layer, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """Return the same of a kernel that is stored out by in."""
    return params["kernel"] @ x + params["bias"]


def char_rnn(
    params: Params, state: State, token: Int[Array, ""], dense: Callable[..., Array] = dense
) -> tuple[State, Float[Array, " vocab"]]:
    """Return the new states and the logits of the next character."""
    *cells, readout = params
    x, new_state = jax.nn.one_hot(token, readout["bias"].shape[0]), []
    for layer, hidden in zip(cells, state, strict=True):
        x = jnp.tanh(dense(layer, jnp.concatenate([hidden, x])))
        new_state.append(x)
    return tuple(new_state), dense(readout, x)


# The loss


def loss_fn(params: Params, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    hidden, logits = jax.lax.scan(jax.vmap(partial(char_rnn, params)), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def transposed_loss_fn(
    params: Params, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same of parameters whose kernels are stored out by in, as Equinox stores them."""
    step = partial(char_rnn, params, dense=transposed_dense)
    hidden, logits = jax.lax.scan(jax.vmap(step), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(params: Any, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over parameters and optimiser state."""
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Any, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


def tuned(params: Params, _: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """One step written for speed, layer by layer: it shows how fast plain JAX can be."""
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        loss, hidden, grads = loss_and_gradient(to_weights(params), hidden, chunk)
        updates, opt_state = optimiser.update(from_weights(grads), opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


# Weights in and out, and the styles for the harness


def to_weights(params: Params) -> Weights:
    """Return parameters in the form that is the same for all libraries."""
    return unflat(Dense(layer["kernel"], layer["bias"]) for layer in params)


def from_weights(weights: Weights) -> Params:
    """Return the parameters that these weights are."""
    return [{"kernel": jnp.asarray(kernel), "bias": jnp.asarray(b)} for kernel, b in flat(weights)]


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over a list of layers, the readout last."""

    def init(key: PRNGKeyArray) -> Params:
        keys = jax.random.split(key, len(config.kernels))
        kernel = jax.nn.initializers.lecun_normal()
        return [
            {"kernel": kernel(key, size), "bias": jnp.zeros(size[1])}
            for key, size in zip(keys, config.kernels, strict=True)
        ]

    return Model(init, char_rnn, to_weights, from_weights)


def build_transposed(config: ModelConfig) -> Model:
    """Return the model over kernels that are stored out by in."""
    model = build(config)

    def flip(weights: Weights) -> Weights:
        return unflat(Dense(kernel.T, bias) for kernel, bias in flat(weights))

    return Model(
        lambda key: from_weights(flip(to_weights(model.init(key)))),
        partial(char_rnn, dense=transposed_dense),
        lambda params: flip(to_weights(params)),
        lambda weights: from_weights(flip(weights)),
    )


rnn = Rnn(build, lambda config: build(config).init(jax.random.key(0)), loss_fn, LIBRARY)
reference = rnn._replace(serves_others=False)
transposed = reference._replace(build=build_transposed, loss_fn=transposed_loss_fn)
STYLES = {
    "pure": rnn.threaded(pure),
    "tuned": reference.threaded(tuned),
    "transposed": transposed.threaded(pure),
}
