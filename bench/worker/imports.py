"""Importing entrants, and whether an import changed what is measured for the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.worker.arms import Arm
from bench.worker.failures import guarded
from bench.worker.integrity import Surroundings
from bench.worker.program import Graph
from bench.worker.protocol import Failed
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, make, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

TINY = Case(ModelConfig(vocab_size=5, width=2), chunk=2, batch=1)
"""Sizes that the baseline's program is looked at: they are constants of it, and nothing else."""


@dataclass
class Imported:
    """What came of importing entrants."""

    failures: dict[str, str] = field(default_factory=dict)
    """By arm."""
    notes: list[str] = field(default_factory=list)


def imported(
    arms: Sequence[Arm], rng: random.Random, at: Callable[[Arm], None], *, check_programs: bool
) -> Imported:
    """Import the entrants of arms in random order; one whose import changes something fails.

    Args:
        arms: Those of this process.
        rng: Draws the order.
        at: Told whose turn it is.
        check_programs: Whether to look at the baseline's program, before and after each import.
    """
    found = Imported()
    by_entrant: dict[str, list[Arm]] = {}
    for arm in arms:
        by_entrant.setdefault(arm.code.entrant, []).append(arm)
    order = rng.sample(list(by_entrant), len(by_entrant))
    program = guarded(baseline_program) if check_programs else ""
    for entrant in order:
        ours = by_entrant[entrant]
        at(ours[0])
        before = Surroundings()
        for arm in rng.sample(ours, len(ours)):
            problem = guarded(partial(arm.load))
            if isinstance(problem, Failed):
                found.failures[str(arm)] = problem.failure
        if changes := before.changes():
            found.failures |= {str(arm): f"importing it {changes}" for arm in ours}
        if check_programs and (now := guarded(baseline_program)) != program:
            program = now
            why = f"importing it changed the program of {Arm(*BASELINE)}"
            found.failures |= {str(arm): f"{why}; {changes}" if changes else why for arm in ours}
            found.notes.append(
                f"this process measures another program of {Arm(*BASELINE)} than it should, since "
                f"{entrant} was imported: leave that out"
            )
    return found


def baseline_program() -> str:
    """Return the fingerprint of the baseline's program at a tiny size, traced and lowered anew."""
    step = make(Arm(*BASELINE).load(), TINY)
    step.load(fresh_checkpoint(random_weights(TINY.model)))
    program = step.program(random_hidden(TINY), random_chunk(TINY, 1))
    assert program is not None, "the baseline is JAX's"
    return Graph.of(program.lower()).fingerprint()
