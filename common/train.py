"""The training loop: epochs of chunks, chunk by chunk or as one jitted scan."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from common.chunker import chunks, window
from common.contract import Chunk, zero_hidden
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Array, Float, Int

    from common.config import DataConfig, ModelConfig
    from common.contract import Checkpoint, Hidden, TrainStep
    from common.steps import FunctionalStep

    type RunEpoch = Callable[[Hidden, Chunk], Float[np.ndarray, " chunks"]]


class DivergedError(BakeoffError):
    """The loss is no longer a number."""

    exit_status = 1


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training, when it is done."""

    number: int
    """Number of the epoch, from 0."""
    loss: float
    """Mean over the window's targets, in nats per character, each before its chunk's update."""
    seconds: float
    """Wall time, data preparation and the copy of the weights included."""
    checkpoint: Checkpoint
    """Weights and optimiser state after the epoch."""


def make_chunk_loop(step: TrainStep) -> RunEpoch:
    """Return a function of an epoch that calls `step` for each chunk, and waits at the end."""

    def run(hidden: Hidden, epoch: Chunk) -> Float[np.ndarray, " chunks"]:
        losses = []
        for chunk in [jax.device_put(Chunk(*arrays)) for arrays in zip(*epoch, strict=True)]:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        return np.asarray(jax.device_get(losses))

    return run


def make_epoch_scan(step: FunctionalStep) -> RunEpoch:
    """Return a function of an epoch that is one jitted scan over its chunks.

    Its update has to be traceable as a whole, as in the `pure` styles.
    """

    @jax.jit
    def scan(state: Any, hidden: Hidden, epoch: Chunk) -> tuple[Any, Float[Array, " chunks"]]:
        def body(carry: tuple[Any, Hidden], chunk: Chunk) -> tuple[tuple[Any, Hidden], Array]:
            state, hidden, loss = step.update(*carry, chunk)
            return (state, hidden), loss

        (state, _), losses = jax.lax.scan(body, (state, hidden), epoch)
        return state, losses

    def run(hidden: Hidden, epoch: Chunk) -> Float[np.ndarray, " chunks"]:
        step.state, losses = scan(step.state, hidden, jax.device_put(epoch))
        return np.asarray(losses)

    return run


def epochs(
    run: RunEpoch,
    step: TrainStep,
    tokens: Int[np.ndarray, " characters"],
    model: ModelConfig,
    data: DataConfig,
    seed: int,
    numbers: range,
) -> Iterator[Epoch]:
    """Train a loaded `step` for the epochs `numbers`; yield each when it is done.

    The hidden state is carried across the chunks of an epoch, and is zero at its start. An epoch's
    loss weighs chunks by the targets that count in them.

    Raises:
        DivergedError: an epoch's loss, or a weight or a moment after it, is NaN or infinite; what
            was yielded before is still good.
    """
    for number in numbers:
        start = time.perf_counter()
        epoch = chunks(window(tokens, data, seed, number), data.chunk, data.batch)
        losses = run(zero_hidden(model, data.batch), epoch)
        loss = float(np.average(losses, weights=epoch.mask.sum(axis=(1, 2))))
        checkpoint = step.save()
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpoint))
        if not math.isfinite(loss) or not finite:
            problem = f"the loss became {loss}"
            if math.isfinite(loss):
                problem = "a weight, or a moment of Adam, became NaN or infinite"
            raise DivergedError(
                f"{problem} in epoch {number}; training stopped there. "
                "A smaller learning rate may help"
            )
        yield Epoch(number, loss, time.perf_counter() - start, checkpoint)
