"""Equal before fast: deviations of a style from the reference, and their limits.

The style itself is judged, through the calls by which it will be timed. Its gradient is read off
Adam's first moment, which after one update from zero moments is `(1 - b1) * gradient`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from common import reference
from common.config import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    TRAJECTORY_TOLERANCE,
    ModelConfig,
    OptimiserConfig,
)
from common.contract import Chunk, Dense, flat, fresh_checkpoint, map_arrays, unflat, zero_hidden
from common.errors import BakeoffError
from common.steps import adamw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Array, Float

    from common.config import Workload
    from common.contract import Checkpoint, Hidden, Style, TrainStep, Weights

TRAJECTORY_STEPS = 10

DECAY_PER_UPDATE = 2.0**-15
"""Part of a weight that the decay of an update takes off, in the proof and in timed steps.

It shows in ten steps; the tutorial's, 2e-10, would not. PyTorch multiplies weights by one minus it
in float32, which is exact with a power of two. With 2e-5 the factor was 2.7e-8 too small, in every
update alike: after 1263 of them weights were 3.6e-5 of their norm from the baseline's.
"""


def make_optimiser(learning_rate: float) -> OptimiserConfig:
    """Return the optimiser of the proof and of timed steps."""
    return OptimiserConfig(learning_rate, weight_decay=DECAY_PER_UPDATE / learning_rate)


OPTIMISER = make_optimiser(OptimiserConfig.learning_rate)


class NotEqualError(BakeoffError):
    """A style computes something else than the reference."""


@dataclass(frozen=True)
class Case:
    """The sizes at which equality is judged."""

    model: ModelConfig
    chunk: int
    batch: int
    optimiser: OptimiserConfig = OPTIMISER

    @classmethod
    def from_workload(cls, workload: Workload, vocab_size: int) -> Case:
        """Return the sizes of `workload` over a vocabulary of `vocab_size`."""
        model = ModelConfig(vocab_size, workload.width, workload.layers)
        optimiser = make_optimiser(workload.learning_rate)
        return cls(model, workload.chunk, workload.batch, optimiser)

    def fresh(self) -> Checkpoint:
        """Return random weights that have seen no update yet."""
        return fresh_checkpoint(random_weights(self.model))

    def hidden(self) -> Hidden:
        """Return a state that is not zero."""
        return random_hidden(self)

    def zero(self) -> Hidden:
        """Return the state that an epoch starts from."""
        return zero_hidden(self.model, self.batch)

    def data(self, seed: int = 1) -> Chunk:
        """Return a chunk of random characters."""
        return random_chunk(self, seed)


LEAST_NORM = 100 * float(np.finfo(np.float32).tiny) / GRADIENT_TOLERANCE
"""Norm below which float32 cannot hold an array to the tolerance: at `depth154`, the gradient of
the first layers is less than its smallest number."""


@dataclass(frozen=True)
class Deviation:
    """Deviations of a style from the reference, and from the baseline."""

    loss: float
    """Largest relative difference of a loss."""
    gradient: float
    """Largest relative norm of a difference of gradients."""
    trajectory: float
    """Largest difference of a loss in ten steps, in nats per character."""

    def require(self) -> None:
        """Raise NotEqualError, saying what differs and by how much, unless all is near enough."""
        limits = {
            "loss": (self.loss, LOSS_TOLERANCE, "relative to the float64 reference"),
            "gradient": (self.gradient, GRADIENT_TOLERANCE, "in norm, relative to the reference"),
            "ten steps' losses": (self.trajectory, TRAJECTORY_TOLERANCE, "nats from the baseline"),
        }
        wrong = [
            f"{name} off by {value:.2g} {kind} (allowed: {allowed:g})"
            for name, (value, allowed, kind) in limits.items()
            if not value <= allowed
        ]
        if wrong:
            raise NotEqualError(f"not equal: {'; '.join(wrong)}")


def random_weights(config: ModelConfig, seed: int = 0) -> Weights:
    """Return float32 weights that no library's initialiser gives; biases are not zero."""
    rng = np.random.default_rng(seed)

    def dense(rows: int, columns: int) -> Dense:
        kernel = rng.normal(size=(rows, columns)) / np.sqrt(rows)
        return Dense(kernel.astype(np.float32), rng.normal(0, 0.2, columns).astype(np.float32))

    return unflat(dense(*shape) for shape in config.kernels)


def random_chunk(case: Case, seed: int, masked: int = 0) -> Chunk:
    """Return a chunk of random characters whose last `masked` times do not count."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(case.model.vocab_size, size=(case.chunk + 1, case.batch), dtype=np.int32)
    mask = np.ones((case.chunk, case.batch), np.float32)
    mask[case.chunk - masked :] = 0
    return jax.device_put(Chunk(tokens[:-1], tokens[1:], mask))


def random_hidden(case: Case, seed: int = 3) -> Hidden:
    """Return a state that is not zero."""
    shape = (case.batch, case.model.width)
    rng = np.random.default_rng(seed)
    rows = [rng.uniform(-0.9, 0.9, shape).astype(np.float32) for _ in range(case.model.layers)]
    return tuple(jax.device_put(rows))


def pair(case: Case) -> tuple[Chunk, Chunk]:
    """Return the two chunks that losses and gradients are judged on; the second is padded."""
    return random_chunk(case, 1), random_chunk(case, 2, masked=case.chunk // 4)


@cache
def answers(case: Case) -> tuple[reference.Gradient, reference.Gradient]:
    """Return the reference's answers for two chunks in a row, the state carried over."""
    weights, (first, second) = reference.double(random_weights(case.model)), pair(case)
    one = reference.loss_and_grads(weights, random_hidden(case), first)
    return one, reference.loss_and_grads(weights, one.hidden, second)


def read_gradient(step: TrainStep) -> Weights:
    """Return the gradient of a step that has made one update from zero moments."""
    return map_arrays(lambda moment: moment / (1 - reference.BETA1), step.save().mu)


def relative_norm(given: Weights, expected: Weights) -> float:
    """Return the largest norm of two arrays' difference, relative to the expected one's norm.

    An expected norm below `LEAST_NORM` counts as that.
    """
    norms = [
        np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), LEAST_NORM)
        for ours, theirs in zip(flat(given), flat(expected), strict=True)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return float(np.max(norms))  # Python's max would pass over NaN


class FirstCall(NamedTuple):
    """A call of a step that has just loaded the usual weights, and what is expected of it."""

    hidden: Hidden
    chunk: Chunk
    after: Hidden
    loss: Float[Array, ""]
    gradient: Weights
    expected: reference.Gradient

    @property
    def loss_deviation(self) -> float:
        """Relative difference of the loss to the reference's."""
        return abs(float(self.loss) / self.expected.loss - 1)

    @property
    def gradient_deviation(self) -> float:
        """Largest norm of an array's difference to the reference's, relative to its norm."""
        return relative_norm(self.gradient, self.expected.grads)


def first_calls(step: TrainStep, case: Case) -> Iterator[FirstCall]:
    """Call a step with two chunks, the state carried over, each time from the usual weights."""
    hidden = random_hidden(case)
    for chunk, answer in zip(pair(case), answers(case), strict=True):
        step.load(case.fresh())
        after, loss = step(hidden, chunk)
        yield FirstCall(hidden, chunk, after, loss, read_gradient(step), answer)
        hidden = after


def trajectory(step: TrainStep, case: Case, start: Checkpoint | None = None) -> np.ndarray:
    """Return the losses of ten steps from the same weights, over alternating chunks.

    They are the usual weights, or those of a training that is under way.
    """
    step.load(start or case.fresh())
    hidden, losses, chunks = zero_hidden(case.model, case.batch), [], pair(case)
    for i in range(TRAJECTORY_STEPS):
        hidden, loss = step(hidden, chunks[i % 2])
        losses.append(float(loss))
    return np.array(losses)


def deviation(step: TrainStep, case: Case, baseline: np.ndarray) -> tuple[Deviation, np.ndarray]:
    """Return a step's deviations from the reference and the baseline, and its losses.

    Args:
        step: A step of `make`; its state is replaced.
        case: The sizes that the step was made for.
        baseline: The baseline's losses, from `trajectory`.
    """
    calls = list(first_calls(step, case))
    losses = trajectory(step, case)
    loss = float(np.max([call.loss_deviation for call in calls]))  # Python's would pass over NaN
    gradient = float(np.max([call.gradient_deviation for call in calls]))
    return Deviation(loss, gradient, float(np.max(np.abs(losses - baseline)))), losses


def make(style: Style, case: Case) -> TrainStep:
    """Return a style's training step at the sizes and with the optimiser of `case`."""
    return style(case.model, adamw(case.optimiser))
