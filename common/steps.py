"""The optimiser, the shared jitted step over pure parameters, and parts of styles.

A style whose factory takes the keyword `donate` can donate its state, parameters and moments: all
such styles do in a run with `pytest bench --donate`, and none does in other runs. Hidden state and
chunk are never donated, so they can be used again. Both are checked in compiled programs.
"""

from __future__ import annotations

from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax

from common.compatibility import make_program, tree_get, tree_set
from common.contract import Checkpoint, map_arrays
from common.loss import scan_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float

    from common.config import ModelConfig, OptimiserConfig
    from common.contract import (
        Chunk,
        Hidden,
        Model,
        ModelLoss,
        ModelStyle,
        Params,
        Program,
        Style,
        TrainStep,
        Weights,
    )

    type Loss = Float[Array, ""]
    type Stages = Callable[[Any, Hidden, Chunk], Program]
    type Update = Callable[[Any, Hidden, Chunk], tuple[Any, Hidden, Loss]]


class Configured(optax.GradientTransformationExtraArgs):
    """Optax's optimiser with its configuration, for entrants that make updates without optax."""

    config: OptimiserConfig


def adamw(config: OptimiserConfig) -> Configured:
    """Return the optimiser of every entrant and style."""
    optimiser = Configured(*optax.adamw(config.learning_rate, weight_decay=config.weight_decay))
    optimiser.config = config
    return optimiser


def load_adam(
    optimiser: optax.GradientTransformation, params: Params, model: Model, checkpoint: Checkpoint
) -> optax.OptState:
    """Return optax's state for `params`, with the moments and the count of `checkpoint`."""
    leaves, structure = jax.tree.flatten(params)
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return tree_set(
        # zeros would be compiled, and thrown away
        make_state_template(optimiser.init, structure, shapes),
        mu=model.from_weights(checkpoint.mu),
        nu=model.from_weights(checkpoint.nu),
        count=jax.device_put(np.int32(checkpoint.updates)),
    )


@cache
def make_state_template(
    init: Callable[[Params], optax.OptState],
    structure: Any,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
) -> optax.OptState:
    """Return optax's first state without its arrays; traced once for each structure."""
    return jax.eval_shape(init, jax.tree.unflatten(structure, leaves))


def save_adam(params: Params, opt_state: optax.OptState, model: Model) -> Checkpoint:
    """Return the checkpoint of parameters and optax state; the inverse of `load_adam`."""
    mu, nu, count = (tree_get(opt_state, name) for name in ("mu", "nu", "count"))
    weights, mu, nu = (move_to_host(model.to_weights(tree)) for tree in (params, mu, nu))
    return Checkpoint(weights, mu, nu, int(count))


def move_to_host(weights: Weights) -> Weights:
    """Return `weights` as NumPy arrays."""
    return map_arrays(np.asarray, weights)


class AtRest(NamedTuple):
    """A training of any model at rest, in the structures of its library."""

    params: Params
    opt_state: optax.OptState
    others: Any = ()
    """Arrays of the model that are not trained, and that a step may change: statistics, counters of
    random numbers."""
    updates: int = 0
    """Updates made so far."""
    carried: Any = ()
    """Values that the loss returns and gets in the next step, by name: its state, its key."""


class Converting:
    """A training step that is loaded and saved in another form than its style has."""

    decode: Callable[[Any], Any] = staticmethod(lambda at_rest: at_rest)
    encode: Callable[[Any], Any] = staticmethod(lambda at_rest: at_rest)


class FunctionalStep(Converting):
    """A training step whose state is one immutable value, threaded through a function."""

    def __init__(
        self,
        update: Update,
        load: Callable[[Any], Any],
        save: Callable[[Any], Any],
        stages: Stages,
    ) -> None:
        self.update, self._load, self._save, self._stages = update, load, save, stages
        self.state: Any = None

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.state = self._load(self.decode(checkpoint))

    def save(self) -> Checkpoint:  # noqa: D102
        return self.encode(self._save(self.state))

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Loss]:  # noqa: D102
        self.state, hidden, loss = self.update(self.state, hidden, chunk)
        return hidden, loss

    def program(self, hidden: Hidden, chunk: Chunk) -> Program:  # noqa: D102
        return self._stages(self.state, hidden, chunk)


def state_argnums(donate: bool) -> tuple[int, ...]:
    """Return the indices of an update's donated arguments: that of its state, or none."""
    return (0,) if donate else ()


def stages_of(jitted: Any, *, whole: bool = True) -> Stages:
    """Return a function that makes the stages of a call of a jitted function."""
    return lambda *arguments: make_program(jitted, *arguments, whole=whole)


def pure_update(model: Model, optimiser: optax.GradientTransformation) -> Update:
    """Return the update of `(params, opt_state)` that the `pure` styles jit."""

    def loss(params: Params, hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
        return scan_loss(partial(model.step, params), hidden, chunk)

    return update_of(loss, optimiser)


def update_of(
    loss_of: Callable[[Params, Hidden, Chunk], tuple[Loss, Hidden]],
    optimiser: optax.GradientTransformation,
) -> Update:
    """Return the update of `(params, opt_state)` by a loss that also returns the state after it."""

    def update(
        state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk
    ) -> tuple[tuple[Params, optax.OptState], Hidden, Loss]:
        params, opt_state = state

        def loss_fn(params: Params) -> tuple[Loss, Hidden]:
            return loss_of(params, hidden, chunk)

        (loss, hidden_after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden_after, loss

    return update


def functional(
    update: Update, model: Model, optimiser: optax.GradientTransformation, stages: Stages
) -> FunctionalStep:
    """Return a step whose state is `(params, opt_state)`."""

    def load(checkpoint: Checkpoint) -> tuple[Params, optax.OptState]:
        params = model.from_weights(checkpoint.weights)
        return params, load_adam(optimiser, params, model, checkpoint)

    return FunctionalStep(update, load, lambda state: save_adam(state[0], state[1], model), stages)


def pure_style(build: Callable[[ModelConfig], Model]) -> Style:
    """Return the style that each entrant has: one `jax.jit` over pure parameters."""

    def pure(
        config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
    ) -> TrainStep:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser), donate_argnums=state_argnums(donate))
        return functional(update, model, optimiser, stages_of(update))

    return pure


def rnn_style(
    style: ModelStyle,
    build: Callable[[ModelConfig], Model],
    make_rnn: Callable[[ModelConfig], Any],
    loss: ModelLoss = scan_loss,
) -> Style:
    """Return the RNN's use of a style that suits any model of its library.

    Args:
        style: Function of a model, a loss and an optimiser.
        build: The entrant's; its model converts weights.
        make_rnn: Returns the library's own RNN; its numbers are not used.
        loss: Function of the RNN, the hidden state and a chunk.
    """

    @wraps(style)
    def make_step(
        config: ModelConfig, optimiser: optax.GradientTransformation, **donate: bool
    ) -> TrainStep:
        model, step = build(config), style(make_rnn(config), loss, optimiser, **donate)

        def decode(checkpoint: Checkpoint) -> AtRest:
            params = model.from_weights(checkpoint.weights)
            opt_state = load_adam(optimiser, params, model, checkpoint)
            return AtRest(params, opt_state, updates=checkpoint.updates)

        step.decode = decode
        step.encode = lambda rest: save_adam(rest.params, rest.opt_state, model)
        return step

    return make_step


def jit_update(update: Update, *, donate: bool, structure: Any = None) -> Any:
    """Return `jax.jit` of an update.

    With the structure of its state, it takes the state's arrays alone, and puts them together while
    tracing.
    """

    def flat_update(arrays: list[Array], hidden: Hidden, chunk: Chunk) -> Any:
        state, hidden, loss = update(jax.tree.unflatten(structure, arrays), hidden, chunk)
        return jax.tree.leaves(state), hidden, loss

    function: Any = update if structure is None else flat_update
    return jax.jit(function, donate_argnums=state_argnums(donate))


def plain_style(
    split: Callable[[Any], tuple[Params, Any, Any]],
    merge: Callable[[Params, Any, Any], Any],
    *,
    flat: bool,
) -> ModelStyle:
    """Return `jax.jit` over the arrays of any model of a library, which is put together inside.

    Args:
        split: The library's function that takes a model apart, as in `Library`.
        merge: Its inverse.
        flat: Whether arrays are handed over as a list, in place of the library's structures.
    """

    def plain(
        model: Any,
        loss: ModelLoss,
        optimiser: optax.GradientTransformation,
        *,
        donate: bool = False,
    ) -> FunctionalStep:
        """`jax.jit` over arrays alone, which are put together while tracing."""
        params, others, static = split(model)

        def loss_of(params: Params, others: Any, data: Any) -> Any:
            model = merge(params, others, static)
            value, hidden = loss(model, *data)
            return value, (split(model)[1], hidden)

        train = update_of(loss_of, optimiser)

        def update(state: Any, hidden: Any, chunk: Any) -> Any:
            data: Any = hidden, chunk
            pair, (others, hidden), value = train(*state, data)
            return (pair, others), hidden, value

        shapes = jax.eval_shape(lambda: ((params, optimiser.init(params)), others))
        structure = jax.tree.structure(shapes)
        jitted = jit_update(update, donate=donate, structure=structure if flat else None)

        def load(rest: AtRest) -> Any:
            state = (rest.params, rest.opt_state), rest.others
            return jax.tree.leaves(state) if flat else state

        def save(state: Any) -> AtRest:
            (params, opt_state), others = jax.tree.unflatten(structure, jax.tree.leaves(state))
            return AtRest(params, opt_state, others)

        return FunctionalStep(jitted, load, save, stages_of(jitted))

    return plain
