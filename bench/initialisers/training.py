"""Training from each initialiser: `bakeoff train`'s own loop, several seeds side by side.

All entrants compute the same function, so that only `init` differs, and plain JAX's fastest step
can train what any library's initialiser made. A seed reads the same windows of the text from every
start: starts are compared in pairs.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import jax

import impls
from bench.initialisers.losses import DIGITS, Settings
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import fresh_checkpoint
from common.steps import adamw, on_host
from common.train import DivergedError, by_scan, epochs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from jaxtyping import Int

    from common.contract import Model, Weights

STYLE = "tuned"
"""Plain JAX's fastest: it is proven equal to the others at each size."""

type Job = tuple[str, int]
"""Name of a start, and a seed."""


def model_config(settings: Settings) -> ModelConfig:
    """Return the model's sizes."""
    return ModelConfig(settings.vocab_size, settings.width, settings.layers)


def data_config(settings: Settings) -> DataConfig:
    """Return how epochs are cut."""
    return DataConfig(settings.chunk, epoch_chars=settings.epoch_chars)


def weights_of(model: Model, seed: int) -> Weights:
    """Return the weights that `bakeoff train --seed` starts from."""
    return on_host(model.to_weights(model.init(jax.random.key(seed))))


def curves(
    settings: Settings,
    tokens: Int[np.ndarray, " characters"],
    jobs: Iterable[Job],
    weights: Callable[[Job], Weights],
    workers: int,
) -> Iterator[tuple[Job, list[float]]]:
    """Train, `workers` jobs at a time; yield each job's losses by epoch when it is done.

    A curve that ends early has diverged.
    """
    model, data = model_config(settings), data_config(settings)
    optimiser = adamw(OptimiserConfig(settings.learning_rate, settings.weight_decay))
    style = impls.load(impls.BASELINE).style(STYLE)
    stopping = threading.Event()
    local = threading.local()

    def train(job: Job) -> list[float]:
        if not hasattr(local, "step"):  # compiled once for each thread
            local.step = style(model, optimiser)
            local.run = by_scan(local.step)
        local.step.load(fresh_checkpoint(weights(job)))
        losses: list[float] = []
        try:
            for epoch in epochs(
                local.run, local.step, tokens, model, data, job[1], range(settings.epochs)
            ):
                losses.append(round(epoch.loss, DIGITS))
                if stopping.is_set():
                    break
        except DivergedError:
            pass
        return losses

    done: queue.Queue[tuple[Job, list[float] | BaseException]] = queue.Queue()

    def kept(job: Job) -> None:
        try:
            done.put((job, train(job)))
        except BaseException as error:
            done.put((job, error))

    pool = ThreadPoolExecutor(workers)
    try:
        for _ in [pool.submit(kept, job) for job in jobs]:
            job, found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield job, found
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)
