"""Character RNN in stax, JAX's example library: a layer is a pair of functions, init and apply.

It has no recurrent layers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.example_libraries import stax

from common.contract import Dense, Model, Weights, flat
from common.library import Pairs
from common.loss import cross_entropy
from common.steps import Rnn

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = list[Any]
type Pair = tuple[Callable[..., Any], Callable[..., Any]]
type StaxModel = tuple[Params, Callable[..., Any]]
"""Parameters, and the function that applies them."""

# The model


def cell(width: int) -> Pair:
    """Return one tanh layer, which reads the pair of its hidden state and `x`."""
    return stax.serial(stax.FanInConcat(), stax.Dense(width), stax.Tanh)


def char_rnn(config: ModelConfig) -> Pair:
    """Return cells bottom up, and a readout: a pair made of pairs."""
    layers = [*(cell(config.width) for _ in range(config.layers)), stax.Dense(config.vocab_size)]
    init_funs, apply_funs = zip(*layers, strict=True)

    def init_fun(rng: PRNGKeyArray, input_shape: tuple[int, ...]) -> tuple[Any, Params]:
        *cells, (init_readout, readout_rng) = zip(
            init_funs, jax.random.split(rng, len(layers)), strict=True
        )
        shape, params = input_shape, []
        for init, cell_rng in cells:
            shape, layer = init(cell_rng, ((config.width,), shape))
            params.append(layer)
        shape, readout = init_readout(readout_rng, shape)
        return shape, [*params, readout]

    def apply_fun(
        params: Params, state: State, token: Int[Array, ""]
    ) -> tuple[State, Float[Array, " vocab"]]:
        *cells, (apply_readout, readout) = zip(apply_funs, params, strict=True)
        x, new_state = jax.nn.one_hot(token, config.vocab_size), []
        for (apply, layer), hidden in zip(cells, state, strict=True):
            x = apply(layer, (hidden, x))
            new_state.append(x)
        return tuple(new_state), apply_readout(readout, x)

    return init_fun, apply_fun


# The loss


def loss_fn(model: StaxModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, apply = model
    hidden, logits = jax.lax.scan(jax.vmap(partial(apply, params)), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: StaxModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
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


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over stax's lists, where `()` stands for no weights."""
    init_fun, apply_fun = char_rnn(config)

    def init(key: PRNGKeyArray) -> Params:
        return init_fun(key, (config.vocab_size,))[1]

    def to_weights(params: Params) -> Weights:
        *cells, readout = params
        return Weights(tuple(Dense(*dense) for _, dense, _ in cells), Dense(*readout))

    def from_weights(weights: Weights) -> Params:
        *cells, readout = ((jnp.asarray(w), jnp.asarray(b)) for w, b in flat(weights))
        return [*([(), dense, ()] for dense in cells), readout]

    return Model(init, apply_fun, to_weights, from_weights)


rnn = Rnn(build, lambda config: ([], char_rnn(config)[1]), loss_fn, Pairs())
STYLES = {"pure": rnn.threaded(pure)}
