"""The real planner over machines that are made up: how long would it take, and is anything lost?"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from bench.fleet.planner import Machine, Planner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet.plan import Comparison

OVERHEAD = 5.0
"""Seconds beside its budget that a comparison takes, to be begun and collected."""
COME, LOST, ENDED = "come", "lost", "ended"
REPAIR = 600.0
"""Seconds after which a lost machine is replaced."""


@dataclass(frozen=True)
class Simulated:
    """What came of it."""

    makespan: float
    """Seconds from the first beginning to the last end."""
    bound: float
    """What no planner beats, with machines that never fail."""
    done: int
    lost: int
    """Comparisons that were begun anew."""
    twice: int
    """Comparisons that were measured to the end more than once."""
    left: int
    """Comparisons that were never measured to the end."""

    @property
    def ratio(self) -> float:
        """The makespan beside its lower bound."""
        return self.makespan / self.bound


def simulate(
    comparisons: Sequence[Comparison], machines: int, failures: float, seed: int = 0
) -> Simulated:
    """Return what a cluster would take.

    Args:
        comparisons: What is to be measured.
        machines: How many there are, all alike.
        failures: The part of them that is lost, each at some time of the run; another one comes in
            its place later.
        seed: Of which those are, and when.
    """
    rng = random.Random(seed)  # noqa: S311 -- a simulation
    planner, done = Planner(), dict.fromkeys((c.key for c in comparisons), 0)
    planner.add(comparisons)
    times = [comparison.budget + OVERHEAD for comparison in comparisons]
    bound = max(sum(times) / machines, max(times))
    backends = frozenset(c.backend for c in comparisons)
    numbers = count()
    events: list[tuple[float, int, str, str]] = []

    def happens(at: float, what: str, name: str) -> None:
        heapq.heappush(events, (at, next(numbers), what, name))

    for number in range(machines):
        happens(0.0, COME, f"m{number}")
        if rng.random() < failures:
            happens(rng.uniform(0.0, bound), LOST, f"m{number}")
    now, end, lost = 0.0, 0.0, 0
    while planner.left and events:
        now, _, what, name = heapq.heappop(events)
        if what == COME:
            planner.come(Machine(name, backends))
        elif what == LOST:
            lost += planner.gone(name) is not None
            happens(now + REPAIR, COME, f"{name}'")
        elif name in planner.busy:  # else it was lost meanwhile
            done[planner.ended(name).key] += 1
            end = now
        for machine, comparison in planner.begun():
            happens(now + comparison.budget + OVERHEAD, ENDED, machine.name)
    return Simulated(
        makespan=end,
        bound=bound,
        done=sum(times > 0 for times in done.values()),
        lost=lost,
        twice=sum(times > 1 for times in done.values()),
        left=planner.left + len(planner.given_up),
    )
