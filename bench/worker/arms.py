"""The arms of one workload on one backend: what they are timed on, and the steps that are made."""

from __future__ import annotations

import sys
import traceback
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from bench.cells import BASELINE, Arm
from bench.worker.program import ProgramFacts, facts
from bench.worker.protocol import Failed
from bench.worker.turns import stream
from common.contract import Checkpoint, Dense, Weights, flat, fresh_checkpoint, unflat
from common.equality import make, random_chunk, random_hidden, random_weights, trajectory
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.workloads import LoadedWorkload
    from common.contract import Program, TrainStep
    from common.equality import Case

CHUNKS = 8
"""Chunks of the text that blocks are timed on, one after the other."""
STARTED = 1000
"""Updates that the training which is timed seems to have made before."""
SECOND_MOMENT = 1.0
"""Adam's, that it starts with."""
TRACEBACK_LINES = 12
"""Lines of a failure's traceback that are kept."""


def guarded[Found](action: Callable[[], Found]) -> Found | Failed:
    """Return what an arm's `action` returns, or why it failed: the worker lives on."""
    try:
        return action()
    except BakeoffError as error:
        return Failed(str(error))
    except Exception:
        tail = "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
        return Failed(f"raised {last_line()}", tail)


def last_line() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())


class Reference(NamedTuple):
    """What is known of the baseline, by a step that is forgotten."""

    losses: np.ndarray
    """Losses of ten training steps."""
    program: ProgramFacts


class Arms:
    """One workload on one backend."""

    def __init__(self, workload: LoadedWorkload, *, donate: bool = False) -> None:
        self.donate = donate
        """Whether steps donate their state."""
        self.case, self.corpus, self.tokens = workload
        self.weights = random_weights(self.case.model)
        self.start = gentle(self.weights)
        self.chunks = list(islice(stream(self.case, self.tokens), CHUNKS))
        self.steps: dict[Arm, TrainStep] = {}

    @cached_property
    def reference(self) -> Reference:
        """What is known of the baseline; a step is made for it when first asked for.

        That step is not the one that is timed: which arm a process makes first shows in its times,
        so the timed one is made like all others, in whatever order they come.
        """
        step = self.make(BASELINE)
        program = program_of(step, self.case)
        assert program is not None, "the baseline is JAX's"
        return Reference(trajectory(step, self.case), facts(program))

    def make(self, arm: Arm) -> TrainStep:
        """Return a new step of an arm."""
        return make(arm.load(donate=self.donate), self.case)

    def load(self, step: TrainStep) -> None:
        """Give a step fresh buffers: copies, so that no two arms share one."""
        step.load(jax.tree.map(np.copy, self.start))


def program_of(step: TrainStep, case: Case) -> Program | None:
    """Return a step's program; None where that is not JAX's."""
    step.load(fresh_checkpoint(random_weights(case.model)))
    return step.program(random_hidden(case), random_chunk(case, 1))


def gentle(weights: Weights) -> Checkpoint:
    """Return where blocks start from: weights whose training is stable for thousands of calls.

    With a second moment of 1, Adam's updates are a learning rate times the gradient, so rounding
    is not blown up: after the same number of calls, arms can be compared. From a second moment of
    0, they differed by 13 % of a weight array's norm after 123 calls at `batched`.
    """
    ones = unflat(
        Dense(*(np.full_like(a, SECOND_MOMENT) for a in layer)) for layer in flat(weights)
    )
    return fresh_checkpoint(weights)._replace(nu=ones, updates=STARTED)
