"""The contract between an entrant and everything that trains, checks or times it.

A module of `impls/` offers `build(config) -> Model`, `STYLES`, a mapping from a style's name to a
`Style`, and the constants that `common.declaration` reads. Weights are library-neutral, so that a
model trained in one library is sampled, or trained further, in another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import jax
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig

    type AnyArray = Array | np.ndarray
    type State = tuple[Float[Array, " width"], ...]
    type Hidden = tuple[Float[Array, "batch width"], ...]

type Params = Any
"""Parameters in a library's own structure: a pytree."""


class Dense(NamedTuple):
    """One affine map, `x @ kernel + bias`."""

    kernel: Float[AnyArray, "in out"]
    bias: Float[AnyArray, " out"]


class Weights(NamedTuple):
    """Library-neutral: the cells, over `concatenate([hidden, x])`, bottom up, and the readout."""

    cells: tuple[Dense, ...]
    readout: Dense


class Checkpoint(NamedTuple):
    """A training run at rest: weights and Adam's moments, which have the shape of weights."""

    weights: Weights
    mu: Weights
    """First moments."""
    nu: Weights
    """Second moments."""
    updates: int
    """Updates made so far."""


class Chunk(NamedTuple):
    """One training step's characters, time first so that `lax.scan` reads them as they lie."""

    inputs: Int[Any, "time batch"]
    targets: Int[Any, "time batch"]
    mask: Float[Any, "time batch"]
    """1 where the target counts, 0 where the chunk is padded."""


class Model(NamedTuple):
    """An entrant as pure functions."""

    init: Callable[[PRNGKeyArray], Params]
    """Parameters from the library's own default initialisers."""
    step: Callable[[Params, State, Int[Array, ""]], tuple[State, Float[Array, " vocab"]]]
    """One character: the new state of each layer, bottom up, and the logits of the next."""
    to_weights: Callable[[Params], Weights]
    from_weights: Callable[[Weights], Params]


class Program(NamedTuple):
    """Stages of a style's program, as in `jax.stages`; each is made when called."""

    lower: Callable[[], jax.stages.Lowered]
    trace: Callable[[], jax.stages.Traced] | None
    """Function that traces; None where a jit can only lower: JAX's events time tracing then."""
    whole: bool = True
    """False where a call runs more compiled programs than this one."""

    @classmethod
    def from_trace(cls, trace: Callable[[], jax.stages.Traced], *, whole: bool = True) -> Program:
        """Return the stages of a function that can be traced, as `jax.jit`'s can."""
        return cls(lambda: trace().lower(), trace, whole)


class TrainStep(Protocol):
    """A stateful training step, which holds parameters and optimiser state its library's way.

    It may have `settings`, a mapping of those that it makes for its process; results repeat them.
    """

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in fresh buffers and without compiling again."""

    def save(self) -> Checkpoint:
        """Return where training stands; arrays are NumPy's, on the host."""

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Float[Array, ""]]:
        """Make one update; return the hidden state after `chunk` and the mean loss before it."""

    def program(self, hidden: Hidden, chunk: Chunk) -> Program | None:
        """Return the stages of the program that a call with these arguments runs.

        None where that is not JAX's: then there is nothing to trace, lower or look into.
        """


type Style = Callable[[ModelConfig, optax.GradientTransformation], TrainStep]
"""A way of writing the training step with a library; what it returns has to be loaded first."""


type ModelLoss = Callable[[Any, Any, Any], tuple[Any, Any]]
"""Function of a model, values carried from step to step, and data: returns the mean loss, and the
values to carry on. For the RNN, these are the hidden state and a chunk; for a user's model, state
and key by name, as far as its loss takes them, and a batch."""
type StepAndState = tuple[Callable[..., Any], tuple[Any, ...]]
"""A training step, and the state that it is first called with; `common.steps` says how."""
type Optimiser = optax.GradientTransformation
type ModelStyle = Callable[[Any, ModelLoss, Optimiser], StepAndState]
"""A way of writing the training step of any model of a library: a function of a model, a loss and
an optimiser."""


def zero_hidden(config: ModelConfig, batch: int = 1) -> Hidden:
    """Return the state that an epoch starts from: zeros, one row for each stream and layer."""
    return tuple(jnp.zeros((batch, config.width)) for _ in range(config.layers))


def fresh_checkpoint(weights: Weights) -> Checkpoint:
    """Return the checkpoint of a run that has made no update yet."""
    zeros = map_arrays(np.zeros_like, weights)
    return Checkpoint(weights, mu=zeros, nu=zeros, updates=0)


def flat(weights: Weights) -> tuple[Dense, ...]:
    """Return the affine maps of `weights`, bottom up, the readout last."""
    return (*weights.cells, weights.readout)


def unflat(layers: Iterable[Dense]) -> Weights:
    """Return the weights whose affine maps are `layers`; the inverse of `flat`."""
    *cells, readout = layers
    return Weights(tuple(cells), readout)


def map_arrays(function: Callable[..., np.ndarray], *trees: Weights) -> Weights:
    """Return the weights whose arrays are `function` of the arrays of `trees`."""
    layers = zip(*map(flat, trees), strict=True)
    return unflat(Dense(*map(function, *layer)) for layer in layers)
