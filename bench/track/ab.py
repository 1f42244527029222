"""A/B: two sides measured now, on this machine, their workers taking turns.

Pairs of fresh workers, one of each side and alive at the same time, measure blocks in turns, the
side that goes first drawn anew each time; between pairs, cold processes of both sides follow each
other. So a busy minute is on both sides.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scipy import special

from bench.cells import BASELINE, Cell
from bench.engine.planner import BLOCK_SD, PROCESS_SD, spread
from bench.engine.scheduler import STARVED
from bench.metrics import METRICS, Kind
from bench.track.paired import paired
from bench.track.sides import Sides, living, turns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from bench.engine.actions import Options, Steps
    from bench.engine.found import State
    from bench.engine.planner import Turn
    from bench.stats.nested import Estimate

BASE, NEW = "base", "new"
MIN_PAIRS, MOST_PAIRS = 4, 16
"""Pairs of workers; with fewer, what a process adds is mostly a guess."""
MIN_COLD, ENOUGH_COLD, MOST_COLD = 4, 8, 12
"""Pairs of cold processes of a cell; before there are enough, no further cells are taken in."""
COLD_SHARE = 0.35
"""Of the time after the proofs, what cold processes get where something warm is measured too."""
COLD_GUESS = 2.5
"""Seconds of a cold process, until one has been seen."""
TRIES = 2
"""Of a pair that did not come to its end."""
PROBES = 2
"""Blocks of each turn in the first pair; the second says what one costs."""
CHEAP, MOST_REPEATS = 0.25, 4
"""Turns whose block costs less than this part of the dearest one's get so many at most."""
DEFAULT_METRICS = frozenset(
    name
    for name, metric in METRICS.items()
    if metric.kind is Kind.COLD or metric.turn in ("step", "dispatch")
)


@dataclass
class AB:
    """The schedule of an A/B; `sides` holds what was found."""

    sides: Sides
    cells: Sequence[Cell]
    metrics: Set[str]
    pairs: int | None = None
    """Fixed number of pairs of workers; None lets the budget decide."""
    decided: Callable[[], bool] = lambda: False
    """Asked after each pair, warm or cold: whether more would be a waste."""
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.state, self.options, self.end = self.sides.state, self.sides.options, self.sides.end
        self.turns = turns_of(self.metrics, self.cells)
        self.cold = any(METRICS[name].kind is Kind.COLD for name in self.metrics)
        self.block_cost: dict[Turn, float] = {}
        self.cold_cost = 2 * COLD_GUESS
        self.made = self.sweeps = 0
        self.plan: dict[str, Any] = {}
        self.numbers = 0

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self.sides.spent

    def alive(self) -> list[Cell]:
        """Return the cells that both sides can measure."""
        base, new = (self.sides.sides[name] for name in (BASE, NEW))
        return living(new, living(base, self.cells))

    def actions(self) -> Steps[None]:
        """Yield what to do; expects the outcome of each."""
        yield from self.complete(first=True)
        if not self.alive() or self.decided():
            return
        groups = self.cold_groups()
        if groups:  # it says what one costs
            yield from self.cold_pair(groups[0][0])
        pairs, sweeps = self.planned(groups)
        order = [cell for sweep in sweeps for cell in self.rng.sample(sweep, len(sweep))]
        cold_left = len(order)
        for number, gap in enumerate(spread(order, max(1, pairs))):
            cold_left -= len(gap)
            for cell in gap:
                if self.spent + self.cold_cost > self.end and not self.options.cold_samples:
                    continue
                yield from self.cold_pair(cell)
                if self.decided():
                    return
            more = number < pairs - 1
            if more and (self.pairs or self.spent + self.least_pair() < self.end):
                yield from self.complete(left=pairs - 1 - number, cold=cold_left * self.cold_cost)
                if self.decided():
                    return

    def complete(self, *, first: bool = False, left: int = 1, cold: float = 0.0) -> Steps[None]:
        """Measure a pair, in fresh workers again where one of them died or the run was cut off."""
        for _ in range(TRIES):
            done = yield from self.pair(first=first, left=left, cold=cold)
            if done or not self.alive():
                return

    def pair(self, *, first: bool, left: int, cold: float) -> Steps[bool]:
        """Measure blocks in a fresh pair of workers; False where it did not come to its end.

        Args:
            first: It proves, and shows what things cost; without warm metrics it is the only one.
            left: Pairs to come, this one included.
            cold: Seconds that cold processes take afterwards.
        """
        self.made += 1
        workers: dict[str, int] = {}
        for _ in range(2):  # where a side has lost arms, both begin anew without them
            cells = self.alive()
            for name in self.rng.sample((BASE, NEW), 2):
                process = yield from self.sides.up(name, cells)
                if process is not None:
                    workers[name] = process
            if len(workers) == 2 and self.alive() == cells:
                break
            for name, process in workers.items():
                yield from self.sides.close(process, name)
            workers = {}
            if not first or not self.alive():
                return False
        if len(workers) < 2:
            return False
        each = self.cycle() if not first else 0.0
        until = self.spent + max(0.0, self.end - self.spent - cold - (left - 1) * self.least_pair())
        until = self.spent + (until - self.spent) / left
        count = 0
        while self.turns:
            done = count >= PROBES if first else count >= 1 and self.spent + each / 2 > until
            if self.options.blocks is not None:
                done = count >= self.options.blocks
            if done:
                break
            turns = [turn for turn in self.turns for _ in range(self.blocks_of(turn))]
            for turn in self.rng.sample(turns, len(turns)):
                alive = yield from self.turn(turn, workers)
                if not alive:
                    return False
            count += 1
        for name, process in workers.items():
            yield from self.sides.close(process, name)
        return True

    def turn(self, turn: Turn, workers: Mapping[str, int]) -> Steps[bool]:
        """Measure one block on each side; False where a worker died of it."""
        self.numbers += 1
        before, seed = self.spent, self.rng.getrandbits(32)
        for name in self.rng.sample((BASE, NEW), 2):
            alive = yield from self.sides.block(
                workers[name], name, turn, self.numbers, self.made, seed
            )
            if not alive:
                others = [other for other in workers if other != name]
                for other in others:
                    yield from self.sides.close(workers[other], other)
                return False
        self.block_cost[turn] = self.spent - before
        return True

    def cold_pair(self, cell: Cell) -> Steps[None]:
        """Measure one cold process of a cell on each side."""
        if cell not in self.alive():
            return
        self.sweeps += 1
        before, number = self.spent, self.sweeps
        for name in self.rng.sample((BASE, NEW), 2):
            yield from self.sides.cold(name, cell, number)
        self.cold_cost = self.spent - before

    def cycle(self) -> float:
        """Return the seconds of a cycle: the blocks of all turns, on both sides."""
        return sum(self.block_cost.get(t, 0.0) * self.blocks_of(t) for t in self.turns)

    def blocks_of(self, turn: Turn) -> int:
        """Return how many blocks of a turn are in a cycle: several of one that costs little."""
        cost, most = self.block_cost.get(turn), max(self.block_cost.values(), default=0.0)
        if not cost or self.options.blocks is not None:
            return 1
        return max(1, min(MOST_REPEATS, round(CHEAP * most / cost)))

    def least_pair(self) -> float:
        """Return the seconds of a pair of workers with one block of each turn."""
        return sum(side.up_seconds for side in self.sides.sides.values()) + self.cycle()

    def planned(self, groups: Sequence[Sequence[Cell]]) -> tuple[int, list[list[Cell]]]:
        """Share out what is left; return the number of pairs in all, and the cold sweeps.

        Args:
            groups: Cells of cold processes, by what is measured first.
        """
        left = max(0.0, self.end - self.spent)
        allowed = left * (COLD_SHARE if self.turns else 1.0)
        chosen: list[Cell] = []
        for group in groups:
            fewest = ENOUGH_COLD if chosen else MIN_COLD
            if (len(chosen) + len(group)) * fewest * self.cold_cost <= allowed:
                chosen += group
        count = 0
        if chosen:
            count = min(MOST_COLD, int(allowed / (len(chosen) * self.cold_cost)))
        if self.options.cold_samples:
            chosen, count = [c for g in groups for c in g], self.options.cold_samples
        pairs = 1
        if self.turns:
            seconds = left - count * len(chosen) * self.cold_cost
            pairs = self.pairs or 1 + pair_count(seconds, self.least_pair(), self.cycle())
        self.plan = {"pairs": pairs, "cold_pairs_per_cell": count, "cold_cells": len(chosen)}
        return pairs, [chosen] * count

    def cold_groups(self) -> list[list[Cell]]:
        """Return the cells by what is measured first: pure styles, each workload in its order."""
        if not self.cold:
            return []
        alive = self.alive()
        workloads = list(dict.fromkeys(cell.workload for cell in alive))
        return [
            group
            for pure in (True, False)
            for workload in workloads
            if (group := [c for c in alive if c.workload == workload and is_pure(c) == pure])
        ]

    def estimates(self) -> dict[tuple[Cell, str], Estimate]:
        """Return each cell's ratio, new to base, of each metric that has enough pairs."""
        found = paired(self.found(BASE), self.found(NEW), self.cells)
        fewest = 2 if self.pairs or self.options.cold_samples else min(MIN_PAIRS, MIN_COLD)
        return {
            (cell, metric): estimate
            for (cell, metric), estimate in found.items()
            if metric in self.metrics and estimate.processes >= fewest
        }

    def missing(self) -> dict[tuple[Cell, str], str]:
        """Return why cells have no ratio of a metric."""
        have = self.estimates()
        out = {}
        for cell in self.cells:
            for metric in self.metrics:
                if METRICS[metric].applies(cell) and (cell, metric) not in have:
                    why = [self.found(name).cells[cell].failure for name in (BASE, NEW)]
                    cold = METRICS[metric].kind is Kind.COLD
                    if cold:
                        why += [s.cold_failures.get(cell) for s in self.sides.sides.values()]
                    option = "--cold-samples" if cold else "--pairs"
                    if (self.options.cold_samples if cold else self.pairs) == 1:
                        why.append(f"one pair says nothing of its doubt: give {option} 2 or more")
                    out[cell, metric] = next(filter(None, why), STARVED)
        return out

    def found(self, name: str) -> State:
        """Return what was found on a side."""
        return self.sides.sides[name].state


def is_pure(cell: Cell) -> bool:
    """Tell whether a cell is of a style that every entrant has."""
    return cell.style == BASELINE[1]


def pair_count(seconds: float, least: float, cycle: float) -> int:
    """Return how many pairs of workers give the narrowest interval in `seconds`.

    Args:
        seconds: What is left for them.
        least: Seconds of a pair with one block of each turn.
        cycle: Seconds of a further block of each turn.
    """

    def half_width(pairs: int) -> float:
        each = seconds / pairs
        if each < least:
            return math.inf
        blocks = 1 + (each - least) / cycle if cycle else 1.0
        error = math.sqrt((2 * PROCESS_SD**2 + 2 * BLOCK_SD**2 / blocks) / (pairs + 1))
        return float(special.stdtrit(pairs, 0.999)) * error

    best = min(range(1, MOST_PAIRS), key=half_width)
    return best if half_width(best) < math.inf else int(seconds // least) if least else 0


def schedule(
    cells: Sequence[Cell],
    metrics: Set[str],
    options: Options,
    before: float = 0.0,
    *,
    pairs: int | None = None,
) -> AB:
    """Return the schedule of an A/B of two sides that both offer these cells."""
    rng = random.Random(options.seed)  # noqa: S311 -- an order is no secret
    sides = Sides({BASE: cells, NEW: cells}, options, rng, before)
    return AB(sides, cells, metrics, pairs, rng=rng)
