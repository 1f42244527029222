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
from bench.worker.protocol import Failed, Timed
from bench.worker.settings import affinity
from bench.worker.turns import CLOCK, CPU_CLOCK, KINDS
from common.equality import relative_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.worker.arms import Arms
    from bench.worker.turns import Call, End, Samples, Turns

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
        at: Told whose turn it is.
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
        self.samples: dict[Arm, Samples] = {}
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
        self.compare(turns, baseline=Arm(*BASELINE) if Arm(*BASELINE) in members else None)
        good = [arm for arm in turns if arm not in self.failures]
        metrics = {metric: None for arm in good for metric in self.samples.get(arm, ())}
        return Timed(
            {m: {str(arm): seconds_of(self.samples[arm][m]) for arm in good} for m in metrics},
            {str(arm): why for arm, why in self.failures.items()},
            {str(arm): self.cpu_seconds[arm] / self.wall_seconds[arm] for arm in good},
        )

    def turns(self, arms: Arms, kind: str, members: Sequence[Arm]) -> dict[Arm, Turns]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        chunk = jax.tree.map(jax.numpy.array, self.rng.choice(arms.chunks))
        found, padding = {}, []
        for arm in self.rng.sample(members, len(members)):
            self.at(arm)
            size = self.rng.randrange(1, MOST_PADDING)
            padding.append(jax.device_put(np.zeros(size, np.float32)))
            fresh = arms.prepared.get((kind, arm)) or KINDS[kind](arms, arm)
            turns = guarded(partial(fresh, chunk))
            if isinstance(turns, Failed):
                self.failures[arm] = f"{turns.failure} (before it was timed)"
            else:
                found[arm] = turns
        return found

    def interleave(
        self, turns: Mapping[Arm, Callable[[], Samples]], rounds: int, untimed: int
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

    def take(self, arm: Arm, turn: Callable[[], Samples], *, timed: bool) -> None:
        """Take one turn of an arm, and keep its samples unless something is wrong."""
        programs, cpu, wall = self.compiled(), CPU_CLOCK(), CLOCK()
        samples = guarded(turn)
        wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
        if changed := self.changes():
            self.failures[arm] = f"while it was timed it {changed}"
        elif isinstance(samples, Failed):
            self.failures[arm] = f"{samples.failure} (while it was timed)"
        elif timed and self.compiled() > programs:
            self.failures[arm] = "compiled again while it was timed"
        elif timed:
            self.wall_seconds[arm] += wall
            self.cpu_seconds[arm] += cpu
            for metric, calls in samples.items():
                self.samples.setdefault(arm, {}).setdefault(metric, []).extend(calls)

    def compare(self, turns: dict[Arm, Turns], baseline: Arm | None) -> None:
        """Compare what each arm has computed with what the baseline has, after as many calls.

        Without a baseline, only updates are counted: other blocks of this worker compare with it.
        """
        ends = {}
        for arm, own in turns.items():
            if arm not in self.failures:
                self.at(arm)
                end = guarded(own.ends)
                if isinstance(end, Failed):
                    self.failures[arm] = f"{end.failure} (after it was timed)"
                else:
                    ends[arm] = end
        if baseline is not None and baseline not in ends:
            why = f"the baseline failed, so nothing could be compared: {self.failures[baseline]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, found in ends.items():
            expected = ends[baseline] if baseline else {}
            wrong = [differs(end, expected.get(name)) for name, end in found.items()]
            if seen := "; ".join(filter(None, wrong)):
                self.failures[arm] = (
                    f"what it computed while it was timed is not what was proven: {seen}"
                )


def seconds_of(calls: Sequence[Call]) -> list[float]:
    """Return the seconds of an arm's calls in a block; on one core, without what others took of it.

    There, a process runs or waits; what it waits longer than in the call of the block in which it
    waited least, another process had the core. On several cores threads overlap: wall time counts.
    """
    if len(affinity() or ()) != 1:
        return [call.seconds for call in calls]
    own = max(0.0, min(call.idle for call in calls))
    return [call.seconds - max(0.0, call.idle - own) for call in calls]


def differs(found: End, baseline: End | None) -> str:
    """Return in words how far an arm is from the baseline; nothing where it is near enough."""
    updates = found.checkpoint.updates - STARTED
    if updates != found.calls or not updates:
        return f"{updates} updates in {found.calls} calls"
    if baseline is None:
        return ""
    assert found.calls == baseline.calls, "every arm has as many turns"
    weights = relative_norm(found.checkpoint.weights, baseline.checkpoint.weights)
    if not weights <= WEIGHTS_TOLERANCE:
        return (
            f"after {found.calls} calls its weights are off by {weights:.2g} of their norm from "
            f"the baseline's (allowed: {WEIGHTS_TOLERANCE:g})"
        )
    loss = abs(found.loss - baseline.loss)
    if not loss <= LOSS_TOLERANCE:
        return (
            f"the last loss is off by {loss:.2g} nats from the baseline's "
            f"(allowed: {LOSS_TOLERANCE:g})"
        )
    return ""
