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
from common.steps import (
    AtRest,
    Converting,
    FunctionalStep,
    plain_style,
    pure_style,
    rnn_style,
    state_argnums,
)
from common.steps import stages_of as jax_stages_of

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, ModelLoss, ModelStyle, State

DISTRIBUTION = "flax"
PACKAGES = ("orbax-checkpoint", "tensorstore", "msgpack", "treescope", "etils", "typing-extensions")
COLOUR = "#CC79A7"
IF_NAMED = ("jax_jit", "flat")
NAMES = {
    "jit": "`nnx.jit`",
    "jit_tree": "`nnx.jit(graph=False)`",
    "jit_partial": "`nnx.jit_partial`",
    "cached_partial": "`nnx.cached_partial`",
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


type Pair = tuple[nnx.Module, nnx.Optimizer]
type Train = Callable[[nnx.Module, nnx.Optimizer, Hidden, Chunk], tuple[Hidden, Array]]
type Call = Callable[[Hidden, Chunk], tuple[Hidden, Array]]
type Stages = Callable[[Hidden, Chunk], Program]
type Bind = Callable[..., tuple[Call, Stages]]


def make_train_step(loss: ModelLoss) -> Train:
    """Return the step that each of NNX's own styles compiles; it updates in place."""

    def train_step(
        model: nnx.Module, optimizer: nnx.Optimizer, hidden: Hidden, chunk: Chunk
    ) -> tuple[Hidden, Array]:
        def loss_fn(model: nnx.Module) -> tuple[Array, Hidden]:
            return loss(model, hidden, chunk)

        (value, hidden_after), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return hidden_after, value

    return train_step


def bind_style(bind: Bind) -> ModelStyle:
    """Return the style whose step calls what `bind` makes of the training function."""

    def style(
        model: nnx.Module,
        loss: ModelLoss,
        optimiser: optax.GradientTransformation,
        *,
        donate: bool = False,
    ) -> InPlaceStep:
        return InPlaceStep(model, loss, optimiser, partial(bind, donate=donate))

    return style


@bind_style
def jit(
    train: Train, model: nnx.Module, optimizer: nnx.Optimizer, *, donate: bool
) -> tuple[Call, Stages]:
    """`nnx.jit` over model and optimiser, as most tutorials write it."""
    function = nnx.jit(train, donate_argnums=(0, 1) if donate else ())
    return partial(function, model, optimizer), stages_of(function, model, optimizer)


@bind_style
def jit_tree(
    train: Train, model: nnx.Module, optimizer: nnx.Optimizer, *, donate: bool
) -> tuple[Call, Stages]:
    """`nnx.jit` in tree mode, in which `graph_updates=False` changes nothing more."""
    function = nnx.jit(train, graph=False, donate_argnums=(0, 1) if donate else ())
    return partial(function, model, optimizer), stages_of(function, model, optimizer)


@bind_style
def cached_partial(
    train: Train, model: nnx.Module, optimizer: nnx.Optimizer, *, donate: bool
) -> tuple[Call, Stages]:
    """`nnx.cached_partial`: the graph is traversed once, when the step is made."""
    function = nnx.jit(train, donate_argnums=(0, 1) if donate else ())
    # What it returns offers no stages; it runs the program of the function that it wraps.
    return nnx.cached_partial(function, model, optimizer), stages_of(function, model, optimizer)


@bind_style
def jit_partial(
    train: Train, model: nnx.Module, optimizer: nnx.Optimizer, *, donate: bool
) -> tuple[Call, Stages]:
    """`nnx.jit_partial` in tree mode: arrays are flattened once, when the step is made."""
    # Of the function that it makes, where model and optimiser are the first argument together
    donate_argnums = state_argnums(donate)
    function = nnx.jit_partial(train, model, optimizer, graph=False, donate_argnums=donate_argnums)
    return function, stages_of(function)


def jax_jit(
    model: nnx.Module,
    loss: ModelLoss,
    optimiser: optax.GradientTransformation,
    *,
    donate: bool = False,
) -> FunctionalStep:
    """`jax.jit` over model and optimiser, which are pytrees: each call returns new ones."""
    train, pair = make_train_step(loss), (model, nnx.Optimizer(model, optimiser, wrt=nnx.Param))
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: pair))

    @partial(jax.jit, donate_argnums=state_argnums(donate))
    def update(pair: Pair, hidden: Hidden, chunk: Chunk) -> tuple[Pair, Hidden, Array]:
        model, optimizer = pair
        hidden, value = train(model, optimizer, hidden, chunk)
        return pair, hidden, value

    def load(rest: AtRest) -> Pair:
        return load_training(jax.tree.unflatten(structure, shapes), rest)

    return FunctionalStep(update, load, save_training, jax_stages_of(update))


class InPlaceStep(Converting):
    """A training step around one model and one optimiser, whose arrays are replaced in place."""

    def __init__(
        self,
        model: nnx.Module,
        loss: ModelLoss,
        optimiser: optax.GradientTransformation,
        bind: Bind,
    ) -> None:
        self.model, self.optimizer = model, nnx.Optimizer(model, optimiser, wrt=nnx.Param)
        self.call, self.program = bind(make_train_step(loss), self.model, self.optimizer)

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        load_training((self.model, self.optimizer), self.decode(checkpoint))

    def save(self) -> Checkpoint:  # noqa: D102
        return self.encode(save_training((self.model, self.optimizer)))

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Array]:  # noqa: D102
        return self.call(hidden, chunk)


def load_training(pair: Pair, rest: AtRest) -> Pair:
    """Return a model and its optimiser with the arrays of a training, replaced in place."""
    model, optimizer = pair
    nnx.update(model, rest.params)
    if rest.others:
        nnx.update(model, rest.others)
    boxes = jax.tree.leaves(optimizer.opt_state, is_leaf=is_variable)
    variables = (box for box in boxes if jax.tree.leaves(box))  # a mask leaves some empty
    for variable, value in zip(variables, jax.tree.leaves(rest.opt_state), strict=True):
        variable.set_value(value)
    optimizer.step.set_value(jax.device_put(np.uint32(rest.updates)))
    return pair


def save_training(pair: Pair) -> AtRest:
    """Return the training of a model and its optimiser."""
    model, optimizer = pair
    opt_state = jax.tree.map(
        lambda variable: variable.get_value(), optimizer.opt_state, is_leaf=is_variable
    )
    params, others, _ = split(model)
    return AtRest(params, opt_state, others, int(optimizer.step.get_value()))


def is_variable(node: Any) -> bool:
    """Tell whether `node` is one of NNX's boxes around an array."""
    return isinstance(node, nnx.Variable)


def split(model: nnx.Module) -> tuple[nnx.State, nnx.State, nnx.GraphDef]:
    """Take a model apart: its parameters, all other variables, and the graph."""
    parts: Any = nnx.split(model, nnx.Param, ...)
    graphdef, params, others = parts
    return params, others, graphdef


def merge(params: nnx.State, others: nnx.State, graphdef: nnx.GraphDef) -> nnx.Module:
    """Put a model together again."""
    # Make new Variables: those of another trace level cannot be changed
    return nnx.merge(graphdef, params, jax.tree.map(lambda array: array, others))


def stages_of(function: Any, *arguments: Any) -> Stages:
    """Return a function that makes the stages of one of NNX's jitted functions."""
    return lambda *data: Program.from_trace(lambda: function.trace(*arguments, *data).traced)


def make_rnn(config: ModelConfig) -> CharRNN:
    """Return the module; its numbers are not used."""
    return CharRNN(config, nnx.Rngs(0))


STYLES = {
    "pure": pure_style(build),
    "jit": rnn_style(jit, build, make_rnn),
    "jit_tree": rnn_style(jit_tree, build, make_rnn),
    "cached_partial": rnn_style(cached_partial, build, make_rnn),
    "jit_partial": rnn_style(jit_partial, build, make_rnn),
    "jax_jit": rnn_style(jax_jit, build, make_rnn),
    "flat": rnn_style(plain_style(split, merge, flat=True), build, make_rnn),
}
