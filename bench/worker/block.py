"""A block: rounds over one set of fresh buffers, and a look at what was computed meanwhile."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from bench.cells import BASELINE, Arm
from bench.worker.arms import STARTED, guarded
from bench.worker.counts import collector_off
from bench.worker.protocol import Failed, Sample, Timed
from bench.worker.settings import affinity
from bench.worker.turns import CLOCK, CPU_CLOCK, fresh_turn
from common.equality import relative_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.worker.arms import Arms
    from bench.worker.turns import Call, Calls, End, StepTurn

QUANTILE = 0.1
"""Quantile of an arm's calls in a block that is its datum. Noise only ever adds time, so a low
quantile varies far less than a median; A/A runs chose this one, see docs/measuring.md."""
DIGITS = 7
"""Significant digits of a sample: more would be noise."""
WEIGHTS_TOLERANCE = 1e-5
"""Norm of the difference to the baseline's weights, relative to their norm, for each array.

On CPU it was up to 5e-7 for NumPy and 2e-7 for others, after 43 to 1003 calls at `toy`, `seed`,
`wide` and `batched`. One update left out makes 9e-5 to 9e-4.
"""
LOSS_TOLERANCE = 5e-5
"""Difference to the baseline's last loss, in nats per character: up to 5e-7 in the same blocks."""
MOST_PADDING = 1 << 14
"""Numbers between the buffers of two arms, at most: they lie at other offsets in each block."""


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
            kind: A row of `bench.worker.turns.KINDS`.
            members: Arms that take part.
            rounds: Timed rounds.
            untimed: Rounds that come in addition, first; their samples are dropped.
        """
        turns = self.turns(arms, kind, members)
        self.interleave(turns, rounds, untimed)
        self.compare(turns, baseline=BASELINE if BASELINE in members else None)
        good = [arm for arm in turns if arm not in self.failures]
        samples = [
            sample_of(arm, metric, calls)
            for arm in good
            for metric, calls in self.calls[arm].items()
        ]
        if kind == "step" and not on_one_core():
            samples += [
                Sample(str(arm), "cores_used", rounded(self.cpu_seconds[arm] / seconds))
                for arm in good
                if (seconds := self.wall_seconds[arm]) and self.cpu_seconds[arm] > 0
            ]
        return Timed(
            samples,
            {str(arm): why for arm, why in self.failures.items()},
            {str(arm): self.wall_seconds[arm] for arm in good},
        )

    def turns(self, arms: Arms, kind: str, members: Sequence[Arm]) -> dict[Arm, StepTurn]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        chunk = jax.tree.map(jax.numpy.array, self.rng.choice(arms.chunks))
        ready, padding = {}, []
        for arm in self.rng.sample(members, len(members)):
            self.at(arm)
            size = self.rng.randrange(1, MOST_PADDING)
            padding.append(jax.device_put(np.zeros(size, np.float32)))
            turn = guarded(partial(fresh_turn, kind, arms, arm, chunk))
            if isinstance(turn, Failed):
                self.failures[arm] = f"{turn.failure} (before it was timed)"
            else:
                ready[arm] = turn
        return ready

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
                    self.at(arm)
                    self.take(arm, turns[arm], timed=number >= 0)

    def take(self, arm: Arm, turn: Callable[[], Calls], *, timed: bool) -> None:
        """Take one turn of an arm, and keep its calls unless something is wrong."""
        programs, cpu, wall = self.compiled(), CPU_CLOCK(), CLOCK()
        calls = guarded(turn)
        wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
        if changed := self.changes():
            self.failures[arm] = f"while it was timed it {changed}"
        elif isinstance(calls, Failed):
            self.failures[arm] = f"{calls.failure} (while it was timed)"
        elif timed and self.compiled() > programs:
            self.failures[arm] = "compiled again while it was timed"
        elif timed:
            self.wall_seconds[arm] += wall
            self.cpu_seconds[arm] += cpu
            for metric, taken in calls.items():
                self.calls[arm][metric].extend(taken)

    def compare(self, turns: Mapping[Arm, StepTurn], baseline: Arm | None) -> None:
        """Compare what each arm has computed with what the baseline has, after as many calls.

        Without a baseline, only updates are counted: other blocks of this worker compare with it.
        """
        ends: dict[Arm, End] = {}
        for arm, turn in turns.items():
            if arm not in self.failures:
                self.at(arm)
                end = guarded(turn.end)
                if isinstance(end, Failed):
                    self.failures[arm] = f"{end.failure} (after it was timed)"
                else:
                    ends[arm] = end
        if baseline is not None and baseline not in ends:
            why = f"the baseline failed, so nothing could be compared: {self.failures[baseline]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, end in ends.items():
            if wrong := difference(end, ends[baseline] if baseline else None):
                self.failures[arm] = (
                    f"what it computed while it was timed is not what was proven: {wrong}"
                )


def sample_of(arm: Arm, metric: str, calls: Sequence[Call]) -> Sample:
    """Return the sample of an arm's calls in a block."""
    seconds = seconds_of(calls)
    low, median, high = np.quantile(seconds, [QUANTILE, 0.5, 0.95]).tolist()
    return Sample(str(arm), metric, rounded(low), len(seconds), rounded(median), rounded(high))


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


def difference(end: End, baseline: End | None) -> str:
    """Return in words how far an arm is from the baseline; nothing where it is near enough."""
    updates = end.checkpoint.updates - STARTED
    if updates != end.calls or not updates:
        return f"{updates} updates in {end.calls} calls"
    if baseline is None:
        return ""
    assert end.calls == baseline.calls, "every arm has as many turns"
    weights = relative_norm(end.checkpoint.weights, baseline.checkpoint.weights)
    if not weights <= WEIGHTS_TOLERANCE:
        return (
            f"after {end.calls} calls its weights are off by {weights:.2g} of their norm from "
            f"the baseline's (allowed: {WEIGHTS_TOLERANCE:g})"
        )
    loss = abs(end.loss - baseline.loss)
    if not loss <= LOSS_TOLERANCE:
        return (
            f"the last loss is off by {loss:.2g} nats from the baseline's "
            f"(allowed: {LOSS_TOLERANCE:g})"
        )
    return ""
