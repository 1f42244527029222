"""A block: rounds over one set of fresh buffers, and a look at what was computed meanwhile."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.cells import BASELINE
from bench.metrics import TINY
from bench.worker import turns
from bench.worker.arms import STARTED, Arm
from bench.worker.failures import guarded
from bench.worker.protocol import Failed, Timed
from common.contract import zero_hidden
from common.equality import relative_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.worker.arms import Arms
    from bench.worker.turns import End, Sampled, Unit
    from common.contract import Chunk

WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""
WEIGHTS_TOLERANCE = 1e-5
"""Norm of the difference to the baseline's weights, relative to their norm, for each array.

On CPU it was up to 5e-7 for NumPy and 2e-7 for others, after 43 to 1003 calls at `toy`, `seed`,
`wide` and `batched`. One update left out makes 9e-5 to 9e-4.
"""
LOSS_TOLERANCE = 5e-5
"""Difference to the baseline's last loss, in nats per character: up to 5e-7 in the same blocks."""


class Block:
    """One block of turns of one kind."""

    def __init__(
        self, arms: Arms, kind: str, names: Sequence[str], seed: int, at: Callable[[Arm], None]
    ) -> None:
        self.arms, self.kind, self.at = arms, kind, at
        self.members = [Arm.of(name) for name in names]
        self.rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
        self.failures: dict[Arm, str] = {}

    def run(
        self, workload: str, rounds: int, compiled: Callable[[], int], changes: Callable[[], Any]
    ) -> Timed:
        """Take the turns, in random order, and compare where the arms have got to.

        Args:
            workload: Its name.
            rounds: Timed rounds.
            compiled: Returns how many programs the process has compiled so far.
            changes: Returns what an arm has changed that it may not, in words.
        """
        units = self.units()
        found = turns.interleave(
            units,
            rounds,
            self.rng,
            at=self.at,
            untimed=int(workload in TINY),  # where a first round is slower, and costs nothing
            compiled=compiled,
            changes=changes,
        )
        for arm, sampled in found.items():
            if sampled.failure:
                self.failures[arm] = sampled.failure
            elif sampled.compiled:
                self.failures[arm] = f"compiled {sampled.compiled} programs while it was timed"
        self.compare(units)
        return self.answer({a: s for a, s in found.items() if a not in self.failures})

    def units(self) -> dict[Arm, Unit]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        make: Callable[[Arm], Unit]
        if self.kind in turns.OF_STEPS:
            chunk: Chunk = jax.tree.map(jax.numpy.array, self.rng.choice(self.arms.chunks))
            make = partial(self.of_step, chunk)
        else:
            make = self.of_program
        units, padding = {}, []
        for arm in self.rng.sample(self.members, len(self.members)):
            self.at(arm)
            padding.append(jax.device_put(np.zeros(self.rng.randrange(1, 1 << 14), np.float32)))
            unit = guarded(partial(make, arm))
            if isinstance(unit, Failed):
                self.failures[arm] = f"{unit.failure} (before it was timed)"
            else:
                units[arm] = unit
        return units

    def of_step(self, chunk: Chunk, arm: Arm) -> Unit:
        """Return turns of calls of an arm's step, warm."""
        hidden = zero_hidden(self.arms.case.model, self.arms.case.batch)
        step = self.arms.steps[arm]
        self.arms.load(step)
        for _ in range(WARM_CALLS):
            turns.WAIT(step(hidden, chunk))
        return turns.OF_STEPS[self.kind](step, hidden, chunk, calls=WARM_CALLS)

    def of_program(self, arm: Arm) -> Unit:
        """Return turns of what compiles apart."""
        return self.arms.calls[self.kind][arm]()

    def compare(self, units: dict[Arm, Unit]) -> None:
        """Compare what each arm has computed with what the baseline has, after as many calls."""
        ends = {}
        for arm, unit in units.items():
            if arm not in self.failures:
                self.at(arm)
                end = guarded(unit.ends)
                if isinstance(end, Failed):
                    self.failures[arm] = f"{end.failure} (after it was timed)"
                else:
                    ends[arm] = end
        baseline = Arm(*BASELINE)
        if baseline not in self.members:  # other blocks of this worker compare with it
            for arm, found in ends.items():
                if seen := "; ".join(filter(None, map(miscounted, found.values()))):
                    self.failures[arm] = f"while it was timed it made {seen}"
            return
        if baseline not in ends:
            why = f"the baseline failed, so nothing could be compared: {self.failures[baseline]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, found in ends.items():
            away = [differs(found[name], end) for name, end in ends[baseline].items()]
            if seen := "; ".join(filter(None, away)):
                self.failures[arm] = (
                    f"what it computed while it was timed is not what was proven: {seen}"
                )

    def answer(self, found: dict[Arm, Sampled]) -> Timed:
        """Return what is said of the arms that count."""
        seconds: dict[str, dict[str, list[float]]] = {}
        for arm, sampled in found.items():
            for metric, values in sampled.seconds.items():
                seconds.setdefault(metric, {})[str(arm)] = values
        return Timed(
            seconds,
            failures={str(arm): why for arm, why in self.failures.items()},
            cpu_seconds={str(a): s.cpu_seconds / s.wall_seconds for a, s in found.items()},
        )


def differs(found: End, baseline: End) -> str:
    """Return in words how far an arm is from the baseline; nothing where it is near enough."""
    assert found.calls == baseline.calls, "every arm has as many turns"
    if wrong := miscounted(found):
        return wrong
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


def miscounted(found: End) -> str:
    """Return in words that an arm has not made an update in each call; nothing where it has."""
    updates = found.checkpoint.updates - STARTED
    return "" if updates == found.calls else f"{updates} updates in {found.calls} calls"
