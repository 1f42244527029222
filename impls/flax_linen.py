"""Character RNN in Flax Linen: modules are stateless; parameters live in a nested dict of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from common.contract import Dense, Model, Weights
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.flax_linen import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = Mapping[str, Any]
type LinenModel = tuple[Params, Callable[..., Any]]
"""Parameters, and a module's `apply`."""

# The model


class Cell(nn.Module):
    """One tanh layer; takes one stream or a batch of them."""

    width: int

    @nn.compact
    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(nn.Dense(self.width, name="dense")(jnp.concatenate([hidden, x], axis=-1)))


class CharRNN(nn.Module):
    """Cells bottom up, and a readout."""

    config: ModelConfig

    @nn.compact
    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = jax.nn.one_hot(token, self.config.vocab_size), []
        for layer, hidden in enumerate(state):
            x = Cell(self.config.width, name=f"cell_{layer}")(hidden, x)
            new_state.append(x)
        return tuple(new_state), nn.Dense(self.config.vocab_size, name="readout")(x)


# The loss


def loss_fn(model: LinenModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, apply = model

    def step(state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return apply({"params": params}, state, token)

    hidden, logits = jax.lax.scan(jax.vmap(step), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def scanned_loss_fn(
    model: LinenModel, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same of a model that Linen's own `nn.scan` has made of the RNN."""
    params, apply = model
    hidden, logits = apply({"params": params}, hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: LinenModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
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


def train_state(model: LinenModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over Flax's `TrainState`, as its examples write it."""
    params, apply = model
    state = TrainState.create(apply_fn=apply, params=params, tx=optimiser)

    @jax.jit
    def train_step(state: TrainState, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn((params, state.apply_fn), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads), hidden, loss

    return train_step, (state,)


def blog(model: LinenModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """Step of the Flax tutorial of 2021: a jitted gradient, and the optimiser outside of jit."""
    params, apply = model
    opt_state = optimiser.init(params)

    @jax.jit
    def compute_grads(params: Params, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn((params, apply), hidden, chunk)

        return jax.value_and_grad(params_loss, has_aux=True)(params)

    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        (loss, hidden), grads = compute_grads(params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over Linen's dict of parameters."""
    rnn = CharRNN(config)

    def init(key: PRNGKeyArray) -> Params:
        state = (jnp.zeros(config.width),) * config.layers
        return rnn.init(key, state, jnp.int32(0))["params"]

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return rnn.apply({"params": params}, state, token)  # type: ignore[return-value]

    def to_weights(params: Params) -> Weights:
        cells = tuple(Dense(**params[f"cell_{i}"]["dense"]) for i in range(config.layers))
        return Weights(cells, Dense(**params["readout"]))

    def from_weights(weights: Weights) -> Params:
        weights = jax.tree.map(jnp.asarray, weights)
        cells = {f"cell_{i}": {"dense": cell._asdict()} for i, cell in enumerate(weights.cells)}
        return {**cells, "readout": weights.readout._asdict()}

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: ({}, CharRNN(config).apply), loss_fn, LIBRARY)
scanned_rnn = nn.scan(CharRNN, variable_broadcast="params", split_rngs={"params": False})
scanned = rnn._replace(
    make_model=lambda config: ({}, scanned_rnn(config).apply),
    loss_fn=scanned_loss_fn,
    serves_others=False,
)
STYLES = {
    "pure": rnn.threaded(pure),
    "train_state": rnn.threaded(train_state),
    "scan": scanned.threaded(train_state),
    "blog": rnn._replace(serves_others=False).threaded(blog, can_donate=False),
}
