"""What comes next: of all that can be done, what a second spent on it settles most.

One greedy plan serves a run, an A/B, a bisection's step and a history. What can be done is a *job*:
a visit of a kind of turns, a sweep of cold processes, counts, trainings. Each has a cost in seconds
and a gain: what it takes off the doubts that are left. The job with the largest gain for each
second comes next, until the budget is spent. A number that was asked for (`--blocks` and the like)
stands instead of gains.

The doubt of a number is the half width of its interval, in units of what it takes to decide. More
workers narrow an interval with the square root of their number.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import BASELINE, PURE, REFERENCE, Cell
from bench.engine.visits import (
    NOT_JAX,
    UNKNOWN_PROGRAM,
    TurnKind,
    Visit,
    Visits,
    living_arms,
)
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, HOST, METRICS, STEP, TOGETHER, Kind
from bench.options import MOST_COUNT
from bench.stats.estimate import estimate
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from bench.cells import Arm
    from bench.engine.actions import Do, Lanes
    from bench.engine.state import SideState
    from bench.engine.visits import Group
    from bench.estimates import Estimate
    from bench.options import Options
    from bench.runfile.reader import Run
    from bench.samples import Cores, Sample

WIDEST = 8.0
"""Largest doubt, in what it takes to decide, and that of a number of which nothing is known: a
first answer goes before a better one, but not before ten."""
TARGET_OF_MARGIN, TARGET_OF_DISTANCE = 1 / 4, 1 / 3
"""Half width of a ratio's interval that is narrow enough, as a fraction of the margin, and of the
distance of the ratio from the nearer end of the margin: the larger of both counts."""
FURTHER = 1 / 4
"""Weight of steps at larger workloads beside those at the tutorial's size, where that is measured
too: a wide model's steps take ten times as long, and would take the time of the answer that people
read first."""
COLD_TARGET = 0.05
"""Half width of a cold ratio that is narrow enough: such times differ by about as much between two
hours."""
HOST_SECONDS, HOST_FRACTION = 3e-6, 0.02
"""Half width of a host cost that is narrow enough, in seconds and as a fraction of it: a step at
`seed` takes a thousand times these microseconds."""
BLOCKS_FOR_OPENING = {HOST: 0.9, STEP: 2.0, "pipelined": 2.0}
"""Seconds that a worker measures for each second that opening it takes, by kind of turns. Longer
visits leave more of the time to samples; what a worker adds to a host cost varies more than its
blocks do, so there many short visits tell most. A wide range is about as precise. At a tiny size,
the host's cost comes first: it decides there, and steps hardly do."""
PAIR_FOR_OPENING = 1.0
"""The same for a pair of workers on two sides: pairs vary more than their blocks, so that many
short visits tell most."""
PROVE_SHARE = 0.6
"""Fraction of the time left that a first visit may spend on proofs; then it measures, so that a
short budget has an answer about the arms that are proven by then."""
FEWEST_ROUNDS = 3
"""Rounds of a block where there is no time for the usual number: fewer say nothing of noise."""
COLD_SHARE, COUNT_SHARE, TRAINING_SHARE = 0.35, 0.1, 0.15
"""Fractions of the budget that the first cold samples, counts and trainings may each take where
steps or host costs are measured too: people ask about those first. In 300 s, five cold processes of
each library's shared style fit on a machine of half the usual speed."""
HISTORY_COUNT_SHARE = 0.25
"""The same of a history's counts at a number of layers: they need no second pair of workers."""
COUNT_GAIN = 2.0
"""Doubt that counting takes off each arm: four exact numbers, which explain a host cost, are worth
a quarter of a first answer."""
OVER = 0.03
"""Fraction of the budget by which it may be exceeded: for the first answer to a question, and for
the last processes of a sweep, without which some cells have one sample too few."""
REPORT_SECONDS, REPORT_SHARE = 1.0, 0.005
"""Time at the end of a run in which nothing begins, in seconds and as a fraction of the budget:
samples are estimated and shown, of which longer runs have more."""
MOST_RESTING = 0.75
"""Largest odds that an arm sits a visit out: what is settled or slow is still in every fourth,
since a verdict may turn out to be wrong."""
TRIES = 3
"""Visits in a row that may come to nothing, since their workers died: one may be the system's
fault, two a style's, which then fails; after three there is no reason to hope."""
LEAST_PAIRS = 2
"""Pairs of workers that each day of a history gets first: all days tell together what a pair varies
by."""
FEW_GROUPS = 3
"""Pairs of environments that make a history: two are a comparison with one more side."""
TURN_METRICS = {
    kind: [metric for metric in METRICS.values() if metric.turn == kind]
    for kind in BLOCKS_FOR_OPENING
}
"""What each kind of turns samples."""


@dataclass(frozen=True)
class Job:
    """Something that can be done next."""

    gain: float
    seconds: float
    """Seconds that it takes."""
    least: float
    """Seconds that have to be left for it to begin."""
    run: Callable[[], Lanes]
    more_seconds: float = 0.0
    """Seconds of what has to come after it for the gain."""

    @property
    def worth(self) -> float:
        """Gain for each second."""
        return self.gain / max(self.seconds + self.more_seconds, 1e-6)


class Plan:
    """The plan of a whole run.

    Args:
        groups: Sides whose workers take turns; all of one side, or all of two.
        options: How much is measured.
        before: Seconds that had been spent when the first action is asked for.
        lanes: A core for each worker that may run at the same time as others.
        base: Environment that others are compared with; empty where arms are compared.
        enough: Asked between jobs: whether more would be a waste.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        options: Options,
        *,
        before: float = 0.0,
        lanes: Sequence[Cores] = ((),),
        base: str = "",
        enough: Callable[[Sequence[Sample]], bool] | None = None,
    ) -> None:
        self.groups, self.options, self.lanes, self.base = list(groups), options, lanes, base
        self.enough = enough or (lambda _: False)
        self.visits = Visits(options, before)
        self.spent = self.visits.spent
        self.sides = list(dict.fromkeys(side for group in groups for side in group))
        self.end = (1 - REPORT_SHARE) * options.budget - REPORT_SECONDS
        """Second of the budget until which something may begin."""
        self.paired = any(len(group) > 1 for group in groups)
        self.history = self.paired and len(groups) >= FEW_GROUPS
        self.least = LEAST_PAIRS if self.history else MIN_WORKERS
        self.least_cold = LEAST_PAIRS if self.history else MIN_COLD
        """Workers and cold samples with fewer of which a number is not worth much."""
        cells = [cell for side in self.sides for cell in side.needed]
        if self.paired:
            self.visits.unasked = frozenset({str(BASELINE)} - {str(cell.arm) for cell in cells})
        several = [workload for names in TOGETHER.values() for workload in names]
        self.workloads = sorted(
            dict.fromkeys(cell.workload for cell in cells),
            key=lambda w: (
                w in several,
                w != "seed",
                WORKLOADS[w].work * (-1) ** (w not in several),
            ),
        )
        """The tutorial's first: it is what people ask about. Sweeps come last and go up."""
        self.counted: dict[int, str] = {}
        """Workloads to count at, by layers: what Python does depends on these alone."""
        for workload in sorted(self.workloads, key=lambda w: WORKLOADS[w].work):
            self.counted.setdefault(WORKLOADS[workload].layers, workload)
        self.most_workers = options.processes or (1 if options.fixed else MOST_COUNT)
        """Workers of each kind of turns at most: those that were asked for, if any."""
        self.made: Counter[tuple[Group, TurnKind]] = Counter()
        """Workers, or pairs of them, that came to their end."""
        self.lost: Counter[tuple[Group, TurnKind]] = Counter()
        """Visits in a row of which none did."""
        self.chosen: dict[str, list[tuple[Group, Cell]]] = {}
        """Whose cold processes are measured, by workload; since its first sweep."""
        self.once: set[tuple[str, SideState, str]] = set()
        """Counts and trainings that were begun, by side and workload."""
        self.doubts = Doubts(self)

    def adopt(self, earlier: Run) -> None:
        """Go on from a measurement of the same task that has ended: what it knows is known."""
        samples = earlier.samples
        rows = {(row.environment, row.cell): row for row in earlier.results.cells}
        for side in self.sides:
            for cell in side.cells:
                if row := rows.get((side.environment, cell)):
                    lasting = (NOT_JAX, UNKNOWN_PROGRAM)
                    missing = {name: why for name, why in row.missing.items() if why in lasting}
                    side.cells[cell] = replace(row, missing=missing)
        self.visits.samples += samples
        self.spent.processes = max((s.worker for s in samples), default=0)
        self.spent.blocks = max((s.block for s in samples), default=0)
        self.spent.sampling = earlier.results.spent.sampling_seconds
        for do, metric in (("count", "python_calls"), ("train", "final_loss")):
            known = {(s.environment, s.cell.place) for s in samples if s.metric == metric}
            for side in self.sides:
                for cell in side.cells:
                    if (side.environment, cell.place) in known:
                        self.once.add((do, side, cell.workload))

    @property
    def left(self) -> float:
        """Seconds until nothing begins any more."""
        return max(0.0, self.end - self.visits.now)

    def actions(self) -> Lanes:
        """Yield what is to begin; expects the outcome of what ends next."""
        while not self.enough(self.visits.samples) and (job := self.next_job()) is not None:
            yield from job.run()
        self.note_missing()

    def next_job(self) -> Job | None:
        """Return what settles most for each second; None where nothing fits or is left to do."""
        warm = list(self.warm_jobs())
        if warm and not self.made and not self.lost:
            return warm[0]
        most = self.left + OVER * self.options.budget * (not self.visits.samples)
        usual = [*warm, *self.cold_jobs(), *self.jobs_once()]
        # All may take more than their share where nothing else is left to do
        for jobs in (usual, [*self.cold_jobs(alone=True), *self.jobs_once(alone=True)]):
            if possible := [job for job in jobs if job.gain > 0 and job.least <= most]:
                return max(possible, key=lambda job: job.worth)
        return None

    # what is asked

    def compared(self, group: Group) -> SideState:
        """Return the side of a group whose numbers are looked at: not the base."""
        return next(side for side in group if not self.base or side.environment != self.base)

    def asked(self, group: Group, workload: str, metric: str) -> list[Cell]:
        """Return the cells of a metric that are alive on all sides of a group."""
        return [
            cell
            for cell, metrics in self.compared(group).needed.items()
            if cell.workload == workload
            and metric in metrics
            and METRICS[metric].applies(cell)
            and all(cell in side.cells and side.cells[cell].failure is None for side in group)
        ]

    def turns(self) -> dict[TurnKind, list[Group]]:
        """Return the kinds of turns that are asked for, with the groups that can take them."""
        turns: dict[TurnKind, list[Group]] = defaultdict(list)
        for workload in self.workloads:
            for kind in BLOCKS_FOR_OPENING:
                for group in self.groups:
                    given_up = any(side.given_up for side in group)
                    metrics = TURN_METRICS[kind]
                    if not given_up and any(self.asked(group, workload, m.name) for m in metrics):
                        turns[TurnKind(workload, kind)].append(group)
        return turns

    # warm metrics

    def cores(self, group: Group, kind: str) -> Sequence[Cores]:
        """Return the cores of each lane: one each, or all for each."""
        if group[0].backend != "cpu":
            return [()]
        one = self.options.cores == "one" or (self.options.cores == "auto" and kind == HOST)
        return list(self.lanes) if one else [()] * len(self.lanes)

    def warm_jobs(self) -> Iterator[Job]:
        """Yield a visit of each kind of turns, the most asked about first.

        Pairs of different days are in the lanes at the same time, those first that have least.
        """
        turns = self.turns()
        lacking = sum(
            self.weight(turn)
            for turn, groups in turns.items()
            for group in groups
            if self.made[group, turn] < self.least
        )
        visits: list[tuple[Sequence[Group], TurnKind]] = []
        for turn, groups in turns.items():
            groups = [
                group
                for group in groups
                if self.lost[group, turn] < TRIES and self.made[group, turn] < self.most_workers
            ]
            if self.history:
                order = self.visits.rng.sample(groups, len(groups))
                order.sort(key=lambda group: self.made[group, turn])
                visits += [(order, turn)] if order else []
            else:
                visits += [((group,), turn) for group in groups]
        jobs = [self.warm_job(*visit, lacking) for visit in visits]
        cheapest = min((job.least for job in jobs), default=0.0)
        for visit, job in zip(visits, jobs, strict=True):
            rest = self.left - job.seconds
            last = 0 < rest < cheapest  # nothing fits into the rest: this visit takes it
            yield self.warm_job(*visit, lacking, rest) if last else job

    def weight(self, turn: TurnKind) -> float:
        """Return how much an answer about a kind of turns matters beside others."""
        larger = WORKLOADS[turn.workload].work > WORKLOADS["seed"].work
        return FURTHER if larger and "seed" in self.workloads else 1.0

    def warm_job(
        self, groups: Sequence[Group], turn: TurnKind, lacking: float, longer: float = 0.0
    ) -> Job:
        """Return a visit.

        Args:
            groups: The first ones have a lane each; a single one has all of them.
            turn: What is measured.
            lacking: Weights of all that have too few workers yet: each is to get its part.
            longer: Seconds that it takes beside what it usually would.
        """
        cores = self.cores(groups[0], turn.kind)
        pinned = bool(cores[0])
        most = len(groups)
        if most == 1:
            most = self.most_workers - self.made[groups[0], turn]
        for count in range(min(len(cores), most), 0, -1):
            visits = [groups[i % len(groups)] for i in range(count)]
            in_a_row = 1 if pinned else count
            again = max(
                self.visits.opening_cost(g, turn.workload, count, proven=True) for g in visits
            )
            opening = max(self.visits.opening_cost(g, turn.workload, count) for g in visits)
            block = max(
                self.visits.block_cost(g, turn, living_arms(g, turn.workload)) for g in visits
            )
            fewest = min(FEWEST_ROUNDS, turn.rounds) / turn.rounds * block
            usual = PAIR_FOR_OPENING if self.paired else BLOCKS_FOR_OPENING[turn.kind]
            seconds = max(block, usual * (again if self.paired else opening))
            missing = math.ceil((self.least - self.made[visits[0], turn]) / count)
            if missing > 0:
                room = (self.left * self.weight(turn) / lacking / missing - opening) / in_a_row
                seconds = max(2 * block, min(seconds, room))
            room = (self.left - opening) / in_a_row
            seconds = max(fewest, min(seconds, room))
            first = self.made[visits[0], turn] == 0  # several workers share its proofs
            if room >= fewest or first or self.options.fixed:
                break
        # too few workers are preliminary: until there are enough, all that are missing count as one
        several = 1 if self.options.fixed or self.paired else max(1, missing)
        workers = several * count / len({*visits})
        gain = sum(self.gain(group, turn, workers) for group in dict.fromkeys(visits))
        gain *= self.weight(turn)
        before = opening
        if self.paired:  # others prove before, once for all later visits
            provers = Counter(v.group for v in self.proving(visits, turn.workload, count))
            proofs = [self.visits.opening_cost(one, turn.workload, n) for one, n in provers.items()]
            before = again + math.ceil(provers.total() / count) * max(proofs, default=0.0)
        least = 0.0 if self.options.fixed else before + in_a_row * fewest
        if self.made:
            least += (several - 1) * (again + in_a_row * fewest)
        seconds += longer / in_a_row
        rounds = turn.rounds
        if not self.options.fixed and seconds < 2 * block:
            rounds = max(min(FEWEST_ROUNDS, rounds), int(rounds * seconds / (2 * block)))
        rounds = self.options.rounds or rounds
        run = partial(self.visit, visits, turn, cores[:count], seconds, rounds)
        more = (several - 1) * (again + in_a_row * seconds)
        return Job(gain, opening + in_a_row * seconds, least, run, more)

    def proving(
        self,
        groups: Sequence[Group],
        workload: str,
        lanes: int,
        arms: Collection[Arm] | None = None,
        until: float = math.inf,
    ) -> list[Visit]:
        """Return visits that prove alone what is not proven yet: in all lanes, a side in each.

        Args:
            groups: Whose sides are proven.
            workload: What is proven of them.
            lanes: How many there are.
            arms: These alone; all if None.
            until: Seconds of the budget after which only the reference is proven any more.
        """
        left: dict[SideState, tuple[Group, list[Cell]]] = {}
        for side, group in {side: pair for pair in groups for side in pair}.items():
            wanted = [c for c in side.alive(workload) if arms is None or c.arm in arms]
            if cells := [cell for cell in wanted if not side.proven(cell)]:
                left[side] = group, cells
        visits = []
        for place, (side, (group, cells)) in enumerate(left.items()):
            workers = max(1, lanes // len(left) + (place < lanes % len(left)))
            resting = frozenset(str(c.arm) for c in side.alive(workload) if c not in cells)
            visits += [
                Visit((side,), workload, None, resting, until, group) for _ in cells[:workers]
            ]
        return visits

    def prove(self, cores: Sequence[Cores], visits: Sequence[Visit]) -> Lanes:
        """Open workers that prove, no more at a time than there are lanes, and close them."""
        for first in range(0, len(visits), len(cores)):
            opened = yield from self.visits.opened(cores, visits[first : first + len(cores)])
            yield from self.visits.measured(opened, 0.0, 0)

    def visit(
        self,
        groups: Sequence[Group],
        turn: TurnKind,
        cores: Sequence[Cores],
        seconds: float,
        rounds: int,
    ) -> Lanes:
        """Open workers, measure in them, and close them.

        In a process that has compiled, a call costs the host about 8 % more until its end. The arms
        of one worker have that in common, the two workers of a pair do not: others prove for them.
        """
        until = math.inf if self.options.fixed else self.visits.now + PROVE_SHARE * self.left
        if self.paired:
            proofs = self.proving(groups, turn.workload, len(cores), until=until)
            yield from self.prove(cores, proofs)
        alive = {group: len(living_arms(group, turn.workload)) for group in groups}
        visits = [
            Visit(group, turn.workload, turn, self.resting(group, turn), until) for group in groups
        ]
        opened = yield from self.visits.opened(cores, visits)
        if not self.options.fixed:  # opening may have taken longer than it was thought to
            in_a_row = 1 if cores[0] else max(1, len(opened))
            seconds = min(seconds, self.left / in_a_row)
        end = math.inf if self.options.fixed else self.end
        done = yield from self.visits.measured(opened, seconds, rounds, end)
        for group in {*groups} - {visit.group for visit in done}:
            fewer = len(living_arms(group, turn.workload)) < alive[group]
            self.lost[group, turn] += not fewer  # an arm that is out by now ended it
        for visit in done:
            self.lost[visit.group, turn] = 0
            self.made[visit.group, turn] += 1

    def resting(self, group: Group, turn: TurnKind) -> frozenset[str]:
        """Return the arms that sit a visit out: by turns, those of which it would settle least.

        Once there are enough workers, an arm takes part with odds that are what it settles for each
        second, beside what the middle arm does.
        """
        if self.options.fixed or self.made[group, turn] < self.least or self.paired:
            return frozenset()
        worth: dict[str, float] = {}
        metric = TURN_METRICS[turn.kind][0]
        for cell in self.asked(group, turn.workload, metric.name):
            doubt, n = self.doubts.of(metric.name, cell, group)
            arm = str(cell.arm)
            seconds = self.visits.block_cost(group, turn, [arm])
            worth[arm] = doubt * narrowed(n, 1) / max(seconds, 1e-9)
        middle = median(worth.values() or [0.0])
        return frozenset(
            arm
            for arm, value in worth.items()
            if arm not in map(str, REFERENCE)
            and self.visits.rng.random() < min(MOST_RESTING, 1 - value / max(middle, 1e-12))
        )

    def gain(self, group: Group, turn: TurnKind, workers: float) -> float:
        """Return what further workers take off the doubts of a kind of turns."""
        total = 0.0
        for metric in TURN_METRICS[turn.kind]:
            for cell in self.asked(group, turn.workload, metric.name):
                doubt, n = self.doubts.of(metric.name, cell, group)
                if n < self.least:
                    total += metric.weight * WIDEST * workers / (n + workers)
                else:
                    total += metric.weight * doubt * narrowed(n, workers)
        return total

    # cold metrics

    def cold_jobs(self, *, alone: bool = False) -> Iterator[Job]:
        """Yield a sweep of cold processes at each workload; the first one is of several.

        It may take all that is left where it is `alone`.
        """
        asked = self.options.cold_samples
        if self.options.fixed and asked is None:
            return
        for workload in self.workloads:
            first = workload not in self.chosen
            if asked is not None and not first:
                continue
            sweeps = asked or (self.least_cold if first else 1)
            pairs = self.cold_cells(workload, sweeps, alone) if first else self.chosen[workload]
            pairs = [(g, c) for g, c in pairs if all(side.begins_cold(c) for side in g)]
            if not pairs:
                continue
            seconds = self.sweeps_cost(pairs, sweeps)
            gain = sum(self.cold_gain(group, cell, sweeps) for group, cell in pairs)
            run = partial(self.sweep, workload, pairs, sweeps, alone)
            yield Job(gain, seconds, 0.0 if asked is not None else seconds, run)

    def cold_gain(self, group: Group, cell: Cell, sweeps: int) -> float:
        """Return what further cold processes of a cell take off its doubts."""
        total = 0.0
        for name in COLD:
            if name in group[0].needed.get(cell, ()):
                doubt, n = self.doubts.of(name, cell, group)
                known = n >= self.least_cold
                total += METRICS[name].weight * (doubt * narrowed(n, sweeps) if known else WIDEST)
        return total

    def sweeps_cost(self, pairs: Sequence[tuple[Group, Cell]], sweeps: int) -> float:
        """Return the seconds of cold processes of each, and of proofs that come before."""
        processes = sweeps * sum(self.visits.cold_cost(group) for group, _ in pairs)
        return (processes + self.visits.proof_cost(pairs)) / len(self.cores(pairs[0][0], HOST))

    def cold_cells(self, workload: str, sweeps: int, alone: bool) -> list[tuple[Group, Cell]]:
        """Return whose cold processes fit into their part of the time, each cell on all sides.

        Plain JAX comes first, then the style that entrants share.
        """
        pairs: list[tuple[Group, Cell]] = []
        backends: set[str] = set()
        for group in self.groups:
            if any(side.given_up for side in group):
                continue
            asked = dict.fromkeys(c for name in COLD for c in self.asked(group, workload, name))
            cells = [cell for cell in asked if self.wants_cold(group, cell)]
            backend = group[0].backend
            if cells and not self.paired:
                others = [cell for cell in cells if cell.arm not in REFERENCE]
                reference = [arm.at(workload, backend) for arm in REFERENCE]
                # of several environments, the first one measures the reference
                cells = others if backend in backends else [*reference, *others]
            backends |= {backend} if cells else set()
            pairs += [(group, cell) for cell in cells]
        if not pairs or self.options.cold_samples is not None:
            return pairs
        cold = {c.workload for s in self.sides for c, names in s.needed.items() if names & {*COLD}}
        part = COLD_SHARE / max(1, len(cold - {*self.chosen}))
        most = self.affordable(1.0 if alone or not self.turns() else part)
        order = dict.fromkeys(cell for _, cell in pairs)
        left = sorted(order, key=lambda cell: (cell.arm not in REFERENCE, cell.style != PURE))
        while pairs and self.sweeps_cost(pairs, sweeps) > most:
            last = left.pop()
            pairs = [pair for pair in pairs if pair[1] != last]
        return pairs

    def wants_cold(self, group: Group, cell: Cell) -> bool:
        """Tell whether a cell has cold metrics of its own; one cell of a library has its import."""
        cold = group[0].needed[cell] & {*COLD}
        if any(not METRICS[metric].of_library for metric in cold):
            return True
        same = (c for c in group[0].needed if c[0::2] == cell[0::2] and c.backend == cell.backend)
        return bool(cold) and next(same) == cell

    def sweep(
        self, workload: str, pairs: list[tuple[Group, Cell]], sweeps: int, alone: bool
    ) -> Lanes:
        """Measure cold processes, each sweep in another random order."""
        first, given = workload not in self.chosen, self.options.cold_samples is not None
        together: dict[tuple[Cores, ...], list[Group]] = defaultdict(list)
        for group in dict.fromkeys(group for group, _ in pairs):
            together[tuple(self.cores(group, HOST))].append(group)
        arms = {cell.arm for _, cell in pairs} | {*REFERENCE}
        for cores, groups in together.items():
            yield from self.prove(cores, self.proving(groups, workload, len(cores), arms))
        pairs = [(g, c) for g, c in pairs if all(s.proven(c) for s in g)]
        if not pairs:
            self.chosen[workload] = []
            return
        lanes = self.cores(pairs[0][0], HOST)

        def processes() -> Iterator[tuple[Group, Cell]]:
            chosen = pairs
            begun: list[tuple[Group, Cell]] = []
            if first and not given:
                begun = pairs[: len(lanes)]
                yield from begun  # which says what one costs
                fits = self.cold_cells(workload, sweeps, alone)
                chosen = [pair for pair in pairs if pair in fits]
            self.chosen[workload] = chosen
            for number in range(sweeps):
                order = [pair for pair in chosen if number or pair not in begun]
                yield from self.visits.rng.sample(order, len(order))

        last = math.inf if given else self.end + OVER * self.options.budget
        in_time = (pair for pair in processes() if self.visits.now <= last)
        yield from self.visits.phase(lanes, (partial(self.visits.cold, *pair) for pair in in_time))

    # what is done once

    def jobs_once(self, *, alone: bool = False) -> Iterator[Job]:
        """Yield counts and trainings that were not begun yet, and that their share pays for.

        They may take all that is left where they are `alone`.
        """
        count_share = HISTORY_COUNT_SHARE / len(self.sides) if self.history else COUNT_SHARE
        shares: list[tuple[Do, str, float]]
        shares = [("count", workload, count_share) for workload in self.counted.values()]
        shares += [("train", workload, TRAINING_SHARE) for workload in self.workloads]
        for side in self.sides:
            lanes = self.cores((side,), HOST)
            for do, workload, share in shares:
                cells = [cell for cell in side.alive(workload) if not cell.is_control]
                if do == "train":
                    cells = [c for c in cells if "final_loss" in side.needed.get(c, ())]
                if not cells or (do, side, workload) in self.once:
                    continue
                seconds, gain = 0.0, COUNT_GAIN
                if do == "train":
                    seconds = self.visits.training_cost(side, cells) / len(lanes)
                    gain = METRICS["final_loss"].weight * WIDEST
                seconds += self.visits.opening_cost((side,), workload, len(lanes))
                if seconds <= self.affordable(1.0 if alone else share):
                    least = 0.0 if self.options.fixed else seconds
                    run = partial(self.do_once, do, side, cells, lanes)
                    yield Job(gain * len(cells), seconds, least, run)

    def affordable(self, share: float) -> float:
        """Return the seconds of a share of the budget, as far as they are left."""
        return math.inf if self.options.fixed else min(self.left, share * self.options.budget)

    def do_once(
        self, do: Do, side: SideState, cells: Sequence[Cell], lanes: Sequence[Cores]
    ) -> Lanes:
        """Count or train some cells of one workload, a part of them in each lane."""
        self.once.add((do, side, cells[0].workload))
        end = math.inf if self.options.fixed else self.end
        order = self.visits.rng.sample(cells, len(cells))
        parts = [order[i :: len(lanes)] for i in range(min(len(lanes), len(order)))]
        work = [partial(self.visits.count_or_train, side, do, part, end) for part in parts]
        yield from self.visits.phase(lanes, work)

    # what is left out

    def note_missing(self) -> None:
        """Say of each cell and metric that has no number, why."""

        def row(environment: str, cell: Cell, metric: str) -> tuple[str, Cell, str]:
            of_library = METRICS[metric].of_library  # all of its styles share samples
            return environment, cell._replace(style="") if of_library else cell, metric

        have = Counter(row(s.environment, s.cell, s.metric) for s in self.visits.samples)
        least = 1 if self.options.cold_samples is not None else self.least_cold
        for side in self.sides:
            for cell, metrics in side.needed.items():
                result = side.cells[cell]
                for name in metrics:
                    count = have[row(side.environment, cell, name)]
                    fewest = least if name in COLD else 1
                    if count < fewest and METRICS[name].applies(cell) and result.failure is None:
                        reason = "not measured within the budget"
                        at = (
                            (who, where)
                            for who in (str(cell.arm), "")
                            for where in (cell.workload, "")
                        )
                        if death := next(filter(None, map(side.deaths.get, at)), ""):
                            reason = f"{death}, and there was no time to try again"
                        elif count:
                            reason = f"{count} of the {fewest} samples it takes fitted the budget"
                        result.missing.setdefault(name, reason)


def narrowed(have: float, more: float) -> float:
    """Return by which fraction further workers narrow an interval of a mean of `have`."""
    return 1 - math.sqrt(have / (have + more)) if have else 1.0


class Doubts:
    """How far each number is from being decided; looked at again when there are more samples."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.families: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
        self.read = 0
        self.known: dict[tuple[str, str, str], dict[tuple[str, Cell], Estimate]] = {}

    def of(self, metric: str, cell: Cell, group: Group) -> tuple[float, int]:
        """Return a number's doubt, and the workers that it rests on."""
        samples = self.plan.visits.samples
        for sample in samples[self.read :]:
            family = sample.metric, sample.cell.workload, sample.cell.backend
            self.families[family].append(sample)
            self.known.pop(family, None)
        self.read = len(samples)
        family = metric, cell.workload, cell.backend
        if family not in self.known:
            self.known[family] = self.rows(self.families[family])
        row = self.known[family].get((self.plan.compared(group).environment, cell))
        if row is None:
            return WIDEST, 0
        return doubt(row, self.plan.options.margin), row.workers

    def rows(self, samples: Sequence[Sample]) -> dict[tuple[str, Cell], Estimate]:
        """Return a family's comparisons, or else amounts, by environment and cell."""
        programs = {c: r.program for s in self.plan.sides for c, r in s.cells.items() if r.program}
        rows: dict[tuple[str, Cell], Estimate] = {}
        estimates = estimate(
            samples,
            self.plan.base,
            margin=self.plan.options.margin,
            programs=programs,
            least_cold=1,
        )
        for row in sorted(estimates, key=lambda row: row.form == "amount"):
            rows.setdefault((row.environment, row.cell), row)
        return rows


def doubt(row: Estimate, margin: float) -> float:
    """Return half an interval's width in units of what it takes to decide; `WIDEST` at most."""
    if row.form == "added":
        target = max(HOST_SECONDS, HOST_FRACTION * abs(row.value))
    elif row.form == "ratio":
        distance = abs(abs(math.log(row.value)) - math.log1p(margin))
        usual = COLD_TARGET if row.kind is Kind.COLD else TARGET_OF_MARGIN * margin
        target = max(usual, TARGET_OF_DISTANCE * distance)
    else:
        return 1.0  # the baseline's own, an exact number, or one that is not compared
    return min(WIDEST, row.half_width / target)
