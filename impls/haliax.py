"""Character RNN in Haliax. Axes have names, and modules are Equinox's.

Linear stores its weight out by in, so kernels are transposed. A layer's input and output need
different names, so a name is changed between layers.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["marin-haliax==0.2.227.dev40316220070", "equinox", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "747 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import haliax as hax
import jax
import jax.numpy as jnp

from common.contract import Dense, Model, Program, Weights, flat
from common.loss import scan_loss
from common.steps import FunctionalStep, load_adam, pure_style, save_adam

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, State, TrainStep

DISTRIBUTION = "marin-haliax"
COLOUR = "#88CCEE"


def linear(rows: int, columns: int, key: PRNGKeyArray) -> hax.nn.Linear:
    """Return a Linear from the axis of inputs to the axis of features."""
    return hax.nn.Linear.init(hax.Axis("inputs", rows), hax.Axis("features", columns), key=key)


class Cell(eqx.Module):
    """One tanh layer."""

    dense: hax.nn.Linear

    def __call__(self, hidden: hax.NamedArray, x: hax.NamedArray) -> hax.NamedArray:
        """Return the new hidden state of one layer."""
        joined = hax.concatenate("features", [hidden, x])
        return hax.tanh(self.dense(joined.rename({"features": "inputs"})))


class CharRNN(eqx.Module):
    """Cells bottom up, and a readout."""

    cells: list[Cell]
    readout: hax.nn.Linear

    @staticmethod
    def init(config: ModelConfig, key: PRNGKeyArray) -> CharRNN:
        """Return a model with fresh parameters."""
        *keys, readout_key = jax.random.split(key, config.layers + 1)
        cells = [
            Cell(linear(rows, config.width, key))
            for rows, key in zip(config.in_features, keys, strict=True)
        ]
        return CharRNN(cells, linear(config.width, config.vocab_size, readout_key))

    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = hax.nn.one_hot(token, self.readout.Out), []
        for cell, hidden in zip(self.cells, state, strict=True):
            x = cell(hax.named(hidden, "features"), x)
            new_state.append(x.array)
        return tuple(new_state), self.readout(x.rename({"features": "inputs"})).array


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over the module itself, whose leaves are all arrays."""
    structure = jax.tree.structure(eqx.filter_eval_shape(CharRNN.init, config, jax.random.key(0)))

    def init(key: PRNGKeyArray) -> CharRNN:
        return CharRNN.init(config, key)

    def step(rnn: CharRNN, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return rnn(state, token)

    def to_weights(rnn: CharRNN) -> Weights:
        arrays = iter(jax.tree.leaves(rnn))
        *cells, readout = (Dense(weight.T, next(arrays)) for weight in arrays)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> CharRNN:
        arrays = (
            jnp.asarray(array) for kernel, bias in flat(weights) for array in (kernel.T, bias)
        )
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


def named_jit(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """`hax.named_jit`, and Equinox's gradient over the whole module, as the tutorials write it."""

    @hax.named_jit  # type: ignore[untyped-decorator]
    def update(state: tuple[CharRNN, Any], hidden: Hidden, chunk: Chunk) -> Any:
        @eqx.filter_value_and_grad(has_aux=True)
        def loss_fn(rnn: CharRNN) -> tuple[Array, Hidden]:
            return scan_loss(rnn, hidden, chunk)

        rnn, opt_state = state
        (loss, hidden_after), grads = loss_fn(rnn)
        updates, opt_state = optimiser.update(grads, opt_state, rnn)
        return (eqx.apply_updates(rnn, updates), opt_state), hidden_after, loss

    model = build(config)

    def load(checkpoint: Checkpoint) -> tuple[CharRNN, Any]:
        rnn = model.from_weights(checkpoint.weights)
        return rnn, load_adam(optimiser, rnn, model, checkpoint)

    def save(state: tuple[CharRNN, Any]) -> Checkpoint:
        return save_adam(*state, model)

    def stages(*arguments: Any) -> Program:
        return Program(lambda: update.lower(*arguments), trace=None)

    return FunctionalStep(update, load, save, stages)


STYLES = {"pure": pure_style(build), "named_jit": named_jit}
