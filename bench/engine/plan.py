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
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import BASELINE, PURE, REFERENCE, Cell
from bench.engine.costs import TurnKind
from bench.engine.doubts import WIDEST, Doubts, narrowed
from bench.engine.visits import NOT_JAX, UNKNOWN_PROGRAM, Visit, Visits, living
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, HOST, METRICS, STAGES, STEP, TOGETHER, Kind
from bench.options import MOST_COUNT
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.engine.actions import Do, Lanes
    from bench.engine.state import Group, SideState
    from bench.metrics import Metric
    from bench.options import Options
    from bench.runfile.reader import Run
    from bench.samples import Cores, Sample

    type GroupCell = tuple[Group, Cell]
    """A cell, and the sides that it is measured on."""

FURTHER = 1 / 4
"""Weight of steps at larger workloads beside those at the tutorial's size, where that is measured
too: a wide model's steps take ten times as long, and would take the time of the answer that people
read first."""
BLOCKS_FOR_OPENING = {HOST: 0.9, STEP: 2.0, "pipelined": 2.0, STAGES: 2.0}
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
TRIES = 3
"""Visits in a row that may come to nothing, since their workers died: one may be the system's
fault, two a style's, which then fails; after three there is no reason to hope."""
LEAST_PAIRS = 2
"""Pairs of workers that each day of a history gets first: all days tell together what a pair varies
by."""
FEW_GROUPS = 3
"""Pairs of environments that make a history: two are a comparison with one more side."""
COLD_KIND = "cold"
ASKED_OF = {kind: [m for m in METRICS.values() if m.turn == kind] for kind in BLOCKS_FOR_OPENING}
ASKED_OF[COLD_KIND] = [METRICS[name] for name in COLD]
"""What each kind of turns samples, and what a cold process does."""


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
        self.costs, self.spent, self.rng = self.visits.costs, self.visits.spent, self.visits.rng
        self.sides = list(dict.fromkeys(side for group in groups for side in group))
        self.doubts = Doubts(self.visits.samples, self.sides, base, options.margin)
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
        """Workers, or pairs of them, that came to their end, or are measuring."""
        self.lost: Counter[tuple[Group, TurnKind]] = Counter()
        """Visits in a row of which none did."""
        self.in_sweeps: dict[str, list[GroupCell]] = {}
        """Whose cold processes are measured, by workload; since its first sweep."""

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
        known = {(s.environment, s.cell, s.metric) for s in samples}
        metrics: dict[Do, str] = {"count": "compilations_first", "train": "final_loss"}
        self.visits.over |= {
            (do, side, cell)
            for do, metric in metrics.items()
            for side in self.sides
            for cell in side.cells
            if (side.environment, cell, metric) in known
        }

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
        warm = self.warm_jobs()
        if warm and not self.made and not self.lost:
            return warm[0]
        most = self.left + OVER * self.options.budget * (not self.visits.samples)
        usual = [*warm, *self.cold_jobs(), *self.jobs_once()]
        # All may take more than their share where nothing else is left to do
        for jobs in (usual, [*self.cold_jobs(alone=True), *self.jobs_once(alone=True)]):
            if possible := [job for job in jobs if job.gain > 0 and job.least <= most]:
                return max(possible, key=lambda job: job.worth)
        return None

    # what is asked, and what it is worth

    def compared(self, group: Group) -> SideState:
        """Return the side of a group whose numbers are looked at: not the base."""
        return next(side for side in group if not self.base or side.environment != self.base)

    def asked(self, group: Group, workload: str, kind: str) -> dict[Cell, list[Metric]]:
        """Return what was asked for of a kind of turns, by cell that is alive on all sides."""
        if any(side.given_up for side in group):
            return {}
        alive = {*living(group, workload).values()}
        return {
            cell: metrics
            for cell, names in self.compared(group).needed.items()
            if cell in alive
            and (metrics := [m for m in ASKED_OF[kind] if m.name in names and m.applies(cell)])
            and not any(m.name in side.cells[cell].missing for m in metrics for side in group)
        }

    def gain(self, group: Group, cell: Cell, metrics: Iterable[Metric], more: float) -> float:
        """Return what further workers, or cold processes, take off the doubts of a cell."""
        total, environment = 0.0, self.compared(group).environment
        for metric in metrics:
            doubt, n = self.doubts.of(metric.name, cell, environment)
            if n < (self.least_cold if metric.kind is Kind.COLD else self.least):
                total += metric.weight * WIDEST * more / (n + more)
            else:
                total += metric.weight * doubt * narrowed(n, more)
        return total

    def gains(self, group: Group, workload: str, kind: str, more: float) -> float:
        """Return the same of all cells that a kind of turns was asked for."""
        asked = self.asked(group, workload, kind).items()
        return sum(self.gain(group, cell, metrics, more) for cell, metrics in asked)

    def turns(self) -> dict[TurnKind, list[Group]]:
        """Return the kinds of turns that are asked for, with the groups that can take them."""
        turns: dict[TurnKind, list[Group]] = defaultdict(list)
        for workload in self.workloads:
            for kind in BLOCKS_FOR_OPENING:
                for group in self.groups:
                    if self.asked(group, workload, kind):
                        turns[TurnKind(workload, kind)].append(group)
        return turns

    def affordable(self, share: float) -> float:
        """Return the seconds of a share of the budget, as far as they are left."""
        return math.inf if self.options.fixed else min(self.left, share * self.options.budget)

    # warm metrics

    def cores(self, group: Group, kind: str) -> Sequence[Cores]:
        """Return the cores of each lane: one each, or all for each."""
        if group[0].backend != "cpu":
            return [()]
        auto = self.options.cores == "auto" and kind in (HOST, STAGES)
        one = self.options.cores == "one" or auto
        return list(self.lanes) if one else [()] * len(self.lanes)

    def warm_jobs(self) -> list[Job]:
        """Return a visit of each kind of turns, the most asked about first.

        Pairs of different days are in the lanes at the same time, those first that have least.
        """
        jobs, turns = list[Job](), self.turns()
        lacking = sum(
            self.weight(turn)
            for turn, groups in turns.items()
            for group in groups
            if self.made[group, turn] < self.least
        )
        for turn, groups in turns.items():
            groups = [
                group
                for group in groups
                if self.lost[group, turn] < TRIES and self.made[group, turn] < self.most_workers
            ]
            if self.history and groups:
                order = self.rng.sample(groups, len(groups))
                order.sort(key=lambda group: self.made[group, turn])
                jobs.append(self.warm_job(order, turn, lacking))
            else:
                jobs += [self.warm_job([group], turn, lacking) for group in groups]
        return jobs

    def weight(self, turn: TurnKind) -> float:
        """Return how much an answer about a kind of turns matters beside others."""
        larger = WORKLOADS[turn.workload].work > WORKLOADS["seed"].work
        return FURTHER if larger and "seed" in self.workloads else 1.0

    def warm_job(self, groups: Sequence[Group], turn: TurnKind, lacking: float) -> Job:
        """Return a visit.

        Args:
            groups: The first ones have a lane each; a single one has all of them.
            turn: What is measured.
            lacking: Weights of all that have too few workers yet: each is to get its part.
        """
        cores, fixed, workload = self.cores(groups[0], turn.kind), self.options.fixed, turn.workload
        made, apart = self.made[groups[0], turn], self.paired or turn.kind == STAGES
        most = len(groups) if len(groups) > 1 else self.most_workers - made
        for count in range(min(len(cores), most), 0, -1):
            visits = [groups[i % len(groups)] for i in range(count)]
            in_a_row = 1 if cores[0] else count
            again = max(self.costs.opening(group, workload, proven=True) for group in visits)
            if turn.kind == STAGES:  # whose arms need no opening
                again = max(sum(map(self.costs.load, group)) for group in visits)
            if apart:  # others prove before, once for all later visits
                unproven = [(g, cell) for g in visits for cell in living(g, workload).values()]
                opening = again + self.costs.proving(unproven, count)
            else:
                opening = max(self.costs.opening(group, workload, count) for group in visits)
            block = max(self.costs.block(g, turn, [*living(g, workload)]) for g in visits)
            fewest = min(FEWEST_ROUNDS, turn.rounds) / turn.rounds * block
            room = (self.left - opening) / in_a_row
            if room >= fewest or not made or fixed:  # several workers share the first proofs
                break
        usual = PAIR_FOR_OPENING * again if self.paired else BLOCKS_FOR_OPENING[turn.kind] * opening
        seconds, missing = max(block, usual), math.ceil((self.least - made) / count)
        if missing > 0:
            part = self.left * self.weight(turn) / lacking / missing
            seconds = max(min(2, turn.rounds) * block, min(seconds, (part - opening) / in_a_row))
        seconds = max(fewest, min(seconds, room))
        # too few workers are preliminary: until there are enough, all that are missing count as one
        several = 1 if fixed or self.paired else max(1, missing)
        workers = several * count / len({*visits})
        gain = sum(self.gains(g, workload, turn.kind, workers) for g in dict.fromkeys(visits))
        least = 0.0 if fixed else opening + in_a_row * fewest
        if self.made.total():
            least += (several - 1) * (again + in_a_row * fewest)
        rounds = turn.rounds
        if not fixed and rounds > 1 and seconds < 2 * block:
            rounds = max(min(FEWEST_ROUNDS, rounds), int(rounds * seconds / (2 * block)))
        return Job(
            gain * self.weight(turn),
            opening + in_a_row * seconds,
            least,
            partial(self.visit, visits, turn, cores[:count], seconds, rounds),
            (several - 1) * (again + in_a_row * seconds),
        )

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
        of one worker have that in common, the two workers of a pair do not: others prove for them,
        and for a worker that compiles its arms anew.
        """
        fixed, workload, compiles = self.options.fixed, turn.workload, turn.kind == STAGES
        rounds = rounds if compiles else self.options.rounds or rounds
        until = math.inf if fixed else self.visits.now + PROVE_SHARE * self.left
        if self.paired or compiles:
            pairs = [(g, cell) for g in groups for cell in living(g, workload).values()]
            yield from self.prove(pairs, workload, cores, until)
        alive = {group: living(group, workload).keys() for group in groups}
        visits = [Visit(g, workload, alive[g], until, compiles=compiles) for g in groups]
        opened = yield from self.visits.opened(cores, visits)
        self.made.update((visit.group, turn) for visit in opened)
        if not fixed:  # opening took less or more than expected; no rest stays that fits no visit
            in_a_row = 1 if cores[0] else max(1, len(opened))
            rest = self.left - in_a_row * seconds
            if rest < min((job.least for job in self.warm_jobs()), default=0.0):
                seconds += rest / in_a_row
        end = math.inf if fixed else self.end
        done = yield from self.visits.measured(opened, turn, seconds, rounds, end)
        for group in {*groups} - {visit.group for visit in done}:
            fewer = len(living(group, workload)) < len(alive[group])
            self.lost[group, turn] += not fewer  # an arm that is out by now ended it
        for visit in opened:
            if visit in done:
                self.lost[visit.group, turn] = 0
            else:
                self.made[visit.group, turn] -= 1

    def prove(
        self,
        pairs: Iterable[GroupCell],
        workload: str,
        cores: Sequence[Cores],
        until: float = math.inf,
    ) -> Lanes:
        """Prove alone what is not proven yet: in all lanes, a side in each.

        Args:
            pairs: What is proven on its sides.
            workload: Of all of them.
            cores: Of each lane.
            until: Seconds of the budget after which only the reference is proven any more.
        """
        left: dict[SideState, tuple[Group, dict[str, None]]] = {}
        for group, cell in pairs:
            for side in group:
                if not side.proven(cell):
                    left.setdefault(side, (group, {}))[1][str(cell.arm)] = None
        proofs = []
        for place, (side, (group, arms)) in enumerate(left.items()):
            workers = max(1, len(cores) // len(left) + (place < len(cores) % len(left)))
            for _ in range(min(workers, len(arms))):
                visit = Visit(group, workload, arms, until, only_proves=True)
                proofs.append(partial(self.visits.prove, side, visit))
        yield from self.visits.phase(cores, proofs)

    # cold metrics

    def cold_jobs(self, *, alone: bool = False) -> Iterator[Job]:
        """Yield sweeps of cold processes at each workload; several at first, for an estimate.

        They may take all that is left where they are `alone`.
        """
        given = self.options.cold_samples
        for workload in self.workloads if given or not self.options.fixed else ():
            first = workload not in self.in_sweeps
            if given and not first:
                continue
            sweeps = (given or self.least_cold) if first else 1
            if pairs := self.cold_pairs(workload, sweeps, alone=alone):
                seconds = self.cold_seconds(pairs, sweeps)
                groups = {group for group, _ in pairs}
                asked = {group: self.asked(group, workload, COLD_KIND) for group in groups}
                gain = sum(self.gain(g, c, asked[g].get(c, ()), sweeps) for g, c in pairs)
                run = partial(self.sweep, workload, pairs, sweeps, alone=alone)
                yield Job(gain, seconds, 0.0 if given else seconds, run)

    def cold_seconds(self, pairs: Sequence[GroupCell], sweeps: int) -> float:
        """Return the seconds of cold processes of each, and of proofs that come before."""
        lanes = len(self.cores(pairs[0][0], HOST))
        processes = sweeps * sum(self.costs.cold(group) for group, _ in pairs) / lanes
        return processes + self.costs.proving(pairs, lanes)

    def cold_pairs(self, workload: str, sweeps: int, *, alone: bool) -> list[GroupCell]:
        """Return whose cold processes come next; at first, as many cells as fit on all sides."""
        first = workload not in self.in_sweeps
        pairs = self.cold_cells(workload) if first else self.in_sweeps[workload]
        pairs = [(g, cell) for g, cell in pairs if all(side.begins_cold(cell) for side in g)]
        return self.fitting(workload, pairs, sweeps, alone=alone) if first else pairs

    def fitting(
        self, workload: str, pairs: list[GroupCell], sweeps: int, *, alone: bool
    ) -> list[GroupCell]:
        """Return as many cells as fit into their part of the time, each on all of its sides."""
        if self.options.cold_samples:
            return pairs
        cold = {c.workload for s in self.sides for c, names in s.needed.items() if names & {*COLD}}
        part = COLD_SHARE / max(1, len(cold - {*self.in_sweeps} | {workload}))
        most = self.affordable(1.0 if alone or not self.turns() else part)
        while pairs and self.cold_seconds(pairs, sweeps) > most:
            pairs = [pair for pair in pairs if pair[1] != pairs[-1][1]]
        return pairs

    def cold_cells(self, workload: str) -> list[GroupCell]:
        """Return whose cold processes were asked for: plain JAX's, entrants' shared style, others.

        Of several environments, the first one measures the reference. Where only what all styles of
        a library share was asked for, the first one stands for all.
        """
        pairs: list[GroupCell] = []
        backends: set[str] = set()
        for group in self.groups:
            asked, backend = self.asked(group, workload, COLD_KIND), group[0].backend
            first = {cell.entrant: cell for cell in reversed(asked)}
            cells = [
                cell
                for cell, metrics in asked.items()
                if cell == first[cell.entrant] or not all(m.of_library for m in metrics)
            ]
            if cells and not self.paired:
                others = [cell for cell in cells if cell.arm not in REFERENCE]
                reference = [arm.at(workload, backend) for arm in REFERENCE]
                cells = others if backend in backends else [*reference, *others]
            backends |= {backend} if cells else set()
            pairs += [(group, cell) for cell in cells]
        return sorted(pairs, key=lambda p: (p[1].arm not in REFERENCE, p[1].style != PURE))

    def sweep(self, workload: str, pairs: list[GroupCell], sweeps: int, *, alone: bool) -> Lanes:
        """Measure cold processes of each, every sweep in another random order.

        The first processes at a workload say what one costs, and so how many cells fit.
        """
        by_cores: dict[tuple[Cores, ...], list[GroupCell]] = defaultdict(list)
        for pair in pairs:
            by_cores[tuple(self.cores(pair[0], HOST))].append(pair)
        for cores, unproven in by_cores.items():
            yield from self.prove(unproven, workload, cores)
        pairs = [(g, cell) for g, cell in pairs if all(side.proven(cell) for side in g)]
        first, self.in_sweeps[workload] = workload not in self.in_sweeps, pairs
        if not pairs:
            return
        lanes = self.cores(pairs[0][0], HOST)

        def processes() -> Iterator[GroupCell]:
            begun = pairs[: len(lanes)] if first else []
            yield from begun
            if first:
                fit = self.fitting(workload, pairs, sweeps, alone=alone)
                self.in_sweeps[workload] = fit
            for number in range(sweeps):
                order = [p for p in self.in_sweeps[workload] if number or p not in begun]
                yield from self.rng.sample(order, len(order))

        given = self.options.cold_samples
        last = math.inf if given else self.end + OVER * self.options.budget
        in_time = (pair for pair in processes() if self.visits.now <= last)
        yield from self.visits.phase(lanes, (partial(self.visits.cold, *pair) for pair in in_time))

    # what is done once

    def jobs_once(self, *, alone: bool = False) -> Iterator[Job]:
        """Yield counts and trainings that are not over, and that their share pays for.

        They may take all that is left where they are `alone`.
        """
        count_share = HISTORY_COUNT_SHARE / len(self.sides) if self.history else COUNT_SHARE
        shares: list[tuple[Do, str, float]]
        shares = [("count", workload, count_share) for workload in self.counted.values()]
        shares += [("train", workload, TRAINING_SHARE) for workload in self.workloads]
        fixed = self.options.fixed
        for side in (side for side in self.sides if not side.given_up):
            lanes = self.cores((side,), HOST)
            for do, workload, share in shares:
                cells = [
                    cell
                    for cell in side.alive(workload)
                    if not cell.is_control
                    and str(cell.arm) not in self.visits.unasked
                    and (do, side, cell) not in self.visits.over
                    and (do == "count" or "final_loss" in side.needed.get(cell, ()))
                ]
                if not cells:
                    continue
                seconds, gain = self.costs.opening((side,), workload, len(lanes)), COUNT_GAIN
                if do == "train":
                    seconds += self.costs.training(side, cells) / len(lanes)
                    gain = METRICS["final_loss"].weight * WIDEST
                if seconds <= self.affordable(1.0 if alone else share):
                    run = partial(self.do_once, do, side, cells, lanes)
                    yield Job(gain * len(cells), seconds, 0.0 if fixed else seconds, run)

    def do_once(
        self, do: Do, side: SideState, cells: Sequence[Cell], lanes: Sequence[Cores]
    ) -> Lanes:
        """Count or train some cells of one workload, a part of them in each lane."""
        end = math.inf if self.options.fixed else self.end
        order = self.rng.sample(cells, len(cells))
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
