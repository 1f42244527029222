"""Character RNN in Haiku: modules are made inside of a function that `hk.transform` turns pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.haiku import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = dict[str, dict[str, Array]]
type HaikuModel = tuple[Params, Callable[..., Any]]
"""Parameters, and the `apply` of a transformed function."""

# The model


class Cell(hk.RNNCore):
    """One tanh layer; takes one stream or a batch of them, as Haiku's cores do."""

    def __init__(self, width: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.width = width

    def __call__(self, x: Float[Array, "*batch in"], hidden: Float[Array, "*batch width"]) -> Any:
        """Return the layer's output and its new hidden state, which are the same."""
        hidden = jnp.tanh(hk.Linear(self.width)(jnp.concatenate([hidden, x], axis=-1)))
        return hidden, hidden

    def initial_state(self, batch_size: int | None) -> Array:
        """Return zeros; every RNNCore has to say where it starts."""
        return jnp.zeros((self.width,) if batch_size is None else (batch_size, self.width))


def char_rnn(config: ModelConfig) -> hk.DeepRNN:
    """Return one-hot, cells bottom up, and a readout; called in a transform, whose names it has."""
    one_hot = partial(jax.nn.one_hot, num_classes=config.vocab_size)
    cells = [Cell(config.width, name=f"cell_{i}") for i in range(config.layers)]
    return hk.DeepRNN([one_hot, *cells, hk.Linear(config.vocab_size, name="readout")])


def transform_step(config: ModelConfig) -> hk.Transformed:
    """Return the RNN as pure functions of its parameters, for one character; `scan` wants this."""

    def step(state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        logits, new_state = char_rnn(config)(token, state)
        return new_state, logits

    return hk.without_apply_rng(hk.transform(step))


def transform_sequence(config: ModelConfig) -> hk.Transformed:
    """Return the RNN as pure functions of its parameters, for a chunk, which Haiku unrolls."""

    def unroll(hidden: Hidden, inputs: Int[Array, "time batch"]) -> tuple[Array, Hidden]:
        return hk.dynamic_unroll(char_rnn(config), inputs, hidden)

    return hk.without_apply_rng(hk.transform(unroll))


# The loss


def loss_fn(model: HaikuModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, apply = model
    hidden, logits = jax.lax.scan(jax.vmap(partial(apply, params)), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def unrolled_loss_fn(
    model: HaikuModel, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same loss of a model that takes a whole chunk, as Haiku's RNN example has it."""
    params, apply = model
    logits, hidden = apply(params, hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: HaikuModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over parameters and optimiser state, as the documentation writes it."""
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
    """Return the model as pure functions over a dict: Haiku module name → arrays."""
    rnn, names = transform_step(config), [f"cell_{i}/linear" for i in range(config.layers)]
    names.append("readout")

    def init(key: PRNGKeyArray) -> Params:
        return rnn.init(key, (jnp.zeros(config.width),) * config.layers, jnp.int32(0))

    def to_weights(params: Params) -> Weights:
        return unflat(Dense(params[name]["w"], params[name]["b"]) for name in names)

    def from_weights(weights: Weights) -> Params:
        layers = zip(names, flat(weights), strict=True)
        return {name: {"w": jnp.asarray(w), "b": jnp.asarray(b)} for name, (w, b) in layers}

    return Model(init, rnn.apply, to_weights, from_weights)


# Without parameters, which the step is given when it is loaded
rnn = Rnn(build, lambda config: ({}, transform_step(config).apply), loss_fn, LIBRARY)
unrolled = rnn._replace(
    make_model=lambda config: ({}, transform_sequence(config).apply),
    loss_fn=unrolled_loss_fn,
    serves_others=False,
)
# The same training step; only the loop over characters moves into Haiku's transform
STYLES = {"pure": rnn.threaded(pure), "transform": unrolled.threaded(pure)}
