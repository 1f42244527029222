"""The training loop: epochs of chunks."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np

from common.chunker import chunks, window
from common.contract import Chunk, zero_hidden
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float, Int

    from common.config import DataConfig, ModelConfig
    from common.contract import Checkpoint, Hidden, TrainStep

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
