"""Turns of an arm in a block: series of timed calls of its step, or the stages of a new step.

A kind of turns is a row of `KINDS`: the series of calls that a turn has, by metric.

Stages are traced, lowered and compiled in workers that do nothing else. A process takes twice as
long for what it traces first. So such a turn begins as a process does: with JAX's caches cleared,
and with the library's own initialiser, which traces some parts of a step. Ratios of trace and
compile are then those of a fresh process within 6 % (results/selftest/stages.md); for Linen's
trace, they were 21 % off with JAX's caches kept, and 40 % without the initialiser.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from bench.cells import BASELINE, REFERENCE
from bench.metrics import HOST, STAGES, STEP
from bench.samples import Sample
from bench.worker.arms import End
from bench.worker.cold import cache_hits, lower, require_compiled, time_stage
from bench.worker.counts import QUIET_QUANTILE, list_live_arrays
from bench.worker.protocol import KINDS, CallSeries
from bench.worker.settings import has_one_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float

    from bench.cells import Arm, Cell
    from bench.worker.arms import Arms
    from common.contract import Chunk, Program

    type Calls = dict[str, list[Call]]
    """Metric → calls of one turn."""

CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready


WARMING_CALLS = 3
"""Number of calls before a block's rounds: the second and third can still take another path."""
FASTEST = 0.5
"""Fraction of an arm's turns, the fastest ones, whose mean stands for its block. Noise only ever
adds time; a half is as precise as any other choice in quiet and in busy hours, and stays at the
times of a quiet machine: see docs/measuring.md."""
OFF_CORE_SECONDS = 50e-6
"""Longest time, in seconds, that a process on one core may be off it in a call that counts. In a
quiet hour it is off for 13 µs at most (99 % quantile), and for a time slice of milliseconds where
another process has the core."""
OFF_CORE_PART = 0.001
"""Fraction of longer calls, or of many in a row, for which the process may be off its core beyond
that: what the kernel itself does now and then."""
LEAST_CLEAN_ROUNDS = 6
"""Least rounds of a block of single calls in which both calls of a ratio are clean: the shortest
block has eight, and a quiet machine spoils one of them now and then."""
LEAST_CLEAN_TURNS = 3
"""Least turns of a block with a call that counts, as many as the shortest block has."""
QUICK = 1.15
"""Largest time of a reference's call in a quick round, divided by that of its quiet call. Another
guest of the host, on the same core, makes a call 1.4 to 1.8 times as long, from one tenth of a
second to the next, and Python's part of it more than the program's: of 100 arrays, `jit_partial`
added 0.73 of a call in quick rounds, and 0.93 to 0.96 in slow ones, in two processes."""
DIGITS = 7
"""Significant digits of a sample: more would be noise."""


class Call(NamedTuple):
    """Times of a call, or the means of several."""

    seconds: float
    idle: float
    """Seconds in which no thread of this process ran, in the call and in the untimed one right
    before it, beyond `OFF_CORE_PART` of both; zero where that is not known."""

    @property
    def is_clean(self) -> bool:
        """Whether this process had its core all the time: no other one did, and it never slept."""
        return self.idle <= OFF_CORE_SECONDS


class Turn:
    """Turn of an arm in one block: an untimed call of its step, then series of timed calls.

    Steps of a pair are called once in a turn, without an untimed call: what the other side leaves
    in the caches is the same for both.

    A call is over when its results are there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several programs, updates are in
    flight then, and the next call waits for them. If a step's state is not known
    and its calls leave updates in flight, each call counts as the mean of the turn: the fastest has
    left its updates to the next. The untimed call gives the others the caches that they have in a
    loop of their own: without it, a step of a tenth of a millisecond pays for what the other arms
    left behind.
    """

    def __init__(
        self, kind: str, arms: Arms, arm: Arm, chunk: Chunk, scale: float, *, paired: bool = False
    ) -> None:
        """Warm up over buffers of the arm's own, whose content a block's arms share."""
        step: Any = arms.steps[arm]
        self.step, self.hidden, self.chunk = step, arms.case.zero(), chunk
        arms.load(step, scale)
        for _ in range(WARMING_CALLS):
            if isinstance(known := getattr(step, "is_in_flight", None), bool):
                WAIT(list_live_arrays(arms.backend))
            WAIT(step(self.hidden, chunk))
            if known is False:  # seen once, it holds for all blocks: they are measured alike
                arrays: list[Any] = list_live_arrays(arms.backend)
                step.is_in_flight = not all(array.is_ready() for array in arrays)
        self.is_in_flight = getattr(step, "is_in_flight", False)
        # On several cores, threads overlap; beside an accelerator, the process waits for it
        self.tells_idle = has_one_core() and arms.backend == "cpu"
        self.is_alone = paired and kind == STEP
        self.is_single = arms.pairs_calls and kind == HOST
        """Whether a turn has one timed call, of a step whose only result is its loss."""
        series = KINDS[kind]
        if self.is_alone or self.is_single:
            series = dict.fromkeys(series, CallSeries(1))
        self.series = {
            name: calls for name, calls in series.items() if name not in arms.skipped_metrics
        }
        self.calls = WARMING_CALLS
        self.loss: Any = None

    def __call__(self) -> Calls:
        """Take one turn."""
        if self.is_single:
            return {metric: [self.time_second_call()] for metric in self.series}
        if not self.is_alone:
            WAIT(self.step(self.hidden, self.chunk))
            self.calls += 1
        return {metric: self.time_calls(series) for metric, series in self.series.items()}

    def time_second_call(self) -> Call:
        """Return the time of a call after an untimed one, whose only result is its loss.

        The processor's clock is read before both: it is a system call, after which a call of 60 µs
        takes 4 µs longer. Both count as one: a process that has just got its core back finds cold
        caches, and its next call takes up to a quarter longer.
        """
        step, hidden, chunk, clock = self.step, self.hidden, self.chunk, CLOCK
        cpu, begin = CPU_CLOCK(), clock()
        wait_for_loss(step(hidden, chunk)[1])
        start = clock()
        self.loss = step(hidden, chunk)[1]
        wait_for_loss(self.loss)
        end = clock()
        self.calls += 2
        return Call(end - start, self.find_idle(end - begin, CPU_CLOCK() - cpu))

    def find_idle(self, seconds: float, cpu_seconds: float) -> float:
        """Return the idle seconds of some calls; zero where clocks do not tell them."""
        return (1 - OFF_CORE_PART) * seconds - cpu_seconds if self.tells_idle else 0.0

    def time_calls(self, series: CallSeries) -> list[Call]:
        """Return the time of each call that is waited for, or the mean of calls in a row."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, taken = CLOCK, WAIT, []
        calls_in_a_row = series.calls if series.in_a_row else 1
        row = range(calls_in_a_row)  # made here, outside of what is timed
        for _ in range(series.calls // calls_in_a_row):
            cpu, start = CPU_CLOCK(), clock()
            for _ in row:
                result = step(hidden, chunk)
            wait(result)
            seconds = clock() - start
            idle = self.find_idle(seconds, CPU_CLOCK() - cpu)
            taken.append(Call(seconds / calls_in_a_row, idle))
        self.loss, self.calls = result[1], self.calls + series.calls
        if self.is_in_flight:
            mean = float(np.mean([call.seconds for call in taken]))
            taken = [Call(mean, max(call.idle for call in taken))] * len(taken)
        return taken

    def end(self) -> End:
        """Return the step's state after its calls.

        Raises:
            BakeoffError: the step returned a loss that it had kept, if its state is not known.
        """
        end = End(self.calls, float(self.loss), self.step.save())
        if end.checkpoint is None:
            self.step.require_new_losses(self.chunk)
        return end


def wait_for_loss(loss: Any) -> None:
    """Wait for a loss in the way that takes least time: JAX's function for trees takes 2 µs."""
    if isinstance(loss, jax.Array):
        loss.block_until_ready()
    else:  # a user's step may return a number, or a tree
        WAIT(loss)


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
        arms = self.arms
        gc.collect()  # JAX 0.4.28 and 0.7.0 crash where clearing frees a step
        jax.clear_caches()
        # On one core a process runs or waits, and it waits for others alone: XLA may for a GPU's
        clock = CPU_CLOCK if has_one_core() and arms.backend == "cpu" else CLOCK
        seconds: dict[str, float] = {}
        self.turns += 1

        def trace_and_lower(program: Program) -> jax.stages.Lowered:
            arms.initialise(self.arm)
            cache_hits().clear()
            return lower(program, seconds, clock)

        with disable_cache():
            lowered = arms.with_program(self.arm, trace_and_lower)
            # References compile each time; of others with one program, the first in a round does
            compiles = self.arm in REFERENCE or self.compiled[self.fingerprint] < self.turns
            if compiles and "compile" not in arms.skipped_metrics:
                with time_stage(seconds, "compile", clock):
                    lowered.compile()
                self.compiled[self.fingerprint] += 1
        require_compiled()
        if self.turns == 1:
            arms.check_lowered(self.arm, lowered)
        names = [name for name in KINDS[STAGES] if name not in arms.skipped_metrics]
        return {name: [Call(seconds[name], 0.0)] for name in names if name in seconds}


def make_stages_turns(
    arms: Arms, members: Sequence[Arm], known: Mapping[str, str]
) -> dict[Arm, Turn]:
    """Return a turn of each arm over the stages of its step.

    Of arms with the same program, the first one of a round compiles it for all; both copies of the
    baseline do, since all others are compared with them. `known` has arms' programs.
    """
    gc.collect()
    gc.freeze()  # what is imported by now is not looked through by each later collection
    programs = {arm: known.get(str(arm)) or str(arm) for arm in members}
    compiled = dict.fromkeys(programs.values(), 0.0)
    compiled[programs.get(BASELINE, "")] = math.inf  # no other arm compiles the references'
    return {arm: StagesTurn(arms, arm, programs[arm], compiled) for arm in members}


def make_sample(cell: Cell, metric: str, turns: Sequence[Sequence[Call]]) -> Sample | None:
    """Return the sample of a cell's turns in a block; None if too few of them are clean."""
    seconds = read_clean_seconds(turns)
    clean = seconds[~np.isnan(seconds).all(1)]
    least = LEAST_CLEAN_ROUNDS if seconds.shape[1] == 1 else LEAST_CLEAN_TURNS
    if len(clean) < min(len(turns), least):
        return None
    fastest = math.exp(mean_of_fastest(clean))
    typical = np.nanquantile(clean, [0.5, 0.95]).tolist()
    value, median, p95 = map(round_value, (fastest, *typical))
    return Sample(cell, metric, value, seconds.size, median, p95)


def make_paired_samples(
    turns: Mapping[Cell, Sequence[Sequence[Call]]], metric: str
) -> list[Sample]:
    """Return the samples of cells whose turns have one call each, related round by round.

    A cell's value is the references' quiet call (`QUIET_QUANTILE`) times the ratio of its calls to
    theirs of the same round: the midmean of logarithms. Where the machine's speed changes from one
    tenth of a second to the next, such a ratio varies less than that of two quiet times. Each
    reference is related by itself: noise only adds time, so that the mean of two calls is longer
    than a typical one, and 4 % was missing in the ratios of others to it. Other cells are related
    to a reference in the rounds in which the other reference was quick (`QUICK`): its speed is that
    of both, and its noise is none of theirs.

    A cell with too few rounds in which its call and those of the references are clean has no
    sample.
    """
    seconds = {cell: read_clean_seconds(of_cell).ravel() for cell, of_cell in turns.items()}
    logs = {cell: np.log(row) for cell, row in seconds.items()}
    references = [row for cell, row in logs.items() if cell.arm in REFERENCE]
    if min(np.isfinite(row).sum() for row in references) < LEAST_CLEAN_ROUNDS:
        return []
    quiet = np.nanquantile(references, QUIET_QUANTILE, axis=1)
    level, samples = float(quiet.mean()), []
    slowness = np.array(references) - quiet[:, None]
    slowness = slowness[::-1] if len(references) > 1 else 0 * slowness  # of the other reference
    for cell, row in seconds.items():
        ratios = []
        for reference, slow in zip(references, slowness, strict=True):
            ratio = logs[cell] - reference
            known = np.flatnonzero(~np.isnan(ratio + slow))
            if cell.arm not in REFERENCE:
                quick = int((slow[known] <= math.log(QUICK)).sum())
                known = known[np.argsort(slow[known])][: max(LEAST_CLEAN_ROUNDS, quick)]
            ratios.append(ratio[known])
        if min(ratio.size for ratio in ratios) < LEAST_CLEAN_ROUNDS:
            continue
        value = math.exp(level + np.mean([find_midmean(ratio) for ratio in ratios]))
        numbers = [value, *np.nanquantile(row, [0.5, 0.95]).tolist()]
        value, median, p95 = map(round_value, numbers)
        samples.append(Sample(cell, metric, value, row.size, median, p95))
    return samples


def find_midmean(values: Float[np.ndarray, " rounds"]) -> float:
    """Return the mean of the middle half of some values."""
    cut = values.size // 4
    return float(np.sort(values)[cut : values.size - cut].mean())


def mean_of_fastest(seconds: Float[np.ndarray, "turns calls"]) -> float:
    """Return the mean logarithm of the fastest half of turns, each by its fastest call.

    Calls that do not count are NaN; each turn has one that does.
    """
    turns = np.sort(np.nanmin(seconds, axis=1))
    return float(np.log(turns[: math.ceil(FASTEST * turns.size)]).mean())


def round_value(value: float) -> float:
    """Round a number to the digits of a sample."""
    return float(f"{value:.{DIGITS}g}")


def read_clean_seconds(turns: Sequence[Sequence[Call]]) -> Float[np.ndarray, "turns calls"]:
    """Return the seconds of an arm's calls in a block, NaN for those that are not clean.

    A call is measured or left out. To subtract the time that others had the core is wrong: where
    it was known for two calls together, and each got its part, 0.14 ms was told for 0.7.
    """
    return np.array([[c.seconds if c.is_clean else math.nan for c in calls] for calls in turns])
