"""Turns that trace, lower and compile a step that is made anew, in workers that do nothing else.

A process takes twice as long for what it traces first. So a turn begins as a process does: with
JAX's caches cleared, and with the library's own initialiser, which traces some parts of a step.
Ratios of trace and compile are then those of a fresh process within 6 %
(results/selftest/stages.md); for Linen's trace, they were 21 % off with JAX's caches kept, and 40 %
without the initialiser.
"""

from __future__ import annotations

import gc
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jax
from jax.experimental.compilation_cache import compilation_cache

from bench.cells import BASELINE, REFERENCE
from bench.metrics import STAGES
from bench.worker.block import CLOCK, CPU_CLOCK, Call, TimedBlock, Turn
from bench.worker.cold import cache_hits, lower, require_compiled, time_stage
from bench.worker.protocol import KINDS
from bench.worker.settings import has_one_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.cells import Arm
    from bench.worker.arms import Arms
    from bench.worker.block import Calls
    from common.contract import Chunk


@contextmanager
def disable_cache() -> Iterator[None]:
    """Turn JAX's compilation cache off inside; making the step has used it."""

    def use(cache: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", cache)
        compilation_cache.reset_cache()  # JAX decides once whether there is one

    before = jax.config.jax_enable_compilation_cache
    use(False)
    try:
        yield
    finally:
        use(before)


class StagesTurn(Turn):
    """Stages of an arm's step; each turn makes a new step, and drops it."""

    def __init__(self, arms: Arms, arm: Arm, program: str, compiled: dict[str, float]) -> None:
        """Prepare an arm's turns, which count in `compiled` how often each program was compiled."""
        self.arms, self.arm, self.fingerprint, self.compiled = arms, arm, program, compiled
        self.turns = 0

    def __call__(self) -> Calls:
        """Take one turn."""
        arms, case = self.arms, self.arms.case
        gc.collect()  # JAX 0.4.28 and 0.7.0 crash where clearing frees a step
        jax.clear_caches()
        step = arms.make(self.arm)
        arms.load(step, 1.0)
        program = step.program(*jax.block_until_ready((case.zero(), case.data())))
        assert program is not None, "of others, no stages are asked for"
        arms.initialise(self.arm)
        # On one core a process runs or waits, and it waits for others alone: XLA may for a GPU's
        clock = CPU_CLOCK if has_one_core() and arms.backend == "cpu" else CLOCK
        seconds: dict[str, float] = {}
        cache_hits().clear()
        self.turns += 1
        with disable_cache():
            lowered = lower(program, seconds, clock)
            if self.arm in REFERENCE or self.compiled[self.fingerprint] < self.turns:
                with time_stage(seconds, "compile", clock):
                    lowered.compile()
                self.compiled[self.fingerprint] += 1
        require_compiled()
        return {name: [Call(seconds[name], 0.0)] for name in KINDS[STAGES] if name in seconds}


class StagesBlock(TimedBlock):
    """Block of turns over the stages of some arms; no step is run.

    Of arms with the same program, the first one of a round compiles it for all; both copies of the
    baseline do, since all others are compared with them.
    """

    def make_turns(self, _chunk: Chunk, _scale: float) -> dict[Arm, Turn]:
        """Return a turn of each arm."""
        gc.collect()
        gc.freeze()  # what is imported by now is not looked through by each later collection
        programs = {arm: self.command.programs.get(str(arm)) or str(arm) for arm in self.members}
        compiled = dict.fromkeys(programs.values(), 0.0)
        compiled[programs.get(BASELINE, "")] = math.inf  # both copies compile it in each turn
        return {arm: StagesTurn(self.arms, arm, programs[arm], compiled) for arm in self.members}

    def compare(self, turns: Mapping[Arm, Turn]) -> None:
        """Compare nothing: no step was run."""
