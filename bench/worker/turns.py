"""Turns: what an arm does when it is its turn in a round, and how long that took; training.

A kind is a row of `KINDS`: a function of the workload's arms and of one of them, which compiles
what its turns need beyond the arm's step, and returns what gives that arm turns over buffers of
its own, warm, for each block.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np

import impls
from bench.cells import BASELINE
from common.chunker import chunks
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import random_weights
from common.errors import BakeoffError
from common.sample import sample
from common.steps import FunctionalStep, on_host
from common.train import by_chunk, by_scan
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.cells import Arm
    from bench.worker.arms import Arms
    from common.contract import Checkpoint, Hidden, TrainStep
    from common.equality import Case

    type Samples = dict[str, list[Call]]
    """By metric."""
    type Fresh = Callable[[Chunk], Turns]
    """Gives turns over buffers of their own, warm; a chunk is shared by all arms of a block."""

# What is timed is measured by these, whatever an entrant puts in their places: this module is
# imported before any entrant is.
CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready

WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""
CALLS = 4
"""Timed calls of a step in a turn."""
HOST_COST_CALLS = 10
"""Calls of a step that are each waited for, and as many of which only the last is."""
CALLS_IN_A_ROW = 50
"""Calls of a step of which a training loop waits for the last, to print its loss."""
EPOCH_CHUNKS = 39
"""As many whole chunks as the blog's epoch has, or as the text has."""
EPOCH_TOLERANCE = 1e-3
"""In nats per character: rounding that an unstable training has blown up stays below it."""
SAMPLE_LENGTH = 500
FINAL_STEPS = 200
FINAL_MEAN = 20
"""Steps whose mean is a point of a curve, the last of them the final loss: one chunk's loss depends
on its text."""
OWN_SEEDS = 3


class Call(NamedTuple):
    """What a timed call took, or the mean of several."""

    seconds: float
    idle: float
    """Of these, seconds in which no thread of this process ran: it waited, or others had the
    processor."""

    @classmethod
    def since(cls, start: float, cpu: float, end: float, calls: int = 1) -> Call:
        """Return the mean of calls; the processor's clock was read before `start`, and is now."""
        return cls((end - start) / calls, (end - start - (CPU_CLOCK() - cpu)) / calls)


class End(NamedTuple):
    """Where a training step has got to."""

    calls: int
    """Since it was given its first weights."""
    loss: float
    """That its last timed call returned."""
    checkpoint: Checkpoint


class Turns(Protocol):
    """An arm's turns in one block."""

    def __call__(self) -> Samples:
        """Take one turn."""

    def ends(self) -> dict[str, End]:
        """Return where its steps have got to, by name; none where nothing is trained."""


@dataclass
class StepTurn:
    """Synchronised calls of a step, one of them untimed.

    A call is over when what it returns is there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several programs, as in `blog`,
    updates are in flight then. The untimed call gives the others the caches that they have in a
    loop of their own: without it, a step of a tenth of a millisecond pays for what the other arms
    left behind.
    """

    step: TrainStep
    hidden: Hidden
    chunk: Chunk
    calls: int = 0
    loss: Any = None

    def __call__(self) -> Samples:
        """Take one turn."""
        return {"step": self.each(CALLS)}

    def each(self, calls: int) -> list[Call]:
        """Return what calls took that are each waited for, after an untimed one."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, taken = CLOCK, WAIT, []
        wait(step(hidden, chunk))
        for _ in range(calls):
            cpu, start = CPU_CLOCK(), clock()
            found = wait(step(hidden, chunk))
            taken.append(Call.since(start, cpu, clock()))
        self.loss, self.calls = found[1], self.calls + 1 + calls
        return taken

    def ends(self) -> dict[str, End]:
        """Return where the step has got to."""
        return {"": End(self.calls, float(self.loss), self.step.save())}


class HostCostTurn(StepTurn):
    """Calls of a step that are each waited for, then calls of which only the last is.

    A sample of `host_cost` is one call, of `host_cost_pipelined` the mean of all. Where a
    library's own jit waits on every call, both are the same.
    """

    def __call__(self) -> Samples:
        """Take one turn."""
        waited_for = self.each(HOST_COST_CALLS)
        step, hidden, chunk = self.step, self.hidden, self.chunk
        cpu, start = CPU_CLOCK(), CLOCK()
        for _ in range(HOST_COST_CALLS):
            found = step(hidden, chunk)
        WAIT(found)
        in_a_row = Call.since(start, cpu, CLOCK(), HOST_COST_CALLS)
        self.loss, self.calls = found[1], self.calls + HOST_COST_CALLS
        return {"host_cost": waited_for, "host_cost_pipelined": [in_a_row]}


class PipelinedTurn(StepTurn):
    """Calls of a step in a row, as a training loop makes them: only the last is waited for."""

    def __call__(self) -> Samples:
        """Take one turn, after a call that is waited for."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        WAIT(step(hidden, chunk))
        cpu, start = CPU_CLOCK(), CLOCK()
        for _ in range(CALLS_IN_A_ROW):
            found = step(hidden, chunk)
        WAIT(found)
        in_a_row = Call.since(start, cpu, CLOCK(), CALLS_IN_A_ROW)
        self.loss, self.calls = found[1], self.calls + 1 + CALLS_IN_A_ROW
        return {"step_pipelined": [in_a_row]}


class ProgramTurn:
    """Single calls of programs that are no step: each gives a metric a sample."""

    def __init__(
        self, programs: dict[str, Callable[[], Any]], ends: Callable[[], dict[str, End]] = dict
    ) -> None:
        self.programs, self.ends = programs, ends

    def __call__(self) -> Samples:
        """Take one turn."""
        found = {}
        for metric, program in self.programs.items():
            cpu, start = CPU_CLOCK(), CLOCK()
            WAIT(program())
            found[metric] = [Call.since(start, cpu, CLOCK())]
        return found


def of_step(turn: type[StepTurn], arms: Arms, arm: Arm) -> Fresh:
    """Return what gives turns of calls of an arm's own step."""

    def fresh(chunk: Chunk) -> Turns:
        step, hidden = arms.steps[arm], zero_hidden(arms.case.model, arms.case.batch)
        arms.load(step)
        for _ in range(WARM_CALLS):
            WAIT(step(hidden, chunk))
        return turn(step, hidden, chunk, calls=WARM_CALLS)

    return fresh


def of_epoch(arms: Arms, arm: Arm) -> Fresh:
    """Return what gives turns of one epoch chunk by chunk and one as a jitted scan, compiled.

    They run as `bakeoff train` runs them: the text's way to the device is part of both.
    """
    case = arms.case
    size = EPOCH_CHUNKS * case.chunk * case.batch + 1
    epoch = chunks(arms.tokens[:size], case.chunk, case.batch)
    steps, runs, losses = {}, {}, {}
    for metric, mode in (("epoch_by_chunk", by_chunk), ("epoch_by_scan", by_scan)):
        step = arms.make(arm)
        assert isinstance(step, FunctionalStep), "these styles thread their state"
        step.load(fresh_checkpoint(arms.weights))
        steps[metric], runs[metric] = step, mode(step)
        losses[metric] = runs[metric](zero_hidden(case.model, case.batch), epoch)
    away = float(np.max(np.abs(losses["epoch_by_scan"] - losses["epoch_by_chunk"])))
    if not away <= EPOCH_TOLERANCE:
        raise BakeoffError(f"an epoch as one scan is off by {away:.2g} nats from chunk by chunk")

    def fresh(_: Chunk) -> Turns:
        hidden, taken = zero_hidden(case.model, case.batch), dict.fromkeys(steps, 0)
        for step in steps.values():
            arms.load(step)

        def run(metric: str) -> None:
            losses[metric] = runs[metric](hidden, epoch)
            taken[metric] += len(losses[metric])

        def ends() -> dict[str, End]:
            return {
                name: End(taken[name], float(losses[name][-1]), step.save())
                for name, step in steps.items()
            }

        return ProgramTurn({metric: partial(run, metric) for metric in steps}, ends)

    return fresh


def of_sample(arms: Arms, arm: Arm) -> Fresh:
    """Return what gives turns of writing `SAMPLE_LENGTH` characters, compiled."""
    config = arms.case.model
    vocab = Vocab("".join(map(chr, range(64, 64 + config.vocab_size))))
    model = impls.load(arm.code.entrant).build(config)

    def fresh(_: Chunk | None = None) -> Turns:
        params = model.from_weights(random_weights(config))
        write = partial(sample, model, params, config, vocab, "A", SAMPLE_LENGTH)
        expected = write()

        def again() -> None:
            if write() != expected:
                raise BakeoffError("another text was written than before")

        return ProgramTurn({"sample": again})

    fresh()
    return fresh


KINDS: dict[str, Callable[[Arms, Arm], Fresh]] = {
    "step": partial(of_step, StepTurn),
    "pipelined": partial(of_step, PipelinedTurn),
    "host_cost": partial(of_step, HostCostTurn),
    "epoch": of_epoch,
    "sample": of_sample,
}


def stream(case: Case, tokens: Any) -> Iterator[Chunk]:
    """Yield the corpus chunk by chunk, over and over; only whole chunks."""
    per_chunk = case.chunk * case.batch
    whole = (len(tokens) - 1) // per_chunk * per_chunk
    epoch = chunks(tokens[: whole + 1], case.chunk, case.batch)
    while True:
        for arrays in zip(*epoch, strict=True):
            yield jax.device_put(Chunk(*arrays))


def final_loss(arm: Arm, step: TrainStep, arms: Arms) -> dict[str, Any]:
    """Return the seconds and the final losses of training runs of `FINAL_STEPS` steps.

    The first run starts from weights that are the same for all; the others, in the `pure` styles,
    from the library's own initialisers.

    Raises:
        BakeoffError: a final loss is not a number.
    """
    case, corpus = arms.case, arms.corpus
    chunks_ready = list(islice(stream(case, arms.tokens), FINAL_STEPS))

    def run(initialised_by: str, seed: int) -> tuple[float, list[float]]:
        model = impls.load(initialised_by).build(case.model)
        step.load(fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed))))))
        hidden, losses = zero_hidden(case.model, case.batch), []
        start = CLOCK()
        for chunk in chunks_ready:
            hidden, loss = step(hidden, chunk)
            losses.append(loss)
        values = jax.device_get(losses)
        seconds = CLOCK() - start
        means = np.array(values, float).reshape(-1, FINAL_MEAN).mean(1).tolist()
        if not math.isfinite(means[-1]):
            raise BakeoffError(f"the loss became {means[-1]} in {FINAL_STEPS} training steps")
        return seconds, means

    runs = [run(BASELINE[0], 0)]
    if arm.style == "pure" and not arm.devices:
        runs += [run(arm.entrant, seed) for seed in range(OWN_SEEDS)]
    seconds, (same, *own) = zip(*runs, strict=True)
    return {
        "seconds": list(seconds),
        "steps": FINAL_STEPS,
        "mean_of_steps": FINAL_MEAN,
        "same_weights": same[-1],
        "own_initialiser": [losses[-1] for losses in own],
        "curve_same_weights": same,
        "curves_own_initialiser": own,
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "entropy": corpus.entropy,
    }
