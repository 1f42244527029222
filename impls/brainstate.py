"""Character RNN in BrainState. Layers hold states, which transformations read and write in place.

A Linear's weight and bias are one state, a dict.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["brainstate==0.6.0", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "636 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import brainstate as bs
import jax
import jax.numpy as jnp
import optax

from common.contract import Dense, Model, Program, Weights, flat
from common.loss import scan_loss
from common.steps import load_adam, pure_style, save_adam

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, State, TrainStep

DISTRIBUTION = "brainstate"
COLOUR = "#CC6677"

type Params = Any


class Cell(bs.nn.Module):
    """One tanh layer."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.dense = bs.nn.Linear(rows, width)

    def update(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(bs.nn.Module):
    """Cells bottom up, and a readout; initialisers draw from BrainState's own random numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.cells = [Cell(rows, config.width) for rows in config.in_features]
        self.readout = bs.nn.Linear(config.width, config.vocab_size)

    def update(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = jax.nn.one_hot(token, self.vocab_size), []
        for cell, hidden in zip(self.cells, state, strict=True):
            x = cell(hidden, x)
            new_state.append(x)
        return tuple(new_state), self.readout(x)


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its states; `graphdef` holds the rest of it."""
    graphdef, params = bs.graph.treefy_split(CharRNN(config))
    structure = jax.tree.structure(params)

    def init(key: PRNGKeyArray) -> Params:
        with bs.random.seed_context(key):
            return bs.graph.treefy_states(CharRNN(config))

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return bs.graph.treefy_merge(graphdef, params)(state, token)

    def to_weights(params: Params) -> Weights:
        arrays = iter(jax.tree.leaves(params))
        *cells, readout = (Dense(next(arrays), bias) for bias in arrays)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> Params:
        arrays = (jnp.asarray(array) for kernel, bias in flat(weights) for array in (bias, kernel))
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


class InPlaceStep:
    """A training step around one model and one optimiser state, whose arrays are replaced."""

    def __init__(self, config: ModelConfig, optimiser: optax.GradientTransformation) -> None:
        rnn, pure, self.tx = CharRNN(config), build(config), optimiser
        self.params = rnn.states(bs.ParamState)
        structure = jax.tree.structure(self.values())

        def from_weights(weights: Weights) -> dict[Any, Any]:
            return jax.tree.unflatten(structure, jax.tree.leaves(pure.from_weights(weights)))

        self.model = pure._replace(from_weights=from_weights)
        self.opt_state = bs.LongTermState(optimiser.init(self.values()))

        def loss_fn(hidden: Hidden, chunk: Chunk) -> tuple[Array, Hidden]:
            return scan_loss(rnn, hidden, chunk)

        @bs.transform.jit  # type: ignore[untyped-decorator]
        def update(hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Array]:
            gradient = bs.transform.grad(loss_fn, self.params, has_aux=True, return_value=True)
            grads, loss, hidden = gradient(hidden, chunk)
            updates, self.opt_state.value = optimiser.update(
                dict(grads), self.opt_state.value, self.values()
            )
            self.assign(optax.apply_updates(self.values(), updates))
            return hidden, loss

        self.update = update

    def values(self) -> dict[Any, Any]:
        """Return the parameters by their paths in the model."""
        return {path: state.value for path, state in self.params.items()}

    def assign(self, values: dict[Any, Any]) -> None:
        """Replace the parameters."""
        for path, value in values.items():
            self.params[path].value = value

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        params = self.model.from_weights(checkpoint.weights)
        self.assign(params)
        self.opt_state.value = load_adam(self.tx, params, self.model, checkpoint)

    def save(self) -> Checkpoint:  # noqa: D102
        return save_adam(self.values(), self.opt_state.value, self.model)

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Array]:  # noqa: D102
        return self.update(hidden, chunk)

    def program(self, hidden: Hidden, chunk: Chunk) -> Program:  # noqa: D102
        return Program.from_trace(lambda: self.update.trace(hidden, chunk))


def jit(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """BrainState's own `jit` and `grad` over a model's states, as its documentation writes it."""
    return InPlaceStep(config, optimiser)


STYLES = {"pure": pure_style(build), "jit": jit}
