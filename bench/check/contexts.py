"""Whether a step does the same work, whoever calls it: the benchmark, a profiler, or a user."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from bench.check.finding import Finding
from bench.check.subject import SMALL, arrays
from bench.worker.counts import COUNTED, UNCOUNTED, UnsteadyCountsError, python_counts
from bench.worker.turns import CALLS, StepTurn
from common.equality import random_chunk, random_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.subject import Subject
    from common.contract import Checkpoint, TrainStep

    type Runner = Callable[[TrainStep], None]

PREFIXES = ("BAKEOFF", "PYTEST", "JAX_", "NPROC", "PJRT_")
"""Beginnings of environment variables by which a benchmark may be known."""


OTHERS = 2


def watched(subject: Subject) -> Iterator[Finding]:
    """Make the same updates in several surroundings, and compare where they have got to."""
    for name, (calls, run) in surroundings().items():
        step = subject.step(SMALL)
        plain(step, calls)
        expected = step.save()
        for _ in range(OTHERS):  # whatever it keeps from call to call is of another chunk now
            subject.step(SMALL)(random_hidden(SMALL), random_chunk(SMALL, 2))
        step = subject.step(SMALL)
        run(step)
        if seen := differs(expected, step.save()):
            yield Finding(
                f"{calls} calls make the same {calls} updates {name}",
                f"{seen}: it does something else there",
                subject.style_at,
            )


def surroundings() -> dict[str, tuple[int, Runner]]:
    """Return by name how a step may be called, and how many calls that makes."""
    return {
        "when the benchmark times them": (CALLS + 1, timed),
        "when Python's work is counted": (UNCOUNTED + COUNTED, counted),
        "without the benchmark's environment variables": (CALLS, unset),
    }


def plain(step: TrainStep, calls: int) -> None:
    """Call a step in a loop."""
    hidden, chunk = random_hidden(SMALL), random_chunk(SMALL, 1)
    for _ in range(calls):
        jax.block_until_ready(step(hidden, chunk))


def timed(step: TrainStep) -> None:
    """Call a step as a block of the benchmark does."""
    StepTurn(step, random_hidden(SMALL), random_chunk(SMALL, 1))()


def counted(step: TrainStep) -> None:
    """Call a step under `sys.monitoring`."""
    with suppress(UnsteadyCountsError):  # the counts are of no interest here
        python_counts(partial(step, random_hidden(SMALL), random_chunk(SMALL, 1)))


def unset(step: TrainStep) -> None:
    """Call a step as a user would, as far as the environment tells."""
    with without_variables():
        plain(step, CALLS)


@contextmanager
def without_variables() -> Iterator[None]:
    """Take away the environment variables of a benchmark, and give them back."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIXES)}
    try:
        yield
    finally:
        os.environ.update(taken)


def differs(expected: Checkpoint, found: Checkpoint) -> str:
    """Return in words how two checkpoints differ; nothing where they do not."""
    if found.updates != expected.updates:
        return f"updates made: {found.updates}, in a plain loop {expected.updates}"
    for (name, ours), (_, theirs) in zip(
        arrays(found.weights), arrays(expected.weights), strict=True
    ):
        if not np.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
            away = np.max(np.abs(ours - theirs))
            return f"{name} is off by {away:.2g} from where a plain loop gets to"
    return ""
