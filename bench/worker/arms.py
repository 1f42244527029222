"""The arms of one workload on one backend: what they are timed on, and the steps that are made."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from bench.cells import BASELINE, CONTROL
from bench.worker import turns
from bench.worker.program import ProgramFacts, difference, facts
from common.contract import Checkpoint, Dense, Weights, flat, fresh_checkpoint, unflat
from common.equality import make, random_chunk, random_hidden, random_weights, trajectory

if TYPE_CHECKING:
    from bench.worker.setting import Setting
    from common.contract import Style, TrainStep

CHUNKS = 8
"""Chunks of the text that blocks are timed on, one after the other."""
STARTED = 1000
"""Updates that the training which is timed seems to have made before."""
SECOND_MOMENT = 1.0
"""Adam's, that it starts with."""


class Arm(NamedTuple):
    """An entrant's style; the control is one."""

    entrant: str
    style: str

    @classmethod
    def of(cls, name: str) -> Arm:
        """Return the arm of this name."""
        entrant, _, style = name.partition("/")
        return cls(entrant, style)

    def __str__(self) -> str:
        return f"{self.entrant}/{self.style}"

    @property
    def code(self) -> Arm:
        """Whose code it runs: the control runs the baseline's."""
        return Arm(*BASELINE) if self == CONTROL else self

    def load(self) -> Style:
        """Return its style, imported if it was not."""
        return impls.load(self.code.entrant).style(self.code.style)


class Reference(NamedTuple):
    """What is known of the baseline, by a step that is forgotten."""

    losses: np.ndarray
    """Of ten training steps."""
    program: ProgramFacts


class Arms:
    """One workload on one backend."""

    def __init__(self, found: Setting) -> None:
        self.case, self.corpus, self.tokens = found
        self.weights = random_weights(self.case.model)
        self.start = gentle(self.weights)
        self.chunks = list(islice(turns.stream(self.case, self.tokens), CHUNKS))
        self.steps: dict[Arm, TrainStep] = {}
        self.calls: dict[str, dict[Arm, turns.Fresh]] = {}
        """What gives other turns than a step's, by kind: made once, since they compile."""
        self._reference: Reference | None = None

    def reference(self) -> Reference:
        """Return what is known of the baseline; a step is made for it when first asked for.

        That step is not the one that is timed: which arm a process makes first shows in its times,
        so the timed one is made like all others, in whatever order they come.
        """
        if self._reference is None:
            step = self.make(Arm(*BASELINE))
            program = self.program(step)
            assert program is not None, "the baseline is JAX's"
            self._reference = Reference(trajectory(step, self.case), program)
        return self._reference

    def make(self, arm: Arm) -> TrainStep:
        """Return a new training step of an arm."""
        return make(arm.load(), self.case)

    def program(self, step: TrainStep) -> ProgramFacts | None:
        """Return what is known of a step's program; None where that is not JAX's."""
        step.load(fresh_checkpoint(self.weights))
        program = step.program(random_hidden(self.case), random_chunk(self.case, 1))
        return None if program is None else facts(program)

    def load(self, step: TrainStep) -> None:
        """Give a step fresh buffers: copies, so that no two arms share one."""
        step.load(jax.tree.map(np.copy, self.start))


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


def beside(ours: ProgramFacts | None, baseline: ProgramFacts) -> dict[str, Any]:
    """Return what a proof says of an arm's program; None stands for one that is not JAX's."""
    if ours is None:
        return {
            "whole_step": True,
            "same_program_as_baseline": False,
            "operations_beside_baseline": {},
            "donates": None,
            "jax": False,
            "program": None,
        }
    return {
        "whole_step": ours.whole,
        "same_program_as_baseline": ours.fingerprint == baseline.fingerprint,
        "operations_beside_baseline": difference(ours.operations, baseline.operations),
        "donates": ours.alias_bytes > 0,
        "program": asdict(ours),
    }


def numbers(ours: ProgramFacts | None) -> dict[str, float | None]:
    """Return the exact metrics of a program; none of one that is not JAX's."""
    if ours is None:
        return {}
    return {
        "jaxpr_equations": ours.jaxpr_equations,
        "hlo_instructions": sum(ours.hlo_instructions.values()),
        "flops": ours.flops,
        "bytes_accessed": ours.bytes_accessed,
        "temp_bytes": ours.temp_bytes,
        "argument_bytes": ours.argument_bytes,
        "alias_bytes": ours.alias_bytes,
    }
