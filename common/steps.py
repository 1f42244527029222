"""What drives a training step that a library's file writes as its users do.

A style is a function of a model, a loss and an optimiser. It returns a step, and the state that the
step is first called with: `return train_step, (params, opt_state)`. Two adaptors make a `TrainStep`
of both.

* Threaded: `*state, hidden, loss = train_step(*state, hidden, chunk)`.
* In place: `hidden, loss = train_step(*state, hidden, chunk)` changes the objects of its state.

A run with `pytest bench --donate` donates the state of all styles that can, and others none. Hidden
state and chunk are never donated, so they can be used again. Both are checked in compiled programs.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import optax

from common.compatibility import tree_get, tree_set
from common.contract import Checkpoint, map_arrays
from common.library import PLAIN, AtRest, has_stages, outline
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
    from common.library import Library

    type Loss = Float[Array, ""]


# optimiser


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


# adaptors


class Adaptor:
    """A training step around a style's; `use_for_rnn` has it loaded and saved as a checkpoint."""

    decode: Callable[[Any], AtRest] = staticmethod(lambda rest: rest)
    """Turns what is loaded into the library's structures."""
    encode: Callable[[AtRest], Any] = staticmethod(lambda rest: rest)
    """The inverse."""

    def use_for_rnn(self, model: Model, optimiser: optax.GradientTransformation) -> TrainStep:
        """Return this step, loaded from checkpoints of the RNN, and saved as them."""

        def decode(checkpoint: Checkpoint) -> AtRest:
            params = model.from_weights(checkpoint.weights)
            return AtRest(params, load_adam(optimiser, params, model, checkpoint))

        self.decode = decode
        self.encode = lambda rest: save_adam(rest.params, rest.opt_state, model)
        return self  # type: ignore[return-value]


class Threaded(Adaptor):
    """A training step whose state is handed over in each call, and comes back."""

    def __init__(
        self,
        step: Callable[..., Any],
        library: Library = PLAIN,
        outlines: tuple[Any, ...] = (None, None),
        static: Any = None,
    ) -> None:
        """Keep a step; see `Library.put` for the other arguments."""
        self.step, self.library, self.outlines, self.static = step, library, outlines, static
        self.jitted = step
        """Function whose program is the step's."""
        self.state: Any = None

    @classmethod
    def of_style(
        cls,
        library: Library,
        style: ModelStyle,
        make_model: Callable[[], Any],
        loss_fn: ModelLoss,
        optimiser: optax.GradientTransformation,
        *,
        donate: bool = False,
    ) -> Threaded:
        """Return the step that a style makes for a model, whose numbers are not used."""
        if donate:
            style = library.donate(style)
        made = None if library.makes_while_tracing else make_model()

        def begin() -> tuple[Any, ...]:
            model = make_model() if made is None else made
            return *style(*library.bind(model, loss_fn), optimiser), library.split(model)[2]

        step, outlines, static = outline(begin)
        return cls(step, library, outlines, static)

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.state = self.library.put(self.outlines, self.decode(checkpoint), self.static)

    def save(self) -> Checkpoint:  # noqa: D102
        return self.encode(self.library.take(self.state))

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Loss]:  # noqa: D102
        results = self.step(*self.state, hidden, chunk)
        self.state = results[:-2]  # quicker than to unpack it
        return results[-2:]

    def program(self, hidden: Hidden, chunk: Chunk) -> Program:  # noqa: D102
        return self.library.find_program(self.jitted, *self.state, hidden, chunk)


class Flat(Threaded):
    """A threaded step over the arrays of its state alone, as a list: the least that a call takes.

    They are put together while tracing.
    """

    @classmethod
    def of_style(cls, *given: Any, donate: bool = False) -> Flat:  # noqa: D102
        step = super().of_style(*given)
        jitted: Any = step.step
        function = flatten(jitted.__wrapped__, jax.tree.structure(step.outlines))
        jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
        return cls(jitted, step.library, step.outlines, step.static)

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102
        super().load(checkpoint)
        self.state = (jax.tree.leaves(self.state),)

    def save(self) -> Checkpoint:  # noqa: D102
        state = jax.tree.unflatten(jax.tree.structure(self.outlines), self.state[0])
        return self.encode(self.library.take(state))


def flatten(train_step: Callable[..., Any], structure: Any) -> Callable[..., Any]:
    """Return a threaded step over a list of arrays, from one over a state with this structure."""

    def flat_step(arrays: list[Array], hidden: Hidden, chunk: Chunk) -> Any:
        state = jax.tree.unflatten(structure, arrays)
        *state, hidden, loss = train_step(*state, hidden, chunk)
        return jax.tree.leaves(state), hidden, loss

    return flat_step


class InPlace(Adaptor):
    """A training step around objects whose arrays each call replaces."""

    def __init__(
        self, step: Callable[..., Any], library: Library, state: tuple[Any, ...], *, bound: bool
    ) -> None:
        """Keep a step and the objects of its state; `bound` says that the step has them already."""
        self.step, self.library, self.state = step, library, state
        self.arguments = () if bound else state
        self.call = partial(step, *self.arguments)

    @classmethod
    def of_style(
        cls,
        library: Library,
        style: ModelStyle,
        make_model: Callable[[], Any],
        loss_fn: ModelLoss,
        optimiser: optax.GradientTransformation,
        *,
        bound: bool = False,
        donate: bool = False,
    ) -> InPlace:
        """Return the step that a style makes for a model, whose arrays are replaced when loaded."""
        if donate:
            style = library.donate(style)
        step, state = style(make_model(), loss_fn, optimiser)
        return cls(step, library, state, bound=bound)

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.library.fill(self.state, self.decode(checkpoint))

    def save(self) -> Checkpoint:  # noqa: D102
        return self.encode(self.library.take(self.state))

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Loss]:  # noqa: D102
        return self.call(hidden, chunk)

    def program(self, hidden: Hidden, chunk: Chunk) -> Program:  # noqa: D102
        if self.arguments or has_stages(self.step):
            return self.library.find_program(self.step, *self.arguments, hidden, chunk)
        return self.library.find_bound_program(self.step, self.state, hidden, chunk)


class Rnn(NamedTuple):
    """The character RNN of a library, and how its styles train it."""

    build: Callable[[ModelConfig], Model]
    """The entrant's; its model converts weights."""
    make_model: Callable[[ModelConfig], Any]
    """Returns the library's own RNN; its numbers are not used."""
    loss_fn: ModelLoss
    library: Library = PLAIN
    serves_others: bool = True
    """Whether the styles can train other models of the library."""

    def threaded(self, style: ModelStyle, *, can_donate: bool = True) -> Use:
        """Return the RNN's use of a style whose state is threaded."""
        return Use(self, style, Threaded.of_style, can_donate=can_donate)

    def flat(self, style: ModelStyle) -> Use:
        """Return the RNN's use of a threaded style over the arrays of its state alone."""
        return Use(self, style, Flat.of_style)

    def in_place(self, style: ModelStyle, *, bound: bool = False, can_donate: bool = True) -> Use:
        """Return the RNN's use of a style that changes its state in place.

        `bound` says that the step that it makes has its state already.
        """
        adaptor = partial(InPlace.of_style, bound=bound)
        return Use(self, style, adaptor, can_donate=can_donate)


class Use:
    """A style of an entrant: called with sizes and an optimiser, it makes the RNN's step."""

    def __init__(
        self,
        rnn: Rnn,
        style: ModelStyle,
        adaptor: Callable[..., Adaptor],
        *,
        can_donate: bool = True,
    ) -> None:
        self.rnn, self.style, self.can_donate = rnn, style, can_donate
        self.adapt = partial(adaptor, rnn.library, style)
        """Makes a step for any model: of what makes it, a loss and an optimiser."""
        self.__doc__ = Flat.__doc__ if adaptor == Flat.of_style else style.__doc__

    def __call__(
        self, config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
    ) -> TrainStep:
        """Return the RNN's training step; with `donate`, it donates its state."""
        make_model = partial(self.rnn.make_model, config)
        step = self.adapt(make_model, self.rnn.loss_fn, optimiser, donate=donate)
        return step.use_for_rnn(self.rnn.build(config), optimiser)


# entrants whose file has no step of its own


def functional(
    train_step: Callable[..., Any],
    model: Model,
    optimiser: optax.GradientTransformation,
    jitted: Any = None,
) -> TrainStep:
    """Return the RNN's training step from a threaded one over `params, opt_state`.

    `jitted` is the function whose program the step runs, if it is another one.
    """
    step = Threaded(train_step)
    step.jitted = jitted or train_step
    return step.use_for_rnn(model, optimiser)


def pure_step(model: Model, optimiser: optax.GradientTransformation) -> Callable[..., Any]:
    """Return the step over `params, opt_state` that `pure_style` jits."""

    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def loss_fn(params: Params) -> tuple[Loss, Hidden]:
            return scan_loss(partial(model.step, params), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step


def pure_style(build: Callable[[ModelConfig], Model]) -> Style:
    """Return the style that each entrant has: one `jax.jit` over pure parameters."""

    def pure(
        config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
    ) -> TrainStep:
        model = build(config)
        train_step = jax.jit(pure_step(model, optimiser), donate_argnums=(0, 1) if donate else ())
        return functional(train_step, model, optimiser)

    return pure
