"""Blocks: timed calls of arms in turns, over fresh buffers, and a look at what they computed.

A kind of turns is a row of `KINDS`: the series of calls that a turn has, by metric. A block is some
rounds, each with a turn of every arm in another order.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from bench.cells import BASELINE, Arm
from bench.worker.arms import End, guarded
from bench.worker.counts import collector_off
from bench.worker.protocol import KINDS, Failed, Timed, WorkerSample
from bench.worker.settings import affinity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.worker.arms import Arms
    from common.contract import Chunk

    type Calls = dict[str, list[Call]]
    """By metric."""

CLOCK, CPU_CLOCK, WAIT = time.perf_counter, time.process_time, jax.block_until_ready

WARMING_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""
QUANTILE = 0.1
"""Quantile of an arm's calls that stands for its block. Noise only ever adds time, so a low
quantile varies far less than a median; A/A runs chose this one, see docs/measuring.md."""
DIGITS = 7
"""Significant digits of a sample: more would be noise."""
SCALES = 0.99, 1.01
"""Range of a block's first weights, as parts of the usual ones: other numbers, the same work."""
MOST_PADDING = 1 << 14
"""Numbers between the buffers of two arms, at most: they lie at other offsets in each block."""


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


class Turn:
    """Series of calls of an arm's step, after an untimed one; each block has a new one.

    A call is over when what it returns is there: loss and hidden state, which come with the new
    parameters where one program makes them all. Where a step is several programs, updates are in
    flight then. The untimed call gives the others the caches that they have in a loop of their own:
    without it, a step of a tenth of a millisecond pays for what the other arms left behind.
    """

    def __init__(self, kind: str, arms: Arms, arm: Arm, chunk: Chunk, scale: float) -> None:
        """Warm up over buffers of the arm's own, whose content a block's arms share."""
        self.step, self.hidden, self.chunk = arms.steps[arm], arms.case.zero(), chunk
        arms.load(self.step, scale)
        for _ in range(WARMING_CALLS):
            WAIT(self.step(self.hidden, chunk))
        series = KINDS[kind].items()
        self.series = {name: calls for name, calls in series if name not in arms.left_out}
        self.calls = WARMING_CALLS
        self.loss: Any = None

    def __call__(self) -> Calls:
        """Take one turn."""
        WAIT(self.step(self.hidden, self.chunk))
        self.calls += 1
        return {
            metric: [self.in_a_row(calls)] if in_a_row else self.waited_for(calls)
            for metric, (calls, in_a_row) in self.series.items()
        }

    def waited_for(self, calls: int) -> list[Call]:
        """Return what calls took that are each waited for."""
        step, hidden, chunk = self.step, self.hidden, self.chunk
        clock, wait, taken = CLOCK, WAIT, []
        for _ in range(calls):
            cpu, start = CPU_CLOCK(), clock()
            result = wait(step(hidden, chunk))
            taken.append(Call.since(start, cpu, clock()))
        self.loss, self.calls = result[1], self.calls + calls
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


class TimedBlock:
    """One block of turns of one kind.

    Args:
        at: Called with the arm whose turn it is.
        compiled: Returns how many programs the process has compiled so far.
        changes: Returns in words what an arm has changed that it may not.
        seed: Of the order of rounds.
    """

    def __init__(
        self,
        at: Callable[[Arm], None],
        compiled: Callable[[], int],
        changes: Callable[[], str],
        seed: int,
    ) -> None:
        self.at, self.compiled, self.changes = at, compiled, changes
        self.rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
        self.failures: dict[Arm, str] = {}
        self.calls: dict[Arm, Calls] = defaultdict(lambda: defaultdict(list))
        self.cpu_seconds: dict[Arm, float] = defaultdict(float)
        self.wall_seconds: dict[Arm, float] = defaultdict(float)

    def run(
        self, arms: Arms, kind: str, members: Sequence[Arm], rounds: int, untimed: int
    ) -> Timed:
        """Take turns over fresh buffers in random order, and compare where the arms have got to.

        Args:
            arms: Those of the workload.
            kind: A row of `KINDS`.
            members: Arms that take part.
            rounds: Timed rounds.
            untimed: Rounds that come in addition, first; their samples are dropped.
        """
        turns = self.turns(arms, kind, members)
        self.interleave(turns, rounds, untimed)
        self.compare(arms, turns, baseline=BASELINE if BASELINE in members else None)
        good = [arm for arm in turns if arm not in self.failures]
        samples = [
            sample_of(arm, metric, calls)
            for arm in good
            for metric, calls in self.calls[arm].items()
        ]
        if kind == "step" and not on_one_core():
            samples += [
                WorkerSample(str(arm), "cores_used", rounded(self.cpu_seconds[arm] / seconds))
                for arm in good
                if (seconds := self.wall_seconds[arm]) and self.cpu_seconds[arm] > 0
            ]
        return Timed(
            samples,
            {str(arm): why for arm, why in self.failures.items()},
            {str(arm): self.wall_seconds[arm] for arm in good},
        )

    def attempt[Result](self, arm: Arm, when: str, action: Callable[[], Result]) -> Result | None:
        """Do something at an arm's turn; None where it failed, which is that arm's failure."""
        self.at(arm)
        result = guarded(action)
        if changed := self.changes():
            self.failures[arm] = f"{when} it was timed it {changed}"
        elif isinstance(result, Failed):
            self.failures[arm] = f"{result.failure} ({when} it was timed)"
        return None if arm in self.failures or isinstance(result, Failed) else result

    def turns(self, arms: Arms, kind: str, members: Sequence[Arm]) -> dict[Arm, Turn]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        chunk = jax.tree.map(jax.numpy.array, self.rng.choice(arms.chunks))
        scale, turns, padding = self.rng.uniform(*SCALES), {}, []
        for arm in self.rng.sample(members, len(members)):
            size = self.rng.randrange(1, MOST_PADDING)
            padding.append(jax.device_put(np.zeros(size, np.float32)))
            fresh = partial(Turn, kind, arms, arm, chunk, scale)
            if turn := self.attempt(arm, "before", fresh):
                turns[arm] = turn
        return turns

    def interleave(
        self, turns: Mapping[Arm, Callable[[], Calls]], rounds: int, untimed: int
    ) -> None:
        """Take `rounds` turns of each, every round in another order.

        An arm that fails takes no further ones.
        """
        with collector_off():
            for number in range(-untimed, rounds):
                names = [arm for arm in turns if arm not in self.failures]
                for arm in self.rng.sample(names, len(names)):
                    self.take(arm, turns[arm], timed=number >= 0)

    def take(self, arm: Arm, turn: Callable[[], Calls], *, timed: bool) -> None:
        """Take one turn of an arm, and keep its calls unless something is wrong."""
        programs, cpu, wall = self.compiled(), CPU_CLOCK(), CLOCK()
        calls = self.attempt(arm, "while", turn)
        wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
        if timed and calls:
            if self.compiled() > programs:
                self.failures[arm] = "compiled again while it was timed"
                return
            self.wall_seconds[arm] += wall
            self.cpu_seconds[arm] += cpu
            for metric, taken in calls.items():
                self.calls[arm][metric].extend(taken)

    def compare(self, arms: Arms, turns: Mapping[Arm, Turn], baseline: Arm | None) -> None:
        """Compare what each arm has computed with what the baseline has, after as many calls.

        Without a baseline, only updates are counted: other blocks of this worker compare with it.
        """
        left = [arm for arm in turns if arm not in self.failures]
        ends = {arm: end for arm in left if (end := self.attempt(arm, "after", turns[arm].end))}
        if baseline is not None and baseline not in ends:
            why = f"the baseline failed, so nothing could be compared: {self.failures[baseline]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, end in ends.items():
            if wrong := arms.difference(end, ends[baseline] if baseline else None):
                self.failures[arm] = (
                    f"what it computed while it was timed is not what was proven: {wrong}"
                )


def sample_of(arm: Arm, metric: str, calls: Sequence[Call]) -> WorkerSample:
    """Return the sample of an arm's calls in a block."""
    seconds = seconds_of(calls)
    low, median, high = np.quantile(seconds, [QUANTILE, 0.5, 0.95]).tolist()
    return WorkerSample(
        str(arm), metric, rounded(low), len(seconds), rounded(median), rounded(high)
    )


def rounded(value: float) -> float:
    """Return a number with as many digits as a sample has."""
    return float(f"{value:.{DIGITS}g}")


def on_one_core() -> bool:
    """Tell whether this process keeps to one core."""
    return len(affinity() or ()) == 1


def seconds_of(calls: Sequence[Call]) -> list[float]:
    """Return the seconds of an arm's calls in a block; on one core, without what others took of it.

    There, a process runs or waits; what it waits longer than in the call of the block in which it
    waited least, another process had the core. On several cores threads overlap: wall time counts.
    """
    if not on_one_core():
        return [call.seconds for call in calls]
    waiting = max(0.0, min(call.idle for call in calls))
    return [call.seconds - max(0.0, call.idle - waiting) for call in calls]
