"""Plans of an A/B and of a history: sides whose workers take turns on the same cores.

Two workers, one of each side, live at the same time on one core and measure blocks in turns, the
side that goes first drawn anew each time; as many such pairs at a time as there are lanes. Cold
processes of both sides follow each other. So a busy minute is on both sides.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.engine.actions import ALL, Turn
from bench.engine.environment_plan import STARVED
from bench.engine.planner import MIN_COLD, MOST_COLD, Guess, cold_count
from bench.engine.scheduler import Scheduler, Visit
from bench.engine.sides import BASELINE_ARM, Side, with_references
from bench.metrics import METRICS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from bench.engine.actions import Cores, Lanes, Options, Phases, Steps
    from bench.engine.lanes import Supply
    from bench.engine.state import State

BASE, NEW, REFERENCE = "base", "new", "reference"
COLD_SHARE = 0.35
"""Of the time after the proofs, what cold processes get where something warm is measured too."""
EQUAL_TO_OPENING, LEAST, MOST = 1.0, 2.0, 10.0
"""Seconds of blocks in a pair for each second that opening it takes, and at least and at most:
what a pair of processes adds is most of the noise, so many short pairs beat few long ones."""
TURNS = ("step", "host_cost")
"""Kinds of turns that sides are compared by: what others need is compiled apart."""
DEFAULT_METRICS = frozenset(
    name for name, metric in METRICS.items() if metric.kind is Kind.COLD or metric.turn in TURNS
)
LEAST_SWEEPS, MOST_SWEEPS = 2, 8
"""Of a history: with one visit of each day, nobody could tell a change from noise."""
TRIES = 2
"""Of a visit whose workers did not come to their end, beside the first."""
COLD_TWICE = 2
"""Cold processes of the reference's baseline in a visit, at each workload; of the day's own
baseline too, where no other cell has any."""


def turns_of(metrics: Set[str], cells: Sequence[Cell]) -> dict[Turn, float]:
    """Return the turns that metrics need, in an order that is the same in every process."""
    return {
        Turn(cell.workload, METRICS[name].turn): METRICS[name].weight
        for cell in cells
        for name in METRICS
        if name in metrics
        and METRICS[name].kind is Kind.WARM
        and METRICS[name].turn in TURNS
        and METRICS[name].applies(cell)
    }


def sides_of(cells: Mapping[str, Sequence[Cell]]) -> dict[str, Side]:
    """Return sides that have measured nothing: each has its cells and their baselines."""
    return {
        name: Side.of(name, next(c.backend for c in own), with_references(own, control=False))
        for name, own in cells.items()
    }


def unasked(cells: Sequence[Cell]) -> frozenset[str]:
    """Return the baseline's arm, where it is not among the cells that were asked for."""
    asked = any(cell[:2] == BASELINE for cell in cells)
    return frozenset() if asked else frozenset([BASELINE_ARM])


@dataclass
class Pairs:
    """What an A/B and a history share: visits of two sides, and cold processes beside them."""

    work: Scheduler
    turns: Mapping[Turn, float]
    lanes: Sequence[Cores]
    workloads: tuple[str, ...]
    """To prove, where there are no turns."""
    beside: frozenset[str] = frozenset()
    """The baseline, where nobody asked for it."""

    @property
    def options(self) -> Options:
        """How much is measured."""
        return self.work.options

    def opening(self, names: Sequence[str]) -> float:
        """Return about how many seconds it takes to open workers of some sides."""
        return self.work.open_cost(names, {turn.workload for turn in self.turns})

    def least(self, names: Sequence[str]) -> float:
        """Return the seconds of one block of each turn, on all of some sides."""
        return sum(
            self.work.block_cost(
                names, turn, [a for n, t, a in self.work.cost if n == names[0] and t == turn]
            )
            for turn in self.turns
        )

    def blocks_seconds(self, names: Sequence[str]) -> float:
        """Return the seconds of blocks in a pair."""
        wanted = max(LEAST, min(MOST, EQUAL_TO_OPENING * self.opening(names)))
        return max(wanted, self.least(names))

    def sitting(
        self, pairs: Sequence[tuple[tuple[str, str], int]], seconds: float
    ) -> Phases[list[int]]:
        """Open pairs of workers at the same time, then measure in all of them at the same time.

        So that no pair is timed while another one compiles.

        Args:
            pairs: Sides and number of each; at most one for each lane.
            seconds: Of blocks.

        Returns:
            The numbers of pairs that came to their end.
        """
        waiting = list(pairs)
        opened: dict[Cores, tuple[Visit, dict[str, int]]] = {}
        done: list[int] = []

        def begin(cores: Cores) -> Steps[Any] | None:
            return open_pair(cores, *waiting.pop(0)) if waiting and cores not in opened else None

        def open_pair(cores: Cores, names: tuple[str, str], number: int) -> Steps[None]:
            workloads = () if self.turns else self.workloads
            visit = Visit(
                names, self.turns, cores, math.inf, workloads, beside=self.beside, number=number
            )
            opened[cores] = visit, {}
            opened[cores] = visit, (yield from self.work.begin(visit))

        def go_on(cores: Cores) -> Steps[Any] | None:
            return measure_pair(*opened.pop(cores)) if cores in opened else None

        def measure_pair(visit: Visit, workers: dict[str, int]) -> Steps[None]:
            end = math.inf if self.options.fixed else self.work.now + seconds
            if workers and (yield from self.work.measured(visit._replace(end=end), workers)):
                done.append(visit.number)

        yield from self.work.phase(self.lanes, begin)
        yield from self.work.phase(self.lanes, go_on)
        return done


@dataclass
class AB:
    """The plan of an A/B; `sides` holds what was found."""

    cells: Sequence[Cell]
    metrics: Set[str]
    options: Options
    before: float = 0.0
    lanes: Sequence[Cores] = ((),)
    pairs: int | None = None
    """Fixed number of pairs of workers; None lets the budget decide."""
    decided: Callable[[], bool] = lambda: False
    """Asked before each pair, warm or cold: whether more would be a waste."""
    plan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sides = sides_of({BASE: self.cells, NEW: self.cells})
        self.work = Scheduler(self.sides, self.options, self.before)
        self.spent, self.end = self.work.spent, self.work.end
        lanes = [()] if self.options.cores == ALL else self.lanes
        turns = turns_of(self.metrics, self.cells)
        workloads = tuple(dict.fromkeys(cell.workload for cell in self.cells))
        self.measure = Pairs(self.work, turns, lanes, workloads, unasked(self.cells))
        self.numbers = self.made = 0
        self.cold_left: list[Cell] = []

    def found(self, name: str) -> State:
        """Return what was found on a side."""
        return self.sides[name].state

    def alive(self) -> list[Cell]:
        """Return the cells that both sides can measure."""
        new = set(self.sides[NEW].alive())
        base = set(self.sides[BASE].alive())
        return [cell for cell in self.cells if cell in new and cell in base]

    def actions(self) -> Lanes:
        """Yield what to do; expects the outcome of each."""
        for _ in range(3):  # a pair that dies while it is proven is followed by another one
            yield from self.pairs_of_workers(LEAST)
            if self.made or not self.goes_on():
                break
        if not self.made or self.decided():
            return
        self.plan_cold()
        while self.goes_on() and not self.decided():
            seconds = self.seconds()
            if self.cold_left and (seconds is None or self.cold_behind()):
                yield from self.work.phase(self.measure.lanes, self.cold_supply())
            elif seconds is not None:
                yield from self.pairs_of_workers(seconds)
            else:
                return

    def goes_on(self) -> bool:
        """Tell whether anything can still be measured on both sides."""
        return bool(self.alive()) and not any(side.given_up for side in self.sides.values())

    def pairs_of_workers(self, seconds: float) -> Lanes:
        """Measure as many pairs of workers as there are lanes."""
        count = len(self.measure.lanes)
        if self.pairs is not None:
            count = min(count, self.pairs - self.made)
        pairs = [((BASE, NEW), self.next_number()) for _ in range(count)]
        done = yield from self.measure.sitting(pairs, seconds)
        self.made += len(done)

    def next_number(self) -> int:
        """Return the number of a new pair."""
        self.numbers += 1
        return self.numbers

    def seconds(self) -> float | None:
        """Return the seconds of blocks in the next pairs; None where there is no time for them."""
        if not self.measure.turns or (self.pairs is not None and self.made >= self.pairs):
            return None
        names = (BASE, NEW)
        opening, least = self.measure.opening(names), self.measure.least(names)
        usual = self.measure.blocks_seconds(names)
        left = self.end - self.work.now - self.cold_seconds() / len(self.measure.lanes)
        if self.pairs is None and not self.options.fixed and left < opening + least:
            return None
        last = left < 2 * (opening + usual)  # there is no time for another one after this
        return max(least, left - opening) if last else usual

    def cold_supply(self) -> Supply:
        """Return what gives each lane one pair of cold processes."""
        jobs = [self.cold_left.pop() for _ in self.measure.lanes if self.cold_left]

        def supply(cores: Cores) -> Steps[Any] | None:
            if not jobs:
                return None
            return self.work.cold((BASE, NEW), jobs.pop(), cores, self.next_number())

        return supply

    def plan_cold(self) -> None:
        """Choose how many cold processes each cell gets, and shuffle them sweep by sweep."""
        if not any(METRICS[name].kind is Kind.COLD for name in self.metrics):
            return
        alive, lanes = self.alive(), len(self.measure.lanes)
        left = max(0.0, self.end - self.work.now)
        allowed = left * (COLD_SHARE if self.measure.turns else 0.97)
        each = 2 * self.cold_guess() / lanes
        chosen: list[Cell] = []
        count = 0
        groups = [
            [c for c in alive if c.workload == w and (c.style == BASELINE[1]) == pure]
            for pure in (True, False)
            for w in dict.fromkeys(cell.workload for cell in alive)
        ]
        for group in filter(None, groups):
            fits = cold_count(allowed, (len(chosen) + len(group)) * each, self.options.cold_samples)
            if fits and (self.options.cold_samples or fits >= min(MIN_COLD, MOST_COLD)):
                chosen, count = chosen + group, fits
        rng = self.work.rng
        self.cold_left = [c for _ in range(count) for c in rng.sample(chosen, len(chosen))]
        self.cold_all = max(1, len(self.cold_left))
        self.cold_begun = self.work.now
        self.plan |= {"cold_pairs_per_cell": count, "cold_cells": len(chosen)}

    cold_all: int = field(default=1, init=False)
    cold_begun: float = field(default=0.0, init=False)

    def cold_guess(self) -> float:
        """Return about what one cold process takes."""
        return max([*self.work.cold_cost.values(), 0.0]) or Guess().cold

    def cold_seconds(self) -> float:
        """Return about what all cold processes to come take."""
        return 2 * len(self.cold_left) * self.cold_guess()

    def cold_behind(self) -> bool:
        """Tell whether cold processes are behind their share of the time that has gone."""
        whole = max(1e-9, self.end - self.cold_begun)
        return 1 - len(self.cold_left) / self.cold_all <= (self.work.now - self.cold_begun) / whole

    def missing(self) -> dict[tuple[Cell, str], str]:
        """Return why cells that have no samples on both sides have none."""
        out = {}
        for cell in self.cells:
            rows = [self.found(name).cells[cell] for name in (BASE, NEW)]
            for metric in self.metrics:
                if METRICS[metric].applies(cell) and not all(r.blocks.get(metric) for r in rows):
                    failures = [row.failure for row in rows if row.failure]
                    out[cell, metric] = failures[0] if failures else STARVED
        return out


@dataclass
class History:
    """The plan of a history: each day's stack in turns with the stack of reference.

    A sweep visits each day once, in random order.
    """

    days: Sequence[str]
    """Names of sides, in the order of time; each is another stack."""
    cells: Mapping[str, Sequence[Cell]]
    """What each side has."""
    metrics: Set[str]
    options: Options
    before: float = 0.0
    lanes: Sequence[Cores] = ((),)
    sweeps: int | None = None
    """Fixed number of sweeps; None lets the budget decide."""
    visits: list[tuple[int, str]] = field(default_factory=list)
    """Sweep and day of each visit that came to its end."""
    visit_of: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Sweep and day, by number of a pair of workers or of a cold process."""
    plan: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sides = sides_of(self.cells)
        self.work = Scheduler(self.sides, self.options, self.before)
        self.spent, self.end = self.work.spent, self.work.end
        lanes = [()] if self.options.cores == ALL else self.lanes
        turns = turns_of(self.metrics, self.cells[REFERENCE])
        beside = unasked(self.cells[REFERENCE])
        self.measure = Pairs(self.work, turns, lanes, (), beside)
        self.is_cold = any(METRICS[name].kind is Kind.COLD for name in self.metrics)
        self.chosen = self.levels()[0]
        """Cells of cold processes; of a day, those that it has."""
        self.number, self.visit_cost = 0, 0.0
        self.queue: list[tuple[int, str]] = []
        self.tries: Counter[tuple[int, str]] = Counter()
        self.swept = 0

    def levels(self) -> list[list[Cell]]:
        """Return what cold processes are measured of, from all there is to nothing."""
        every = list(self.cells[REFERENCE]) if self.is_cold else []
        first = [cell for cell in every if cell.workload == every[0].workload]
        return [every, first, [cell for cell in first if cell[:2] == BASELINE], []]

    def actions(self) -> Lanes:
        """Yield what to do; expects the outcome of each."""
        while True:
            visits = list(filter(None, [self.next_visit() for _ in self.measure.lanes]))
            if not visits:
                return
            yield from self.visit(visits)

    def next_visit(self) -> tuple[int, str] | None:
        """Return the sweep and the day of the next visit; None where there is no time for it."""
        lanes = len(self.measure.lanes)
        if not self.queue:
            whole = len(self.days) * self.visit_cost / lanes
            enough = self.swept >= LEAST_SWEEPS and self.work.now + whole > self.end
            if self.swept >= (self.sweeps or MOST_SWEEPS) or (self.sweeps is None and enough):
                return None
            self.swept += 1
            order = self.work.rng.sample(list(self.days), len(self.days))
            self.queue = [(self.swept, day) for day in order]
        if self.sweeps is None and self.work.now + self.visit_cost / 2 > self.end:
            return None
        return self.queue.pop(0)

    def visit(self, visits: Sequence[tuple[int, str]]) -> Lanes:
        """Measure days beside the reference, as many at the same time as there are lanes."""
        before = self.work.now
        self.choose(len(self.queue) + 1 + max(0, LEAST_SWEEPS - self.swept) * len(self.days))
        done = dict.fromkeys(range(len(visits)), False)
        if self.measure.turns:
            numbers = {}
            for i, (sweep, day) in enumerate(visits):
                self.number += 1
                numbers[self.number] = i
                self.visit_of[self.number] = (sweep, day)
            pairs = [((visits[i][1], REFERENCE), number) for number, i in numbers.items()]
            seconds = self.seconds_of_blocks((visits[0][1], REFERENCE))
            whole = yield from self.measure.sitting(pairs, seconds)
            done |= {numbers[number]: True for number in whole}
        waiting = list(visits)

        def supply(cores: Cores) -> Steps[Any] | None:
            return self.cold(*waiting.pop(0), cores) if waiting else None

        yield from self.work.phase(self.measure.lanes, supply)
        self.visit_cost = self.work.now - before
        for i, ended in done.items():
            sweep, day = visits[i]
            tries, lost = self.tries[sweep, day], self.sides[day].given_up
            if not ended and self.measure.turns and tries < TRIES and not lost:
                self.tries[sweep, day] += 1  # its workers died, or the run was cut off
                self.queue.insert(0, (sweep, day))
            elif ended or self.is_cold:
                self.visits.append((sweep, day))

    def seconds_of_blocks(self, names: Sequence[str]) -> float:
        """Return the seconds of blocks in a visit: what a pair has, or less where days are many."""
        left = max(0.0, self.end - self.work.now)
        visits = len(self.queue) + 1 + max(0, LEAST_SWEEPS - self.swept) * len(self.days)
        fair = left * len(self.measure.lanes) / visits - self.measure.opening(names)
        fair -= self.cold_count(self.chosen) * self.cold_guess()
        return max(self.measure.least(names), min(self.measure.blocks_seconds(names), fair))

    def choose(self, visits: int) -> None:
        """Choose once, when a visit has been seen, what cold processes there is time for."""
        if self.plan or not self.visits or not self.is_cold:
            return
        each = max(0.0, self.end - self.work.now) * len(self.measure.lanes) / visits
        names = (self.days[0], REFERENCE)
        fixed = (
            (self.measure.opening(names) + self.measure.least(names)) if self.measure.turns else 0
        )
        self.chosen = next(
            level
            for level in self.levels()
            if not level or fixed + self.cold_count(level) * self.cold_guess() <= each
        )
        self.plan = {"cold_cells": [str(c) for c in self.chosen], "seconds_a_visit": each}

    def cold_count(self, cells: Sequence[Cell]) -> int:
        """Return the cold processes of a visit, where the day has all of the cells."""
        workloads = {cell.workload for cell in cells}
        alone = len(cells) == len(workloads)
        return len(cells) * (COLD_TWICE if alone else 1) + len(workloads) * COLD_TWICE

    def cold_guess(self) -> float:
        """Return about what one cold process takes."""
        return max([*self.work.cold_cost.values(), 0.0]) or Guess().cold

    def cold(self, sweep: int, day: str, cores: Cores) -> Steps[None]:
        """Measure cold processes of a day's cells, those of the reference's baseline among them."""
        jobs: list[tuple[str, Cell]] = []
        alive = set(self.sides[day].alive()) & set(self.cells[day])
        for workload in dict.fromkeys(cell.workload for cell in self.chosen):
            here = [c for c in self.chosen if c.workload == workload and c in alive]
            if here:
                base = Cell(*BASELINE, workload, here[0].backend)
                often = COLD_TWICE if len(here) == 1 else 1
                jobs += [(day, cell) for cell in here] * often + [(REFERENCE, base)] * COLD_TWICE
        for name, cell in self.work.rng.sample(jobs, len(jobs)):
            self.number += 1
            self.visit_of[self.number] = (sweep, day)
            yield from self.work.cold([name], cell, cores, self.number)
