"""Character RNN in Haliax: axes have names, and modules are Equinox's.

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
import optax

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

# The model


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


# The loss


def loss_fn(model: CharRNN, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    hidden, logits = jax.lax.scan(jax.vmap(model), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


def scanned_loss_fn(
    model: CharRNN, hidden: Hidden, chunk: Chunk
) -> tuple[Float[Array, ""], Hidden]:
    """Return the same with Haliax's own `scan`, along the axis of a name."""

    def step(state: Hidden, token: hax.NamedArray) -> tuple[Hidden, hax.NamedArray]:
        state, logits = jax.vmap(model)(state, token.array)
        return state, hax.named(logits, ("stream", "vocab"))

    inputs = hax.named(chunk.inputs, ("time", "stream"))
    hidden, logits = hax.scan(step, "time")(hidden, inputs)
    return cross_entropy(logits.array, chunk), hidden


# Training steps


def pure(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over the module, whose leaves are all arrays, and optimiser state."""
    opt_state = optimiser.init(model)

    @jax.jit
    def train_step(model: CharRNN, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, model)
        return optax.apply_updates(model, updates), opt_state, hidden, loss

    return train_step, (model, opt_state)


def named_jit(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`hax.named_jit`, and Equinox's gradient over the whole module, as the tutorials write it."""
    opt_state = optimiser.init(model)

    @hax.named_jit  # type: ignore[untyped-decorator]
    def train_step(model: CharRNN, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        grad_fn = eqx.filter_value_and_grad(loss_fn, has_aux=True)
        (loss, hidden), grads = grad_fn(model, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, hidden, loss

    return train_step, (model, opt_state)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over the module itself, whose leaves are all arrays."""
    structure = jax.tree.structure(eqx.filter_eval_shape(CharRNN.init, config, jax.random.key(0)))

    def init(key: PRNGKeyArray) -> CharRNN:
        return CharRNN.init(config, key)

    def step(rnn: CharRNN, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return rnn(state, token)

    def to_weights(rnn: CharRNN) -> Weights:
        arrays = jax.tree.leaves(rnn)
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        return unflat(Dense(weight.T, bias) for weight, bias in pairs)

    def from_weights(weights: Weights) -> CharRNN:
        arrays = (
            jnp.asarray(array) for kernel, bias in flat(weights) for array in (kernel.T, bias)
        )
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: CharRNN.init(config, jax.random.key(0)), loss_fn)
STYLES = {
    "pure": rnn.threaded(pure),
    "named_jit": rnn.threaded(named_jit, can_donate=False),
    "scan": rnn._replace(loss_fn=scanned_loss_fn).threaded(named_jit, can_donate=False),
}
