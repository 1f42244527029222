"""The trainer of Keras, whose optimiser keeps a count, its rate, and two moments per weight."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from common.contract import Checkpoint
from common.library import AtRest, Library, make_program
from common.steps import Threaded, move_to_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import Model, Program, TrainStep


def run_trainer(
    model: Model, learning_rate: float, jit_batch: Callable[[int], Callable[..., Any]]
) -> TrainStep:
    """Return the training step of a trainer, which `jit_batch` makes for each size of batch.

    A carried state of Keras has one size of batch, so there is a trainer for each that comes.
    """
    jit_batch = cache(jit_batch)

    class OfBatches(Library):
        def find_program(self, _: Any, *arguments: Any) -> Program:
            return make_program(jit_batch(len(arguments[-2][0])), *arguments)

    def update(params: Any, of_optimizer: Any, hidden: Any, chunk: Any) -> Any:
        return jit_batch(len(hidden[0]))(params, of_optimizer, hidden, chunk)

    def load(checkpoint: Checkpoint) -> AtRest:
        params, mu, nu = map(model.from_weights, checkpoint[:3])
        numbers = np.int32(checkpoint.updates), np.float32(learning_rate)
        moments = [moment for pair in zip(mu, nu, strict=True) for moment in pair]
        return AtRest(params, [*(jax.device_put(number) for number in numbers), *moments])

    def save(rest: AtRest) -> Checkpoint:
        updates, _, *moments = rest.opt_state
        trees = (rest.params, moments[::2], moments[1::2])
        weights, mu, nu = (move_to_host(model.to_weights(tree)) for tree in trees)
        return Checkpoint(weights, mu, nu, int(updates))

    step = Threaded(update, OfBatches())
    step.decode, step.encode = load, save
    return step
