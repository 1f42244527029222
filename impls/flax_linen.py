"""Character RNN in Flax Linen. Modules are stateless; parameters live in a nested dict of names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from common.contract import Dense, Model, Weights
from common.loss import scan_loss
from common.steps import (
    AtRest,
    FunctionalStep,
    functional,
    pure_style,
    rnn_style,
    stages_of,
    state_argnums,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, State, TrainStep

DISTRIBUTION = "flax"
PACKAGES = ("orbax-checkpoint", "tensorstore", "msgpack", "treescope", "etils", "typing-extensions")
RECOMMENDED = False
NOTE = "Linen stays, but Flax sends new users to NNX."
COLOUR = "#009E73"
REFERENCES = ("blog",)
NAMES = {"blog": "a 2021 Flax tutorial's step", "train_state": "Linen's `TrainState`"}

type Params = Mapping[str, Any]


class Cell(nn.Module):
    """One tanh layer."""

    width: int

    @nn.compact
    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(nn.Dense(self.width, name="dense")(jnp.concatenate([hidden, x])))


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


type AnyModel = tuple[Params, Callable[..., Any]]
"""Parameters, and a module's `apply`."""


class CarryingState(TrainState):
    """Flax's TrainState with a field for what a loss is given again: its state, its key."""

    carried: Any = ()


def train_state(
    model: AnyModel,
    loss: ModelLoss,
    optimiser: optax.GradientTransformation,
    *,
    donate: bool = False,
) -> FunctionalStep:
    """One jitted step over Flax's TrainState, as its examples write it."""
    _, apply = model

    @partial(jax.jit, donate_argnums=state_argnums(donate))
    def update(state: Any, hidden: Hidden, chunk: Chunk) -> tuple[TrainState, Hidden, Array]:
        carried = getattr(state, "carried", None)

        def loss_fn(params: Params) -> tuple[Array, Hidden]:
            return loss((params, state.apply_fn), carried or hidden, chunk)

        (value, after), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads)
        return (state.replace(carried=after), hidden, value) if carried else (state, after, value)

    def load(rest: AtRest) -> TrainState:
        fields = {"apply_fn": apply, "params": rest.params, "tx": optimiser}
        state = (
            CarryingState.create(**fields, carried=rest.carried)
            if rest.carried
            else TrainState.create(**fields)
        )
        # A buffer of its own: Adam's count would be donated twice
        step = jax.device_put(np.int32(rest.updates))
        return state.replace(step=step, opt_state=rest.opt_state)

    def save(state: TrainState) -> AtRest:
        carried = getattr(state, "carried", ())
        return AtRest(state.params, state.opt_state, updates=int(state.step), carried=carried)

    return FunctionalStep(update, load, save, stages_of(update))


def rnn_loss(model: AnyModel, hidden: Hidden, chunk: Chunk) -> tuple[Array, Hidden]:
    """Return the RNN's mean loss and its state after a chunk."""
    params, apply = model
    return scan_loss(partial(apply, {"params": params}), hidden, chunk)


def make_rnn(config: ModelConfig) -> AnyModel:
    """Return the RNN without parameters, which the step is given."""
    return {}, CharRNN(config).apply


def blog(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """Step of the Flax tutorial of 2021: a jitted gradient, and the optimiser outside of jit."""
    model = build(config)

    @jax.jit
    def rnn_loss_grad(state: tuple[Params, Any], hidden: Hidden, chunk: Chunk) -> Any:
        def rnn_loss(params: Params) -> tuple[Array, Hidden]:
            return scan_loss(partial(model.step, params), hidden, chunk)

        return jax.value_and_grad(rnn_loss, has_aux=True)(state[0])

    def batch_step(state: tuple[Params, Any], hidden: Hidden, chunk: Chunk) -> Any:
        (loss, hidden), grads = rnn_loss_grad(state, hidden, chunk)
        params, opt_state = state
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    return functional(batch_step, model, optimiser, stages_of(rnn_loss_grad, whole=False))


STYLES = {
    "pure": pure_style(build),
    "train_state": rnn_style(train_state, build, make_rnn, rnn_loss),
    "blog": blog,
}
