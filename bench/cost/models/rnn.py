"""The character RNN beside the other models: the steps that its entrants are timed by."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE, Arm
from bench.cost.models import PLAIN, ModelSteps
from common.config import WORKLOADS
from common.equality import Case, make, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array

    from bench.cost.models import Step

CHARACTERS = 64


def whole(library: str, layers: int) -> ModelSteps:
    """Return the RNN with so many layers, in the styles in which there are other models."""
    case = Case.of(WORKLOADS[f"depth{layers}"], CHARACTERS)
    module = importlib.import_module(f"bench.cost.models.{library}")
    styles = module.like(module.model("mlp", 1)).steps
    arms = {style: Arm(library, style) for style in styles} | {PLAIN: Arm(*BASELINE)}
    steps: dict[str, Callable[[], Step]] = {n: partial(step_of, a, case) for n, a in arms.items()}
    return ModelSteps(2 * (layers + 1), steps)


def step_of(arm: Arm, case: Case) -> Step:
    """Return an arm's step, whose data are its own."""
    from bench.worker.arms import gentle

    own = make(arm.load(), case)
    own.load(gentle(random_weights(case.model)))
    hidden, chunk = random_hidden(case), random_chunk(case, 0)

    def step(inputs: Array, targets: Array) -> Array:
        del inputs, targets
        return own(hidden, chunk)[1]

    return step
