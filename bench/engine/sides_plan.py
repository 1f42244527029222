"""Plans of an A/B and of a history: sides whose workers take turns on the same cores.

Two workers, one of each side, live at the same time on one core and measure blocks in turns, the
side that goes first drawn anew each time; as many such pairs at a time as there are lanes. Cold
processes of both sides follow each other. So a busy minute is on both sides.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.engine.actions import ALL
from bench.engine.planner import cold_cells
from bench.engine.scheduler import Scheduler, Visit
from bench.engine.state import Side, with_references
from bench.metrics import METRICS, Kind
from bench.samples import BASELINE_ARM, STARVED, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence, Set

    from bench.engine.actions import Lanes, Options, Phases, Steps
    from bench.engine.scheduler import Job
    from bench.samples import Cores, State

BASE, NEW, REFERENCE = "base", "new", "reference"
COLD_SHARE = 0.35
"""Of the time after the proofs, what cold processes get where something warm is measured too."""
COLD_ALONE = 0.97
"""The same share, where nothing warm is."""
EQUAL_TO_OPENING, LEAST, MOST = 1.0, 2.0, 10.0
"""Seconds of blocks in a pair for each second that opening it takes, and at least and at most."""
TURNS = ("step", "host_cost")
"""Kinds of turns that sides are compared by: what others need is compiled apart."""
DEFAULT_METRICS = frozenset(
    name for name, metric in METRICS.items() if metric.kind is Kind.COLD or metric.turn in TURNS
)
LEAST_SWEEPS, MOST_SWEEPS = 2, 8
"""Of a history: with one visit of each day, a change could not be told from noise."""
TRIES = 3
"""Of a pair whose workers did not come to their end."""
COLD_TWICE = 2
"""Cold processes of the reference's baseline in a visit, at each workload; of the day's own
baseline too, where no other cell has any."""


class SidesPlan:
    """What an A/B and a history share: pairs of workers, and cold processes beside them."""

    def __init__(
        self,
        cells: Mapping[str, Sequence[Cell]],
        asked: Sequence[Cell],
        metrics: Set[str],
        options: Options,
        before: float,
        lanes: Sequence[Cores],
    ) -> None:
        """Plan sides that have measured nothing.

        Args:
            cells: By side; baselines are added.
            asked: All cells that are compared.
            metrics: To measure.
            options: How much is measured.
            before: Seconds that had been spent when the first action was asked for.
            lanes: A core for each pair that may run at the same time as others.
        """
        self.metrics, self.options = metrics, options
        self.sides = {
            name: Side.of(name, own[0].backend, with_references(own, control=False))
            for name, own in cells.items()
        }
        self.work = Scheduler(self.sides, options, before)
        self.spent, self.end = self.work.spent, self.work.end
        self.lanes: Sequence[Cores] = [()] if options.cores == ALL else lanes
        self.turns = {
            Turn(cell.workload, metric.turn): metric.weight
            for cell in asked
            for metric in METRICS.values()
            if metric.name in metrics
            and metric.kind is Kind.WARM
            and metric.turn in TURNS
            and metric.applies(cell)
        }
        self.is_cold = any(METRICS[name].kind is Kind.COLD for name in metrics)
        baseline_asked = any(cell.is_baseline for cell in asked)
        self.beside = frozenset() if baseline_asked else frozenset([BASELINE_ARM])
        self.plan: dict[str, Any] = {}
        """What was decided, for the file."""

    @property
    def left(self) -> float:
        """Seconds until nothing begins any more."""
        return max(0.0, self.end - self.work.now)

    def pair_cost(self, names: Sequence[str]) -> tuple[float, float, float]:
        """Return the seconds of opening a pair, of its blocks at least, and as usual."""
        opening, least = self.work.costs(names, self.turns)
        return opening, least, max(LEAST, min(MOST, EQUAL_TO_OPENING * opening), least)

    def pairs_of_workers(
        self, pairs: Mapping[int, tuple[str, str]], seconds: float, proven: Sequence[str] = ()
    ) -> Phases[list[int]]:
        """Open pairs of workers at the same time, then measure in all of them at the same time.

        Args:
            pairs: Sides of each, by number; at most one for each lane.
            seconds: Of blocks.
            proven: Workloads to prove, where there are no turns.

        Returns:
            The numbers of pairs that came to their end.
        """
        visits = [
            Visit(names, self.turns, opens=tuple(proven), beside=self.beside, number=number)
            for number, names in pairs.items()
        ]
        opened = yield from self.work.opened(self.lanes, visits)
        done = yield from self.work.measured(opened, seconds)
        return [visit.number for visit in done]


class AB(SidesPlan):
    """The plan of an A/B; `sides` holds what was found."""

    def __init__(
        self,
        cells: Sequence[Cell],
        metrics: Set[str],
        options: Options,
        before: float = 0.0,
        lanes: Sequence[Cores] = ((),),
        pairs: int | None = None,
    ) -> None:
        """Plan an A/B of cells that both sides have, with so many `pairs` of workers.

        None lets the budget decide. The other arguments are those of `SidesPlan`.
        """
        super().__init__({BASE: cells, NEW: cells}, cells, metrics, options, before, lanes)
        self.cells, self.pairs = cells, pairs
        self.decided: Callable[[], bool] = lambda: False
        """Asked before each pair, warm or cold: whether more would be a waste."""
        self.over = False
        """More was a waste when last asked."""
        self.made = 0
        """Pairs of workers that came to their end."""
        self.numbers = count(1)
        """Of pairs, warm or cold."""

    def found(self, name: str) -> State:
        """Return what was found on a side."""
        return self.sides[name].state

    def alive(self) -> list[Cell]:
        """Return the cells that both sides can measure."""
        new, base = (set(self.sides[name].alive()) for name in (NEW, BASE))
        return [cell for cell in self.cells if cell in new and cell in base]

    def actions(self) -> Lanes:
        """Yield what to do; expects the outcome of each."""
        for _ in range(TRIES):
            yield from self.some_pairs(LEAST)
            if self.made or not self.goes_on():
                break
        if not self.made:
            return
        yield from self.work.phase(self.lanes, self.cold_jobs())
        while (seconds := self.seconds()) is not None and self.goes_on():
            yield from self.some_pairs(seconds)

    def goes_on(self) -> bool:
        """Tell whether more can be measured on both sides, and is of use."""
        self.over = self.over or self.decided()
        lost = any(side.given_up for side in self.sides.values())
        return bool(self.alive()) and not lost and not self.over

    def some_pairs(self, seconds: float) -> Lanes:
        """Measure as many pairs of workers as there are lanes."""
        most = len(self.lanes)
        if self.pairs is not None:
            most = min(most, self.pairs - self.made)
        pairs = {next(self.numbers): (BASE, NEW) for _ in range(most)}
        workloads = () if self.turns else tuple(dict.fromkeys(c.workload for c in self.cells))
        self.made += len((yield from self.pairs_of_workers(pairs, seconds, workloads)))

    def seconds(self) -> float | None:
        """Return the seconds of blocks in the next pairs; None where there is no time for them."""
        if not self.turns or (self.pairs is not None and self.made >= self.pairs):
            return None
        opening, least, usual = self.pair_cost((BASE, NEW))
        left = self.left
        if self.pairs is None and not self.options.fixed and left < opening + least:
            return None
        last = left < 2 * (opening + usual)  # there is no time for another one after this
        return max(least, left - opening) if last else usual

    def cold_jobs(self) -> Iterator[Job]:
        """Yield pairs of cold processes, sweep by sweep, each sweep in another random order."""
        if not self.is_cold:
            return
        alive, asked = self.alive(), self.options.cold_samples
        end = self.work.now + self.left * (COLD_SHARE if self.turns else COLD_ALONE)

        def pair(cell: Cell) -> Job:
            return partial(self.work.cold, (BASE, NEW), cell, number=next(self.numbers))

        groups = [
            [[c for c in alive if c.workload == w and (c.style == BASELINE[1]) == pure]]
            for pure in (True, False)
            for w in dict.fromkeys(cell.workload for cell in alive)
        ]

        def fit() -> tuple[list[Cell], int]:
            each = 2 * self.work.most_cold_cost() / len(self.lanes)
            return cold_cells(groups, max(0.0, end - self.work.now), each, asked)

        chosen, samples = fit()
        if asked is None and chosen and self.goes_on():
            yield from map(pair, chosen[: len(self.lanes)])  # which says what one costs
            chosen, samples = fit()
        self.plan |= {"cold_pairs_per_cell": samples, "cold_cells": len(chosen)}
        for _ in range(samples):
            for cell in self.work.rng.sample(chosen, len(chosen)):
                if not self.goes_on() or (asked is None and self.work.now > self.end):
                    return
                yield pair(cell)

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


class History(SidesPlan):
    """The plan of a history: each day's stack in turns with the stack of reference.

    A sweep visits each day once, in random order.
    """

    def __init__(
        self,
        days: Sequence[str],
        cells: Mapping[str, Sequence[Cell]],
        metrics: Set[str],
        options: Options,
        before: float = 0.0,
        lanes: Sequence[Cores] = ((),),
        sweeps: int | None = None,
    ) -> None:
        """Plan a history of days, which are names of sides in the order of time.

        Each is another stack, beside the reference's. `sweeps` is how many there are; None lets the
        budget decide. The other arguments are those of `SidesPlan`.
        """
        super().__init__(cells, cells[REFERENCE], metrics, options, before, lanes)
        self.days, self.cells, self.sweeps = days, cells, sweeps
        self.visits: list[tuple[int, str]] = []
        """Sweep and day of each visit that came to its end."""
        self.visit_of: dict[int, tuple[int, str]] = {}
        """Sweep and day, by number of a pair of workers or of a cold process."""
        self.chosen = self.levels()[0]
        """Cells of cold processes; of a day, those that it has."""
        self.visit_cost = 0.0
        self.queue: list[tuple[int, str]] = []
        self.tries: Counter[tuple[int, str]] = Counter()
        self.swept = 0

    def levels(self) -> list[list[Cell]]:
        """Return what cold processes are measured of, from all there is to nothing."""
        every = list(self.cells[REFERENCE]) if self.is_cold else []
        first = [cell for cell in every if cell.workload == every[0].workload]
        return [every, first, [cell for cell in first if cell.is_baseline], []]

    def actions(self) -> Lanes:
        """Yield what to do; expects the outcome of each."""
        while visits := list(filter(None, [self.next_visit() for _ in self.lanes])):
            yield from self.visit(visits)

    def next_visit(self) -> tuple[int, str] | None:
        """Return the sweep and the day of the next visit; None where there is no time for it."""
        if not self.queue:
            whole = len(self.days) * self.visit_cost / len(self.lanes)
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
        self.choose_cold()
        done: set[tuple[int, str]] = set()
        if self.turns:
            pairs = {self.next_number(visit): (visit[1], REFERENCE) for visit in visits}
            opening, least, usual = self.pair_cost((visits[0][1], REFERENCE))
            fair = self.left * len(self.lanes) / self.visits_left - opening
            seconds = max(least, min(usual, fair - self.cold_seconds(self.chosen)))
            whole = yield from self.pairs_of_workers(pairs, seconds)
            done = {self.visit_of[number] for number in whole}
        yield from self.work.phase(self.lanes, [partial(self.cold, visit) for visit in visits])
        self.visit_cost = self.work.now - before
        for visit in visits:
            lost = self.sides[visit[1]].given_up
            self.tries[visit] += 1
            if visit not in done and self.turns and self.tries[visit] < TRIES and not lost:
                self.queue.insert(0, visit)  # its workers died, or the run was cut off
            elif visit in done or self.is_cold:
                self.visits.append(visit)

    def next_number(self, visit: tuple[int, str]) -> int:
        """Return the number of a new pair of workers or cold process of a visit."""
        number = len(self.visit_of) + 1
        self.visit_of[number] = visit
        return number

    @property
    def visits_left(self) -> int:
        """Visits to come at least, one that is about to begin among them."""
        return len(self.queue) + 1 + max(0, LEAST_SWEEPS - self.swept) * len(self.days)

    def choose_cold(self) -> None:
        """Choose once, when a visit has been seen, what cold processes there is time for."""
        if self.plan or not self.visits or not self.is_cold:
            return
        each = self.left * len(self.lanes) / self.visits_left
        warm = sum(self.pair_cost((self.days[0], REFERENCE))[:2]) if self.turns else 0
        self.chosen = next(
            level for level in self.levels() if not level or warm + self.cold_seconds(level) <= each
        )
        self.plan = {"cold_cells": [str(c) for c in self.chosen], "seconds_a_visit": each}

    def cold_seconds(self, cells: Sequence[Cell]) -> float:
        """Return about what a visit's cold processes take, where the day has all of the cells."""
        workloads = {cell.workload for cell in cells}
        alone = len(cells) == len(workloads)
        count = len(cells) * (COLD_TWICE if alone else 1) + len(workloads) * COLD_TWICE
        return count * self.work.most_cold_cost()

    def cold(self, visit: tuple[int, str], cores: Cores) -> Steps[None]:
        """Measure cold processes of a day's cells, those of the reference's baseline among them."""
        day = visit[1]
        jobs: list[tuple[str, Cell]] = []
        alive = set(self.sides[day].alive()) & set(self.cells[day])
        for workload in dict.fromkeys(cell.workload for cell in self.chosen):
            here = [c for c in self.chosen if c.workload == workload and c in alive]
            if here:
                base = Cell(*BASELINE, workload, here[0].backend)
                often = COLD_TWICE if len(here) == 1 else 1
                jobs += [(day, cell) for cell in here] * often + [(REFERENCE, base)] * COLD_TWICE
        for name, cell in self.work.rng.sample(jobs, len(jobs)):
            yield from self.work.cold([name], cell, cores, self.next_number(visit))
