"""Who measures what: pure, told of machines that come and go and of what has ended.

One comparison owns a whole machine while it is measured. The longest are begun first, so that none
is left to be waited for alone. What a machine takes with it when it is lost is begun anew, as a
whole and elsewhere.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.fleet.plan import Comparison

ATTEMPTS = 5
"""Machines that may be lost under a comparison before it is given up: perhaps it is its doing."""


class Machine(NamedTuple):
    """One machine, as whoever holds it names it."""

    name: str
    backends: frozenset[str] = frozenset({"cpu"})


@dataclass
class Planner:
    """The comparisons that are left, and the machines that there are."""

    waiting: dict[str, list[tuple[float, int, Comparison]]] = field(default_factory=dict)
    """By backend: the longest first."""
    free: dict[str, Machine] = field(default_factory=dict)
    busy: dict[str, tuple[Machine, Comparison]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    """By comparison: machines that were lost under it."""
    last: dict[str, str] = field(default_factory=dict)
    """By comparison: the machine that was lost under it last, which it does not go back to."""
    given_up: list[Comparison] = field(default_factory=list)
    number: int = 0

    def add(self, comparisons: Iterable[Comparison]) -> None:
        """Take in what is to be measured."""
        for comparison in comparisons:
            queue = self.waiting.setdefault(comparison.backend, [])
            heapq.heappush(queue, (-comparison.budget, self.number, comparison))
            self.number += 1

    def come(self, machine: Machine) -> None:
        """A machine is there, and free."""
        if machine.name not in self.busy:
            self.free[machine.name] = machine

    def gone(self, name: str) -> Comparison | None:
        """A machine is lost; return the comparison that has to be begun anew, if one has."""
        self.free.pop(name, None)
        if name not in self.busy:
            return None
        comparison = self.busy.pop(name)[1]
        count = self.lost[comparison.key] = self.lost.get(comparison.key, 0) + 1
        if count >= ATTEMPTS:
            self.given_up.append(comparison)
            return None
        self.last[comparison.key] = name
        self.add([comparison])
        return comparison

    def ended(self, name: str) -> Comparison:
        """A machine has come to the end of its comparison; it is free again."""
        machine, comparison = self.busy.pop(name)
        self.free[name] = machine
        return comparison

    def begun(self) -> list[tuple[Machine, Comparison]]:
        """Return what is begun now, and where; those machines are busy."""
        found = []
        for machine in list(self.free.values()):
            comparison = self.next_for(machine)
            if comparison is not None:
                del self.free[machine.name]
                self.busy[machine.name] = machine, comparison
                found.append((machine, comparison))
        return found

    def next_for(self, machine: Machine) -> Comparison | None:
        """Take the longest comparison that a machine can do, and is not kept from."""
        queues = [q for backend, q in self.waiting.items() if q and backend in machine.backends]
        for queue in sorted(queues, key=lambda queue: queue[0]):
            kept = []
            found = None
            while queue and found is None:
                entry = heapq.heappop(queue)
                if self.last.get(entry[2].key) == machine.name and self.others(machine, entry[2]):
                    kept.append(entry)
                else:
                    found = entry[2]
            for entry in kept:
                heapq.heappush(queue, entry)
            if found is not None:
                return found
        return None

    def others(self, machine: Machine, comparison: Comparison) -> bool:
        """Tell whether another machine could do a comparison, now or later."""
        there = [*self.free.values(), *(busy for busy, _ in self.busy.values())]
        return any(
            other.name != machine.name and comparison.backend in other.backends for other in there
        )

    @property
    def left(self) -> int:
        """How many comparisons wait or are being measured."""
        return sum(map(len, self.waiting.values())) + len(self.busy)

    def unservable(self) -> set[str]:
        """Return the backends that are waited for, and that no machine has."""
        there = [m.backends for m in self.free.values()] + [
            m.backends for m, _ in self.busy.values()
        ]
        offered = frozenset[str]().union(*there)
        return {backend for backend, queue in self.waiting.items() if queue} - offered
