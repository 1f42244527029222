"""Turns: the timed calls of an arm when it is its turn in a round; and short trainings.

A kind of turns is a row of `KINDS`: a class over one arm's step, which has buffers of its own in
each block.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import impls
from bench.cells import BASELINE, PURE
from bench.worker.protocol import Sample
from common.chunker import chunks
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.errors import BakeoffError
from common.steps import on_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cells import Arm
    from bench.worker.arms import Arms
    from common.contract import Checkpoint, Hidden, TrainStep
    from common.equality import Case

    type Calls = dict[str, list[Call]]
    """By metric."""

# Calls are timed by these, whatever an entrant puts in their places: this module is imported before
# any entrant is.
CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready

WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""
STEP_CALLS = 4
"""Timed calls of a step in a turn: with four, the untimed first call is a fifth of the time."""
HOST_COST_CALLS = 10
"""Calls of a tiny step that are each waited for, and as many of which only the last is: they take
next to no time."""
CALLS_IN_A_ROW = 50
"""Calls of a step of which a training loop waits for the last, to print its loss."""
FINAL_STEPS = 200
"""Steps of a short training: at `seed`, enough for the loss to leave the level of letter
frequencies."""
FINAL_MEAN = 20
"""Last steps whose mean is the final loss: one chunk's loss depends on its text."""
OWN_SEEDS = 3
"""Trainings from a library's own initialiser, each with another seed."""


class Call(NamedTuple):
    """What a timed call took, or the mean of several."""

    seconds: float
    idle: float
    """Those seconds in which no thread of this process ran: it waited, or others had the
    processor."""

    @classmethod
    def since(cls, start: float, cpu: float, end: float, calls: int = 1) -> Call:
        """Return the mean of calls; the processor's clock was read before `start`, and is now."""
        return cls((end - start) / calls, (end - start - (CPU_CLOCK() - cpu)) / calls)


class End(NamedTuple):
    """Where a training step has got to in a block."""

    calls: int
    """Since it was given its first weights."""
    loss: float
    """That its last timed call returned."""
    checkpoint: Checkpoint


@dataclass
class StepTurn:
    """Synchronised calls of a step, one of them untimed.

    A call is over when what it returns is there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several programs, updates are in
    flight then. The untimed call gives the others the caches that they have in a loop of their own:
    without it, a step of a tenth of a millisecond pays for what the other arms left behind.
    """

    step: TrainStep
    hidden: Hidden
    chunk: Chunk
    calls: int = 0
    loss: Any = None

    def __call__(self) -> Calls:
        """Take one turn."""
        return {"step": self.waited_for(STEP_CALLS)}

    def waited_for(self, calls: int) -> list[Call]:
        """Return what calls took that are each waited for, after an untimed one."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, taken = CLOCK, WAIT, []
        wait(step(hidden, chunk))
        for _ in range(calls):
            cpu, start = CPU_CLOCK(), clock()
            result = wait(step(hidden, chunk))
            taken.append(Call.since(start, cpu, clock()))
        self.loss, self.calls = result[1], self.calls + 1 + calls
        return taken

    def in_a_row(self, calls: int) -> Call:
        """Return the mean of calls of which only the last is waited for."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        cpu, start = CPU_CLOCK(), CLOCK()
        for _ in range(calls):
            result = step(hidden, chunk)
        WAIT(result)
        call = Call.since(start, cpu, CLOCK(), calls)
        self.loss, self.calls = result[1], self.calls + calls
        return call

    def end(self) -> End:
        """Return where the step has got to."""
        return End(self.calls, float(self.loss), self.step.save())


class HostCostTurn(StepTurn):
    """Calls of a step that are each waited for, then calls of which only the last is.

    Where a library's own jit waits on every call, both are the same.
    """

    def __call__(self) -> Calls:
        """Take one turn."""
        waited_for = self.waited_for(HOST_COST_CALLS)
        return {
            "host_cost": waited_for,
            "host_cost_pipelined": [self.in_a_row(HOST_COST_CALLS)],
        }


class PipelinedTurn(StepTurn):
    """Calls of a step in a row, as a training loop makes them: only the last is waited for."""

    def __call__(self) -> Calls:
        """Take one turn, after a call that is waited for."""
        WAIT(self.step(self.hidden, self.chunk))
        self.calls += 1
        return {"step_pipelined": [self.in_a_row(CALLS_IN_A_ROW)]}


KINDS: dict[str, type[StepTurn]] = {
    "step": StepTurn,
    "pipelined": PipelinedTurn,
    "host_cost": HostCostTurn,
}


def fresh_turn(kind: str, arms: Arms, arm: Arm, chunk: Chunk) -> StepTurn:
    """Return turns of an arm over buffers of its own, warm; a block's arms share the chunk."""
    step, hidden = arms.steps[arm], zero_hidden(arms.case.model, arms.case.batch)
    arms.load(step)
    for _ in range(WARM_CALLS):
        WAIT(step(hidden, chunk))
    return KINDS[kind](step, hidden, chunk, calls=WARM_CALLS)


def stream(case: Case, tokens: Any) -> Iterator[Chunk]:
    """Yield the corpus chunk by chunk, over and over; only whole chunks."""
    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


def training_losses(arm: Arm, arms: Arms) -> list[Sample]:
    """Return the final losses of trainings of `FINAL_STEPS` steps, in nats per character.

    The first training starts from weights that are the same for all; the others, in the `pure`
    styles, from the library's own initialiser.

    Raises:
        BakeoffError: a final loss is not a number.
    """
    case, step = arms.case, arms.steps[arm]
    chunks_ready = list(islice(stream(case, arms.tokens), FINAL_STEPS))

    def final_loss(initialised_by: str, seed: int) -> float:
        model = impls.load(initialised_by).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        for chunk in chunks_ready:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        mean = float(np.mean(jax.device_get(losses[-FINAL_MEAN:])))
        if not math.isfinite(mean):
            raise BakeoffError(f"the loss became {mean} in {FINAL_STEPS} training steps")
        return mean

    samples = [Sample(str(arm), "final_loss", final_loss(BASELINE.entrant, 0))]
    if arm.style == PURE:
        samples += [
            Sample(str(arm), "final_loss_own", final_loss(arm.code.entrant, seed))
            for seed in range(OWN_SEEDS)
        ]
    return samples
