"""Character RNN in Flax NNX. Modules are mutable objects; the optimiser updates them in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from common.contract import Dense, Model, Program, Weights
from common.loss import scan_loss
from common.steps import FunctionalStep, donated, load_adam, pure_style, save_adam
from common.steps import stages_of as jax_stages_of

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, State, TrainStep

DISTRIBUTION = "flax"
PACKAGES = ("orbax-checkpoint", "tensorstore", "msgpack", "treescope", "etils", "typing-extensions")
COLOUR = "#CC79A7"
IF_NAMED = ("jax_jit", "flat")
LIMITS = {
    "jit_tree": "only models in which no two places share a Variable",
    "jit_partial": "only models in which no two places share a Variable",
    "jax_jit": "only models in which no two places share a Variable",
    "flat": "only models in which no two places share a Variable",
}


class Cell(nnx.Module):
    """One tanh layer."""

    def __init__(self, in_features: int, width: int, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(in_features, width, rngs=rngs)

    def __call__(self, hidden: Float[Array, " width"], x: Float[Array, " in"]) -> Array:
        """Return the new hidden state of one layer."""
        return jnp.tanh(self.dense(jnp.concatenate([hidden, x])))


class CharRNN(nnx.Module):
    """Cells bottom up, and a readout."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.cells = nnx.List([Cell(rows, config.width, rngs) for rows in config.in_features])
        self.readout = nnx.Linear(config.width, config.vocab_size, rngs=rngs)

    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = jax.nn.one_hot(token, self.readout.out_features), []
        for cell, hidden in zip(self.cells, state, strict=True):
            x = cell(hidden, x)
            new_state.append(x)
        return tuple(new_state), self.readout(x)


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over the State that `nnx.split` gives."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: CharRNN(config, nnx.Rngs(0))))

    def init(key: PRNGKeyArray) -> nnx.State:
        return nnx.state(CharRNN(config, nnx.Rngs(key)), nnx.Param)

    def step(params: nnx.State, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return nnx.merge(graphdef, params)(state, token)

    def to_weights(params: nnx.State) -> Weights:
        layers = nnx.to_pure_dict(params)
        cells = tuple(Dense(**layers["cells"][i]["dense"]) for i in range(config.layers))
        return Weights(cells, Dense(**layers["readout"]))

    def from_weights(weights: Weights) -> nnx.State:
        variables = jax.tree.map(lambda array: nnx.Param(jnp.asarray(array)), weights)
        cells = {i: {"dense": cell._asdict()} for i, cell in enumerate(variables.cells)}
        return nnx.State({"cells": cells, "readout": variables.readout._asdict()})

    return Model(init, step, to_weights, from_weights)


def train_step(
    model: CharRNN, optimizer: nnx.Optimizer, hidden: Hidden, chunk: Chunk
) -> tuple[Hidden, Array]:
    """Update model and optimiser in place: the function that each style of NNX's own compiles."""

    def loss_fn(model: CharRNN) -> tuple[Array, Hidden]:
        return scan_loss(model, hidden, chunk)

    (loss, hidden), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return hidden, loss


type Pair = tuple[CharRNN, nnx.Optimizer]
type Call = Callable[[Hidden, Chunk], tuple[Hidden, Array]]
type Stages = Callable[[Hidden, Chunk], Program]
type Bind = Callable[[CharRNN, nnx.Optimizer], tuple[Call, Stages]]


def objects(config: ModelConfig, optimiser: optax.GradientTransformation) -> Pair:
    """Return a model and its optimiser."""
    model = CharRNN(config, nnx.Rngs(0))
    return model, nnx.Optimizer(model, optimiser, wrt=nnx.Param)


def loaded(pair: Pair, pure: Model, checkpoint: Checkpoint) -> Pair:
    """Return a model and its optimiser with the arrays of `checkpoint`, replaced in place."""
    model, optimizer = pair
    params = pure.from_weights(checkpoint.weights)
    nnx.update(model, params)
    opt_state = load_adam(optimizer.tx, params, pure, checkpoint)
    variables = jax.tree.leaves(optimizer.opt_state, is_leaf=is_variable)
    for variable, value in zip(variables, jax.tree.leaves(opt_state), strict=True):
        variable.set_value(value)
    optimizer.step.set_value(jax.device_put(np.uint32(checkpoint.updates)))
    return pair


def saved(pair: Pair, pure: Model) -> Checkpoint:
    """Return the checkpoint of a model and its optimiser."""
    model, optimizer = pair
    opt_state = jax.tree.map(
        lambda variable: variable.get_value(), optimizer.opt_state, is_leaf=is_variable
    )
    return save_adam(nnx.state(model, nnx.Param), opt_state, pure)


class InPlace:
    """A training step around one model and one optimiser, whose arrays are replaced in place."""

    def __init__(
        self, config: ModelConfig, optimiser: optax.GradientTransformation, bind: Bind
    ) -> None:
        self.pure, self.tx = build(config), optimiser
        self.model, self.optimizer = objects(config, optimiser)
        self.call, self.program = bind(self.model, self.optimizer)

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        loaded((self.model, self.optimizer), self.pure, checkpoint)

    def save(self) -> Checkpoint:  # noqa: D102
        return saved((self.model, self.optimizer), self.pure)

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Array]:  # noqa: D102
        return self.call(hidden, chunk)


def is_variable(node: Any) -> bool:
    """Tell whether `node` is one of NNX's boxes around an array."""
    return isinstance(node, nnx.Variable)


def stages_of(function: Any, *arguments: Any) -> Stages:
    """Return what makes the stages of one of NNX's jitted functions."""
    return lambda *data: Program.traced(lambda: function.trace(*arguments, *data).traced)


def jit(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`nnx.jit` over model and optimiser, as most tutorials write it."""

    def bind(model: CharRNN, optimizer: nnx.Optimizer) -> tuple[Call, Stages]:
        function = nnx.jit(train_step, donate_argnums=(0, 1) if donate else ())
        return partial(function, model, optimizer), stages_of(function, model, optimizer)

    return InPlace(config, optimiser, bind)


def jit_tree(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`nnx.jit` in tree mode, in which `graph_updates=False` changes nothing more."""

    def bind(model: CharRNN, optimizer: nnx.Optimizer) -> tuple[Call, Stages]:
        function = nnx.jit(train_step, graph=False, donate_argnums=(0, 1) if donate else ())
        return partial(function, model, optimizer), stages_of(function, model, optimizer)

    return InPlace(config, optimiser, bind)


def cached_partial(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`nnx.cached_partial`: the graph is traversed once, when the step is made."""

    def bind(model: CharRNN, optimizer: nnx.Optimizer) -> tuple[Call, Stages]:
        function = nnx.jit(train_step, donate_argnums=(0, 1) if donate else ())
        # What it returns offers no stages; it runs the program of the function that it wraps.
        cached = nnx.cached_partial(function, model, optimizer)
        return cached, stages_of(function, model, optimizer)

    return InPlace(config, optimiser, bind)


def jit_partial(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`nnx.jit_partial` in tree mode: arrays are flattened once, when the step is made."""

    def bind(model: CharRNN, optimizer: nnx.Optimizer) -> tuple[Call, Stages]:
        # Of the function that it makes, where model and optimiser are the first argument together
        function = nnx.jit_partial(
            train_step, model, optimizer, graph=False, donate_argnums=donated(donate)
        )
        return function, stages_of(function)

    return InPlace(config, optimiser, bind)


def jax_jit(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`jax.jit` over model and optimiser, which are pytrees: each call returns new ones."""

    @partial(jax.jit, donate_argnums=donated(donate))
    def update(pair: Pair, hidden: Hidden, chunk: Chunk) -> tuple[Pair, Hidden, Array]:
        hidden, loss = train_step(*pair, hidden, chunk)
        return pair, hidden, loss

    pure = build(config)
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: objects(config, optimiser)))

    def load(checkpoint: Checkpoint) -> Pair:
        return loaded(jax.tree.unflatten(structure, shapes), pure, checkpoint)

    return FunctionalStep(update, load, lambda pair: saved(pair, pure), jax_stages_of(update))


def flat(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`jax.jit` over their arrays alone: objects are flattened once, and made while tracing."""
    pure = build(config)
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: objects(config, optimiser)))

    @partial(jax.jit, donate_argnums=donated(donate))
    def update(
        arrays: list[Array], hidden: Hidden, chunk: Chunk
    ) -> tuple[list[Array], Hidden, Array]:
        model, optimizer = jax.tree.unflatten(structure, arrays)
        hidden, loss = train_step(model, optimizer, hidden, chunk)
        return jax.tree.leaves((model, optimizer)), hidden, loss

    def load(checkpoint: Checkpoint) -> list[Array]:
        pair = jax.tree.unflatten(structure, shapes)
        return jax.tree.leaves(loaded(pair, pure, checkpoint))

    def save(arrays: list[Array]) -> Checkpoint:
        return saved(jax.tree.unflatten(structure, arrays), pure)

    return FunctionalStep(update, load, save, jax_stages_of(update))


STYLES = {
    "pure": pure_style(build),
    "jit": jit,
    "jit_tree": jit_tree,
    "cached_partial": cached_partial,
    "jit_partial": jit_partial,
    "jax_jit": jax_jit,
    "flat": flat,
}
