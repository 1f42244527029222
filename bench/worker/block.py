"""Blocks: timed calls of arms in turns, over fresh buffers, and a comparison of the results.

A kind of turns is a row of `KINDS`: the series of calls that a turn has, by metric. A block is some
rounds, each with a turn of every arm in another order. Two workers, one of each side of a
comparison, can measure a block together: then an arm's turns on both sides follow each other.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections import defaultdict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from bench.cells import BASELINE, Arm
from bench.metrics import STAGES, STEP, TINY
from bench.samples import Sample
from bench.worker.arms import End, catch_failure
from bench.worker.counts import disable_collector, list_live_arrays
from bench.worker.protocol import KINDS, CallSeries, Failed, Timed
from bench.worker.settings import has_one_core
from bench.worker.token import schedule, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Float

    from bench.cells import Cell
    from bench.worker.arms import Arms
    from bench.worker.protocol import TimeBlock
    from bench.worker.token import Token
    from common.contract import Chunk

    type Calls = dict[str, list[Call]]
    """Metric → calls of one turn."""

CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready

WARMING_CALLS = 3
"""Number of calls before a block's rounds: the second and third can still take another path."""
FASTEST = 0.5
"""Fraction of an arm's turns, the fastest ones, whose mean stands for its block. Noise only ever
adds time; a half is as precise as any other choice in quiet and in busy hours, and stays at the
times of a quiet machine: see docs/measuring.md."""
DIGITS = 7
"""Significant digits of a sample: more would be noise."""
SCALES = 0.99, 1.01
"""Range of the factor on a block's first weights: other numbers, the same work."""
MOST_PADDING = 1 << 14
"""Most numbers between the buffers of two arms, so that offsets differ from block to block."""


class Call(NamedTuple):
    """Times of a call, or the means of several."""

    seconds: float
    idle: float
    """Seconds in which no thread of this process ran: it waited, or others had the
    processor."""


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
        self.step, self.hidden, self.chunk = arms.steps[arm], arms.case.zero(), chunk
        arms.load(self.step, scale)
        step: Any = self.step
        for _ in range(WARMING_CALLS):
            if isinstance(known := getattr(step, "is_in_flight", None), bool):
                WAIT(list_live_arrays(arms.backend))
            WAIT(step(self.hidden, chunk))
            if known is False:  # seen once, it holds for all blocks: they are measured alike
                arrays: list[Any] = list_live_arrays(arms.backend)
                step.is_in_flight = not all(array.is_ready() for array in arrays)
        self.is_in_flight = getattr(step, "is_in_flight", False)
        self.single = paired and kind == STEP
        series = {STEP: CallSeries(1)} if self.single else KINDS[kind]
        self.series = {
            name: calls for name, calls in series.items() if name not in arms.skipped_metrics
        }
        self.calls = WARMING_CALLS
        self.loss: Any = None

    def __call__(self) -> Calls:
        """Take one turn."""
        if not self.single:
            WAIT(self.step(self.hidden, self.chunk))
            self.calls += 1
        return {metric: self.time_calls(series) for metric, series in self.series.items()}

    def time_calls(self, series: CallSeries) -> list[Call]:
        """Return the time of each call that is waited for, or the mean of calls in a row."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, taken = CLOCK, WAIT, []
        row = range(series.calls if series.in_a_row else 1)
        for _ in range(series.calls // len(row)):
            cpu, start = CPU_CLOCK(), clock()
            for _ in row:
                result = step(hidden, chunk)
            wait(result)
            seconds = clock() - start
            idle = seconds - (CPU_CLOCK() - cpu)
            taken.append(Call(seconds / len(row), idle / len(row)))
        self.loss, self.calls = result[1], self.calls + series.calls
        if self.is_in_flight:
            taken = [Call(*np.mean(taken, axis=0).tolist())] * len(taken)
        return taken

    def end(self) -> End:
        """Return the step's state after its calls."""
        return End(self.calls, float(self.loss), self.step.save())


class TimedBlock:
    """One block of turns of one kind.

    Args:
        arms: Arms of the block's workload.
        command: Command that asks for the block; both sides of a comparison have its seed.
        mark_arm: Called with the arm that is at work next; with None while the other side is.
        count_programs: Returns the number of programs that the process has compiled so far.
        changes: Returns in words the forbidden changes that an arm has made.
        token: Token that this worker and the other side's pass on; None without another side.
    """

    def __init__(
        self,
        arms: Arms,
        command: TimeBlock,
        mark_arm: Callable[[Arm | None], None],
        count_programs: Callable[[], int],
        changes: Callable[[], str],
        token: Token | None = None,
    ) -> None:
        self.arms, self.command, self.token = arms, command, token
        self.mark_arm, self.count_programs, self.changes = mark_arm, count_programs, changes
        self.members = [*map(Arm.parse, command.arms)]
        # A first round is slower at a tiny size, where it costs nothing; its samples are dropped
        self.untimed = int(command.workload in TINY and command.kind != STAGES)
        self.shared = random.Random(command.seed)  # noqa: S311 -- an order of rounds is no secret
        place = token.place if token else 0
        self.buffers = random.Random(f"{command.seed} {place}")  # noqa: S311
        self.failures: dict[Arm, str] = {}
        self.calls: dict[Arm, dict[str, list[list[Call]]]] = defaultdict(lambda: defaultdict(list))
        """Arm → metric → calls of each turn."""
        self.cpu_seconds: dict[Arm, float] = defaultdict(float)
        self.wall_seconds: dict[Arm, float] = defaultdict(float)
        self.making_seconds = 0.0

    def run(self) -> Timed:
        """Take turns over fresh buffers in random order, then compare the arms' results."""
        chunk = jax.tree.map(jax.numpy.array, self.shared.choice(self.arms.chunks))
        scale = self.shared.uniform(*SCALES)

        def begin() -> dict[Arm, Turn]:
            if self.command.anew:
                self.renew_steps()
            return self.make_turns(chunk, scale)

        turns = self.interleave(begin)
        self.compare(turns)
        good = [arm for arm in turns if arm not in self.failures]
        several_cores = self.command.kind == STEP and not has_one_core()
        samples = []
        for arm in good:
            cell = self.arms.find_cell(arm)
            samples += [make_sample(cell, name, calls) for name, calls in self.calls[arm].items()]
            if several_cores and self.cpu_seconds[arm] > 0:
                used = self.cpu_seconds[arm] / self.wall_seconds[arm]
                samples.append(Sample(cell, "cores_used", round_value(used)))
        return Timed(
            samples,
            {str(arm): why for arm, why in self.failures.items()},
            {str(arm): self.wall_seconds[arm] for arm in good},
            making=self.making_seconds,
        )

    def attempt[Result](self, arm: Arm, when: str, action: Callable[[], Result]) -> Result | None:
        """Return what `action` returns for an arm; None after a failure of the arm."""
        self.mark_arm(arm)
        result = catch_failure(action)
        if changed := self.changes():
            self.failures[arm] = f"{when} it was timed it {changed}"
        elif isinstance(result, Failed):
            self.failures[arm] = f"{result.failure} ({when} it was timed)"
        return None if arm in self.failures or isinstance(result, Failed) else result

    def renew_steps(self) -> None:
        """Make steps anew in random order; each has to have the losses that it had before."""
        start = CLOCK()
        for arm in self.buffers.sample(self.members, len(self.members)):
            self.attempt(arm, "before", partial(self.arms.open, arm, self.arms.expected_losses))
        self.making_seconds = CLOCK() - start

    def make_turns(self, chunk: Chunk, scale: float) -> dict[Arm, Turn]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        turns, padding, kind = {}, [], self.command.kind
        for arm in self.buffers.sample(self.members, len(self.members)):
            size = self.buffers.randrange(1, MOST_PADDING)
            padding.append(jax.device_put(np.zeros(size, np.float32)))
            fresh = partial(Turn, kind, self.arms, arm, chunk, scale, paired=bool(self.token))
            if arm not in self.failures and (turn := self.attempt(arm, "before", fresh)):
                turns[arm] = turn
        return turns

    def interleave[T: Callable[[], Calls]](self, begin: Callable[[], dict[Arm, T]]) -> dict[Arm, T]:
        """Take a turn of each arm in each round; return the turns, which `begin` makes in time.

        An arm that fails takes no further turns.
        """
        sides = 2 if self.token else 1
        first = [(side, None) for side in self.shared.sample(range(sides), sides)]
        rounds = range(-self.untimed, self.command.rounds)
        order = schedule(self.shared, self.members, rounds, sides)
        turns: dict[Arm, T] = {}
        with disable_collector():
            for item in share(chain(first, order), self.token, self.mark_arm):
                if item is None:
                    turns = begin()
                    gc.collect()  # here, for the other side's turns may come next
                    continue
                number, arm = item
                if arm in turns and arm not in self.failures:
                    self.take(arm, turns[arm], timed=number >= 0)
        return turns

    def take(self, arm: Arm, turn: Callable[[], Calls], *, timed: bool) -> None:
        """Take one turn of an arm, and keep its calls unless something is wrong."""
        programs, cpu, wall = self.count_programs(), CPU_CLOCK(), CLOCK()
        calls = self.attempt(arm, "while", turn)
        wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
        if timed and calls:
            if self.count_programs() > programs:
                self.failures[arm] = "compiled again while it was timed"
                return
            self.wall_seconds[arm] += wall
            self.cpu_seconds[arm] += cpu
            for metric, taken in calls.items():
                self.calls[arm][metric].append(taken)

    def compare(self, turns: Mapping[Arm, Turn]) -> None:
        """Compare the results of each arm with the baseline's after as many calls.

        Without the baseline, only updates are counted: other blocks of this worker compare with it.
        """
        left = [arm for arm in turns if arm not in self.failures]
        ends = {arm: end for arm in left if (end := self.attempt(arm, "after", turns[arm].end))}
        baseline = ends.get(BASELINE)
        if baseline is None and BASELINE in self.members:
            why = f"the baseline failed, so nothing could be compared: {self.failures[BASELINE]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, end in ends.items():
            if wrong := self.arms.describe_difference(end, baseline):
                self.failures[arm] = f"its timed training gave a wrong result: {wrong}"


def make_sample(cell: Cell, metric: str, turns: Sequence[Sequence[Call]]) -> Sample:
    """Return the sample of a cell's turns in a block."""
    seconds = np.array(seconds_of([call for calls in turns for call in calls]))
    median, high = np.quantile(seconds, [0.5, 0.95]).tolist()
    fastest = math.exp(mean_of_fastest(seconds.reshape(len(turns), -1)))
    return Sample(
        cell,
        metric,
        round_value(fastest),
        calls=seconds.size,
        median=round_value(median),
        p95=round_value(high),
    )


def mean_of_fastest(seconds: Float[np.ndarray, "turns calls"]) -> float:
    """Return the mean logarithm of the fastest half of turns, each by its fastest call."""
    turns = np.sort(seconds.min(1))
    return float(np.log(turns[: math.ceil(FASTEST * turns.size)]).mean())


def round_value(value: float) -> float:
    """Round a number to the digits of a sample."""
    return float(f"{value:.{DIGITS}g}")


def seconds_of(calls: Sequence[Call]) -> list[float]:
    """Return the seconds of an arm's calls in a block; on one core, without other processes' time.

    There, a process runs or waits: while it waits longer than in the call of the block with the
    shortest wait, another process has the core. On several cores threads overlap: wall time counts.
    """
    if not has_one_core():
        return [call.seconds for call in calls]
    waiting = max(0.0, min(call.idle for call in calls))
    return [call.seconds - max(0.0, call.idle - waiting) for call in calls]
