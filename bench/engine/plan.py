"""The plan: carries out visits of workers, sweeps of cold processes, counts, trainings.

`bench.engine.choice` chooses the next: the one that settles most within a budget, or the next of
given counts.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bench.cells import REFERENCE
from bench.engine.agenda import Agenda, ColdSweeps, OnceWork, WarmVisits
from bench.engine.choice import OVERRUN, Choice
from bench.engine.journal import Part
from bench.engine.visits import Visits
from bench.engine.workers import NOT_JAX, UNKNOWN_PROGRAM, Visit, Workers, find_live_cells
from bench.estimates import group_by_key
from bench.metrics import COLD, METRICS, STAGES
from bench.runfile import pack_samples, unpack_samples
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Do, Lanes, Steps
    from bench.engine.agenda import GroupCell
    from bench.engine.journal import Journal
    from bench.engine.task import Group, SideState
    from bench.samples import Cores, Sample

PROVE_SHARE = 0.6
"""Fraction of the time left that a first visit may spend on proofs; then it measures, so that a
short budget has an answer about the arms that are proven by then."""
ONCE: dict[str, Do] = {"compilations_first": "count", "final_loss": "train"}
"""Metric → the action that always samples it, once for a cell."""


class Plan:
    """The plan of a whole run; between jobs, it asks whether there are enough samples by now."""

    def __init__(self, agenda: Agenda, is_enough: Callable[[Sequence[Sample]], bool]) -> None:
        self.agenda, self.options, self.is_enough = agenda, agenda.options, is_enough
        self.sides, self.least_cold = agenda.sides, agenda.least_cold
        self.workers = Workers(agenda)
        self.visits = Visits(self.workers)
        self.spent = self.workers.spent
        self.choice = Choice(agenda, self.workers)
        self.reported_texts: set[bytes | str] = set()
        """Cells, as JSON, and notes that `news` has returned."""
        self.reported_samples = 0

    def adopt(self, journal: Journal) -> None:
        """Continue from a journal: from this run's earlier part, and from the runs that it adds to.

        Raises:
            BakeoffError: it has samples of unrequested cells or metrics.
        """
        known = journal.known
        sides = {(side.environment, cell): side for side in self.sides for cell in side.cells}
        for row in known.cells:
            if side := sides.get((row.environment, row.cell)):
                kept = (NOT_JAX, UNKNOWN_PROGRAM)
                missing = {name: why for name, why in row.missing.items() if why in kept}
                side.cells[row.cell] = replace(row, missing=missing)
        samples = unpack_samples(known.samples)
        for s in samples:
            side = sides.get((s.environment, s.cell))
            if side is None:
                raise BakeoffError(
                    f"the journal {journal.path} is damaged: {s.metric!r} of {str(s.cell)!r} was "
                    "not asked for; start anew without --resume"
                )
            if do := ONCE.get(s.metric):
                self.agenda.finished_once.add((do, side, s.cell))
        self.workers.samples += samples
        self.spent = self.workers.spent = known.spent
        self.sides[0].notes += known.warnings
        self.agenda.adopt(s for s in samples if s.worker > known.spent.earlier_processes)
        self.news()

    def news(self) -> Part:
        """Return the samples, cells and notes that are new since the last call."""
        samples = self.workers.samples
        rows = {msgspec.json.encode(row): row for row in self.agenda.rows}
        notes = [note for side in self.sides for note in side.notes]
        news = Part(
            samples=pack_samples(samples[self.reported_samples :]),
            cells=[row for text, row in rows.items() if text not in self.reported_texts],
            warnings=[note for note in notes if note not in self.reported_texts],
            spent=self.spent,
        )
        self.reported_texts.update(rows, notes)
        self.reported_samples = len(samples)
        return news

    def actions(self) -> Lanes:
        """Yield the actions to begin; expects the outcome of the one that ends next."""
        while not self.is_enough(self.workers.samples) and (work := self.choice.next_work()):
            match work:
                case WarmVisits():
                    yield from self.visit(work)
                case ColdSweeps():
                    yield from self.sweep(work)
                case OnceWork():
                    yield from self.do_once(work)
        self.note_missing()

    def visit(self, work: WarmVisits) -> Lanes:
        """Open workers, measure in them, and close them.

        In a process that has compiled, a call costs the host about 8 % more until its end. The arms
        of one worker have that in common, the two workers of a pair do not: others prove for them,
        and for a worker that compiles its arms anew.
        """
        turn, counts, failures = work.turn, self.agenda.worker_counts, self.agenda.failed_visits
        groups, workload, compiles = work.groups, turn.workload, turn.kind == STAGES
        until = self.workers.spent_seconds + PROVE_SHARE * self.choice.seconds_left
        if self.agenda.is_paired or compiles:
            pairs = [(g, cell) for g in groups for cell in find_live_cells(g, workload).values()]
            yield from self.prove(pairs, workload, work.cores, until)
        alive = {group: find_live_cells(group, workload).keys() for group in groups}
        visits = [
            Visit(group, workload, alive[group], until, compiles=compiles, cores=cores)
            for group, cores in zip(groups, work.cores, strict=True)
        ]
        opened = yield from self.visits.open_visits(visits)
        counts.update((visit.group, turn) for visit in opened)
        seconds = self.choice.allot_seconds(work, len(opened))
        done = yield from self.visits.measure_visits(opened, turn, seconds, work.rounds)
        for visit in opened:
            counts[visit.group, turn] -= visit not in done
        ended = {visit.group for visit in done}
        for group in {*groups}:
            fewer = len(find_live_cells(group, workload)) < len(alive[group])  # an arm has ended it
            failures[group, turn] = 0 if group in ended else failures[group, turn] + (not fewer)

    def prove(
        self, pairs: Iterable[GroupCell], workload: str, cores: Sequence[Cores], until: float
    ) -> Lanes:
        """Prove cells in workers that do nothing else, in all lanes, a side in each.

        After `until` seconds of the budget, only the reference is proven any more.
        """
        left: dict[SideState, tuple[Group, dict[str, None]]] = {}
        for group, cell in pairs:
            for side in group:
                if not side.is_proven(cell):
                    left.setdefault(side, (group, {}))[1][str(cell.arm)] = None

        def prove(side: SideState, visit: Visit, cores: Cores) -> Steps[None]:
            visit.cores = cores
            worker = yield from self.workers.open_worker(side, visit)
            yield from self.workers.close(side, worker)

        proofs = []
        for place, (side, (group, arms)) in enumerate(left.items()):
            workers = max(1, len(cores) // len(left) + (place < len(cores) % len(left)))
            for _ in range(min(workers, len(arms))):
                visit = Visit(group, workload, arms, until, only_proves=True)
                proofs.append(partial(prove, side, visit))
        yield from self.workers.run_phase(cores, proofs)

    def sweep(self, work: ColdSweeps) -> Lanes:
        """Measure cold processes of each cell, every sweep in another random order.

        The first processes say what one costs, and so how many cells fit.
        """
        by_cores = group_by_key((tuple(self.agenda.cores(pair[0])), pair) for pair in work.pairs)
        for cores, unproven in by_cores.items():
            yield from self.prove(unproven, work.workload, cores, math.inf)
        pairs = [(g, cell) for g, cell in work.pairs if all(side.is_proven(cell) for side in g)]
        lanes = self.agenda.cores(work.pairs[0][0])
        begun = pairs[: len(lanes)] if work.sweeps > 1 else []

        def processes() -> Iterator[GroupCell]:
            yield from begun
            fit = self.choice.choose_fitting_cells(pairs, work.sweeps) if begun else pairs
            for number in range(work.sweeps):
                order = [pair for pair in fit if number or pair not in begun]
                yield from self.workers.rng.sample(order, len(order))

        last = math.inf if self.options.cold_samples else (1 + OVERRUN) * self.options.budget
        cost, measure = self.workers.costs.cold, self.workers.measure_cold
        in_time = (
            pair for pair in processes() if self.workers.spent_seconds + cost(pair[0]) <= last
        )
        yield from self.workers.run_phase(lanes, (partial(measure, *pair) for pair in in_time))

    def do_once(self, work: OnceWork) -> Lanes:
        """Count or train some cells of one workload, a part of them in each lane.

        Where a worker dies, the cell that it is at and those after it are still to do.
        """
        workers, side, do = self.workers, work.side, work.do

        def count_or_train(cells: Sequence[Cell], cores: Cores) -> Steps[None]:
            if do == "train":
                arms = {str(cell.arm) for cell in cells} | {*map(str, REFERENCE)}
                visit = Visit((side,), cells[0].workload, arms, cores=cores)
                worker = yield from workers.open_worker(side, visit)
            else:
                worker = yield from workers.load_worker(side, cells, cores)
            for cell in cells:
                able = do == "count" or str(cell.arm) in workers.held_arms[worker]
                if (
                    able
                    and side.cells[cell].failure is None
                    and workers.spent_seconds <= self.agenda.end
                ):
                    yield from workers.ask_arm(side, worker, do, cell)
                self.agenda.finished_once.add((do, side, cell))
            yield from workers.close(side, worker)

        lanes = self.agenda.cores((side,))
        order = workers.rng.sample(work.cells, len(work.cells))
        parts = [order[i :: len(lanes)] for i in range(min(len(lanes), len(order)))]
        yield from workers.run_phase(lanes, [partial(count_or_train, part) for part in parts])

    # what is left out

    def note_missing(self) -> None:
        """Note for each cell and metric without a number why it has none."""
        programs = {(row.environment, row.cell): row.program for row in self.agenda.rows}

        def pool(environment: str, cell: Cell, metric: str) -> tuple[str, str, str]:
            shares = str(cell)  # what shares samples: styles of a library, cells of a program
            if METRICS[metric].of_library:
                shares = str(cell._replace(style=""))
            elif METRICS[metric].of_program and not self.agenda.is_paired:
                shares = programs[environment, cell] or shares
            return environment, shares, metric

        have = Counter(pool(s.environment, s.cell, s.metric) for s in self.workers.samples)
        for side in self.sides:
            for cell, metrics in side.needed.items():
                result = side.cells[cell]
                for name in metrics:
                    count = have[pool(side.environment, cell, name)]
                    fewest = self.least_cold if name in COLD else 1
                    if (
                        count < fewest
                        and METRICS[name].is_measured_at(cell.workload)
                        and result.failure is None
                    ):
                        reason = "not measured within the budget"
                        at = product((str(cell.arm), ""), (cell.workload, ""))
                        if death := next(filter(None, map(side.deaths.get, at)), ""):
                            reason = f"{death}, and there was no time to try again"
                        elif count:
                            reason = f"{count} of the {fewest} samples it takes fitted the budget"
                        result.missing.setdefault(name, reason)
