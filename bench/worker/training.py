"""Training runs of an arm, whose final losses are a result."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import jax

import impls
from bench.cells import BASELINE
from bench.worker.turns import CLOCK, stream
from common.contract import fresh_checkpoint, zero_hidden
from common.errors import BakeoffError
from common.steps import on_host

if TYPE_CHECKING:
    from bench.worker.arms import Arms
    from common.contract import TrainStep

FINAL_STEPS = 200
FINAL_MEAN = 20
"""Steps whose mean is a point of a curve, the last of them the final loss: one chunk's loss depends
on its text."""
OWN_SEEDS = 3


def final_loss(entrant: str, style: str, step: TrainStep, arms: Arms) -> dict[str, Any]:
    """Return the seconds and the final losses of training runs of `FINAL_STEPS` steps.

    The first run starts from weights that are the same for all; the others, in the `pure` styles,
    from the library's own initialisers.

    Raises:
        BakeoffError: a final loss is not a number.
    """
    case = arms.case
    chunks_ready = list(islice(stream(case, arms.tokens), FINAL_STEPS))

    def run(initialised_by: str, seed: int) -> tuple[float, list[float]]:
        model = impls.load(initialised_by).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        start = CLOCK()
        for chunk in chunks_ready:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        values = [float(loss) for loss in jax.device_get(losses)]
        seconds = CLOCK() - start
        means = [
            sum(part) / FINAL_MEAN
            for part in (values[i : i + FINAL_MEAN] for i in range(0, FINAL_STEPS, FINAL_MEAN))
        ]
        if not math.isfinite(means[-1]):
            raise BakeoffError(f"the loss became {means[-1]} in {FINAL_STEPS} training steps")
        return seconds, means

    runs = [run(BASELINE[0], 0)]
    if style == "pure":
        runs += [run(entrant, seed) for seed in range(OWN_SEEDS)]
    return {
        "seconds": [seconds for seconds, _ in runs],
        "steps": FINAL_STEPS,
        "mean_of_steps": FINAL_MEAN,
        "same_weights": runs[0][1][-1],
        "own_initialiser": [losses[-1] for _, losses in runs[1:]],
        "curve_same_weights": runs[0][1],
        "curves_own_initialiser": [losses for _, losses in runs[1:]],
    }
