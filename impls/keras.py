"""Character RNN in Keras on its JAX backend: layers hold variables; `stateless_call` takes arrays.

Keras reads its backend and the user's settings when it is imported, so this file sets the backend
and hides the settings. Layers want a batch, even of one, and sequences have the batch first.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["keras==3.15.1", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "556 MB"
# ///

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

os.environ.update(KERAS_BACKEND="jax", KERAS_HOME=os.devnull)

import keras
from keras import ops

from common.contract import Dense, Model, Weights, unflat
from common.library import Pairs
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.keras import run_trainer

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import (
        Chunk,
        Hidden,
        ModelLoss,
        Optimiser,
        State,
        StepAndState,
        TrainStep,
    )
    from common.steps import Configured

type Params = list[Array]
type KerasModel = tuple[Params, Callable[..., Any]]
"""Values of trainable variables, and a function that applies them to states and characters."""

# The model


def dense(units: int, seed: int, activation: str | None = None) -> keras.layers.Dense:
    """Return a Dense with its default initialiser, seeded."""
    initialiser = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(units, activation, kernel_initializer=initialiser)


class Cell(keras.layers.Layer):
    """One tanh layer, as a cell that `keras.layers.RNN` scans."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.state_size = width
        self.dense = dense(width, seed, "tanh")

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the weights, for inputs of this shape."""
        self.dense.build((*input_shape[:-1], self.state_size + input_shape[-1]))

    def call(
        self, x: Float[Array, "batch in"], states: list[Float[Array, "batch width"]]
    ) -> tuple[Array, list[Array]]:
        """Return the layer's output and its new hidden state, which are the same."""
        hidden = self.dense(ops.concatenate([*states, x], axis=-1))
        return hidden, [hidden]


class Carried(keras.layers.Layer):
    """Cells over sequences, which go on from where the last sequence ended.

    `RNN(stateful=True)` has its state outside of the model's variables, where the trainer does not
    look; so the state is made of variables here.
    """

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__()
        self.rnn = keras.layers.RNN(cells, return_sequences=True, return_state=True)

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the weights, and the state of a batch of this shape."""
        self.rnn.build(input_shape)
        self.states = [
            self.add_weight((input_shape[0], width), "zeros", trainable=False)
            for width in self.rnn.state_size
        ]

    def call(self, x: Float[Array, "batch time in"]) -> Float[Array, "batch time width"]:
        """Return the top cell's outputs; the state is kept as other layers keep statistics."""
        outputs, *after = self.rnn(x, [variable.value for variable in self.states])
        for variable, value in zip(self.states, after, strict=True):
            variable.assign(value)
        return outputs


def char_rnn(config: ModelConfig, seeds: list[int]) -> keras.Model:
    """Return cells bottom up, and a readout, over one character and the state of each layer."""
    *cell_seeds, readout_seed = seeds
    token = keras.Input((), dtype="int32")
    state = tuple(keras.Input((config.width,)) for _ in cell_seeds)
    x, new_state = ops.one_hot(token, config.vocab_size), []
    for hidden, seed in zip(state, cell_seeds, strict=True):
        x, [hidden] = Cell(config.width, seed)(x, [hidden])
        new_state.append(hidden)
    logits = dense(config.vocab_size, readout_seed)(x)
    return keras.Model((token, state), (tuple(new_state), logits))


# The loss


def loss_fn(model: KerasModel, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    params, apply = model
    hidden, logits = jax.lax.scan(jax.vmap(partial(apply, params)), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: KerasModel, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over values of variables and optimiser state."""
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


class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW, with epsilon beside the corrected second moment, as in optax.

    Keras adds it to the moment before that is corrected, which is the same function of another
    epsilon in each step; ten steps at width 128 see the difference.
    """

    @property
    def epsilon(self) -> Any:
        """Return the epsilon of the current step."""
        step = ops.cast(self.iterations + 1, "float32")
        return self.corrected * ops.sqrt(1 - ops.power(self.beta_2, step))

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self.corrected = value


def trainer(config: ModelConfig, optimiser: Configured, batch: int) -> keras.Model:
    """Return a compiled Keras model over sequences, whose RNN layer carries its state."""
    tokens = keras.Input((None,), batch, dtype="int32")
    cells = [Cell(config.width, seed) for seed in range(config.layers)]
    outputs = Carried(cells)(ops.one_hot(tokens, config.vocab_size))
    logits = dense(config.vocab_size, seed=0)(outputs)
    model = keras.Model(tokens, logits)
    model.compile(
        AdamW(optimiser.config.learning_rate, optimiser.config.weight_decay, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def train_step(config: ModelConfig, optimiser: Configured, *, donate: bool = False) -> TrainStep:
    """The trainer's own `train_step`, which `fit` jits, with Keras's RNN, loss and AdamW.

    It is jitted here, for `fit` also donates what it is called with.
    """

    def jit_batch(batch: int) -> Any:
        model = trainer(config, optimiser, batch)

        @partial(jax.jit, donate_argnums=(0, 1) if donate else ())
        def update(params: Params, of_optimizer: Params, hidden: Hidden, chunk: Chunk) -> Any:
            of_metrics = [jnp.zeros(v.shape, v.dtype) for v in model.metrics_variables]
            logs, (params, of_rnn, of_optimizer, _) = model.train_step(
                (params, list(hidden), of_optimizer, of_metrics),
                (chunk.inputs.T, chunk.targets.T, chunk.mask.T),
            )
            return params, of_optimizer, tuple(of_rnn), logs["loss"]

        return update

    return run_trainer(build(config), optimiser.config.learning_rate, jit_batch)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over the values of its trainable variables."""
    rnn = char_rnn(config, list(range(config.layers + 1)))

    def init(key: PRNGKeyArray) -> Params:
        seeds = jax.random.bits(key, (config.layers + 1,)).tolist()
        return [variable.value for variable in char_rnn(config, seeds).trainable_variables]

    def step(params: Params, state: State, token: Int[Array, ""]) -> Any:
        batch_of_one = jax.tree.map(lambda array: jnp.asarray(array)[None], (token, state))
        outputs, _ = rnn.stateless_call(params, [], batch_of_one)
        return jax.tree.map(lambda array: array[0], outputs)

    def to_weights(params: Params) -> Weights:
        return unflat(map(Dense, params[::2], params[1::2]))

    def from_weights(weights: Weights) -> Params:
        return [jnp.asarray(array) for array in jax.tree.leaves(weights)]

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: ([], build(config).step), loss_fn, Pairs())
STYLES = {"pure": rnn.threaded(pure), "train_step": train_step}
