"""Jobs: what can be done next, what it costs, which questions it answers, and the choice of one.

A *job* is a visit of a kind of turns, sweeps of cold processes, counts, or trainings. One greedy
rule (`choose_job`) serves a run, an A/B, a bisection's step and a history. Nothing here measures,
or changes what is known: `bench.engine.plan` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import PURE, REFERENCE
from bench.engine.questions import WIDEST, Question, Questions
from bench.engine.state import COLD_KIND
from bench.engine.task import is_partly_proven
from bench.metrics import HOST, STAGES, STEP
from bench.workloads import find_workload, is_skeleton

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Do
    from bench.engine.costs import TurnKind
    from bench.engine.state import RunState
    from bench.engine.task import Group, GroupCell, SideState
    from bench.samples import Cores

WEIGHTS = {
    HOST: 1.0,
    STEP: 3.0,
    "pipelined": 3.0,
    STAGES: 16.0,
    COLD_KIND: 0.8,
    "count": 2.0,
    "train": 0.6,
}
"""Kind of work → weight of its numbers, times the weight of their metric: people ask about steps
first. Where all else is equal, time goes with the power 2/3 of a weight. Chosen so that on a
made-up machine a default run of 300 s has first answers to all but trainings and lighter work
(`FURTHER`, `FURTHER_STYLES`), and that on a real one stages take a fifth of it."""
FURTHER = 1 / 12
"""Factor on the weight, and on the length of visits, of workloads larger than the tutorial's, if
that is measured too: their steps take ten times as long, and people read the tutorial's first."""
FURTHER_STYLES = 1 / 4
"""Weight of cold processes of a library's further styles, where its shared style has some: they
import the same, and turns measure their stages. They took 50 s of a default run of 300 s."""
BESIDE_OTHERS = 1 / 64
"""Factor on the weight of work that was last disturbed by other processes: what these do not spoil,
calls on one core above all, goes first, and it is tried again when little else is left."""
PAIR_FOR_OPENING = 1.0
"""Measuring time of a pair of workers per second of opening it, whatever the kind of turns: pairs
vary more than their blocks, so many short visits tell most."""
FEWEST_ROUNDS = 3
"""Rounds of a block where there is no time for the usual number: fewer tell nothing about noise.
After a first answer, blocks have the usual number, since all count alike: two last workers with a
block of three rounds each made the intervals of a default run twice as wide."""
SKELETON_SHARE, LEAST_MAIN_SECONDS = 1 / 4, 15.0
"""Fraction of a budget, and seconds at least, in which a skeleton goes before all else until its
numbers are precise: they are what people ask for. Proving real steps of a large model takes most of
three minutes; a budget of 20 seconds hardly has room for any."""
CALLS_SHARE, MOST_CALLS_SECONDS = 3 / 4, 60.0
"""Fraction of a budget, and most seconds, in which the calls of a library's two releases go before
all else: in a noisy hour they are never precise, and a long run shows steps as well."""
MAIN_DOUBT = 1.5
"""Doubt of a number of the main question that is precise: half an interval of 3 % of what a
skeleton adds, or of 0.75 % of a call that does not differ."""
CALLS_FIRST = 12.0
"""Factor on the weight of calls where they go first: four times the weight of a step."""
HOPE = 1.5
"""Largest foreseen half width, relative to the one that settles a number, at which measuring it is
still worth while: with few workers, what is foreseen is wrong by half."""
FIRST_SHARE = 1 / 6
"""Largest fraction of the time left that a first answer may take although it will settle nothing:
people who give ten minutes want to see every size, and what they ask about first loses little."""
OVERRUN = 0.03
"""Fraction of the budget by which a run may exceed it, to complete a first answer or a sweep:
otherwise some cells have one sample too few."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something that can be done next, its questions and its cost."""

    questions: Sequence[Question] = ()
    more: float = 1.0
    """Number of workers, or cold samples, that it adds to each question."""
    cost: float = 0.0
    """Its cost in seconds, with that of later jobs without which it is worth nothing."""
    seconds_needed: float = 0.0
    """Seconds that have to be left for it to begin."""
    begun: bool = False
    """Whether it is the rest of a first answer, for which time is kept."""

    def is_hopeful(self, question: Question, left: float) -> bool:
        """Tell whether a question is settled, or may be if it has all the time left."""
        have = question.workers
        most = have + self.more * max(1.0, left / self.cost)
        return question.excess * math.sqrt(max(have, 1) / most) <= HOPE

    def is_considered(self, question: Question, left: float, wait: float) -> bool:
        """Tell whether a question is considered before those that weigh `wait` are settled."""
        is_small = question.workers < question.workers_needed and self.cost <= FIRST_SHARE * left
        return question.weight >= wait or is_small or self.is_hopeful(question, left)

    def worth(self, left: float, wait: float) -> float:
        """Return the gain per second, without questions that wait."""
        questions = (q for q in self.questions if self.is_considered(q, left, wait))
        return sum(question.gain(self.more) for question in questions) / self.cost


@dataclass(frozen=True, kw_only=True)
class WarmVisits(Job):
    """Workers to open and to measure in, one in each lane."""

    groups: Sequence[Group]
    turn: TurnKind
    cores: Sequence[Cores]
    seconds: float
    """Seconds of blocks in each worker."""
    rounds: int
    proves: bool = True
    """Whether arms that are not proven yet take part."""


@dataclass(frozen=True, kw_only=True)
class ColdSweeps(Job):
    """Cold processes of some cells, several times."""

    workload: str
    pairs: Sequence[GroupCell]
    sweeps: int


@dataclass(frozen=True, kw_only=True)
class OnceWork(Job):
    """Counts or trainings of some cells of one side and workload."""

    do: Do
    side: SideState
    cells: Sequence[Cell]


def choose_job(jobs: Sequence[Job], left: float) -> Job | None:
    """Return the job with the largest gain per second; None where nothing is left to do.

    Hopeless questions wait while one that matters more can be settled, unless a first answer takes
    little of the time left. Where none can be settled, all count: something is always measured.
    """
    asked = ((job, question) for job in jobs for question in job.questions)
    can_be_settled = [q.weight for job, q in asked if q.is_open and job.is_hopeful(q, left)]
    for wait in (max(can_be_settled, default=0.0), 0.0):
        worths = [job.worth(left, wait) for job in jobs]
        if max(worths, default=0.0) > 0:
            return jobs[worths.index(max(worths))]
    return None


class Visits(NamedTuple):
    """Visits that can be begun together, and what they take."""

    groups: Sequence[Group]
    pairs: Sequence[GroupCell]
    """Cells that take part."""
    in_a_row: int
    """Visits that measure one after the other."""
    again: float
    """Seconds of opening workers when all arms are proven."""
    opening: float
    """Seconds of opening these, with the proofs that are due."""
    block: float
    """Seconds of a block of all arms."""
    fewest: float
    """Seconds of the shortest block."""
    room: float
    """Seconds that are left for measuring in each."""


class Jobs:
    """The jobs that fit a budget, and the choice of the next one."""

    def __init__(self, state: RunState) -> None:
        self.state, self.options, self.costs = state, state.options, state.costs
        self.questions = Questions(state)

    def choose(self) -> Job | None:
        """Return the next job; None where nothing fits or is left to do."""
        if self.options.is_fixed:
            return self.choose_given()
        warm, state = self.warm_jobs(), self.state
        if warm and not state.failed_visits.total() and self.goes_first(warm[0]):
            return warm[0]  # the main question has a first answer, whatever else there is
        most = state.seconds_left + OVERRUN * self.options.budget * (not state.samples)
        jobs: list[Job] = [job for job in (*warm, *self.cold_jobs()) if job.seconds_needed <= most]
        kept = sum(job.cost for job in jobs if job.begun)
        if state.worker_counts or state.failed_visits or state.cold_counts or not jobs:
            jobs += self.once_jobs()
        fits = [job for job in jobs if job.seconds_needed + (not job.begun) * kept <= most]
        return choose_job(fits, self.state.seconds_left)

    def goes_first(self, job: WarmVisits) -> bool:
        """Tell whether a visit goes before all else: the first of all, or one of the main question.

        That lacks a first answer, and in its part of the budget a precise one.
        """
        counts = self.state.worker_counts
        if not counts:  # nothing was visited yet
            return True
        is_main = self.state.is_main(job.turn) and job.turn not in self.state.disturbed
        if not is_main or job.seconds_needed > self.state.seconds_left:
            return False
        if counts[job.groups[0], job.turn] < self.state.find_workers_needed(job.turn.kind):
            return True
        until = SKELETON_SHARE * self.options.budget
        if self.state.calls_first:
            until = min(CALLS_SHARE * self.options.budget, MOST_CALLS_SECONDS)
        until = max(LEAST_MAIN_SECONDS, until)
        is_early = self.state.spent_seconds <= until
        return is_early and any(q.doubt > MAIN_DOUBT for q in job.questions)

    def choose_given(self) -> Job | None:
        """Return the next job where a number of blocks was given, however long it takes.

        Visits come first, of the turns with fewest workers; then cold sweeps, counts, trainings.
        """
        state = self.state
        if turns := state.find_open_turns():
            turn, groups = min(
                turns, key=lambda t: min(state.worker_counts[group, t[0]] for group in t[1])
            )
            groups = sorted(groups, key=lambda group: state.worker_counts[group, turn])
            cores = state.cores(groups[0], turn.kind)
            missing = state.most_workers - state.worker_counts[groups[0], turn]
            count = min(len(cores), len(groups) if len(groups) > 1 else missing)
            visits = [groups[i % len(groups)] for i in range(count)]
            return WarmVisits(
                groups=visits,
                turn=turn,
                cores=cores[:count],
                seconds=math.inf,
                rounds=turn.rounds,
            )
        if self.options.cold_samples:
            for workload in state.workloads:
                if pairs := state.find_unswept_cells(workload):
                    return ColdSweeps(
                        workload=workload, pairs=pairs, sweeps=state.count_sweeps(pairs)
                    )
        once = state.find_once_cells()
        return OnceWork(do=once[0][0], side=once[0][1], cells=once[0][2]) if once else None

    def weight(self, workload: str, kind: str) -> float:
        """Return the weight of numbers of a kind of work at a workload."""
        weight = WEIGHTS[kind] * self.find_workload_factor(workload)
        if (workload, kind) in self.state.disturbed:
            return BESIDE_OTHERS * weight
        return weight * (CALLS_FIRST if self.state.calls_first and kind == HOST else 1.0)

    def find_workload_factor(self, workload: str) -> float:
        """Return `FURTHER` for a workload larger than a measured tutorial's, else 1."""
        larger = find_workload(workload).work > find_workload("seed").work
        return FURTHER if larger and "seed" in self.state.workloads else 1.0

    def warm_jobs(self) -> list[WarmVisits]:
        """Return a visit of each kind of turns, the most asked about first.

        Pairs of different days are in the lanes at the same time, those with fewest workers first.
        """
        jobs = []
        for turn, groups in self.state.find_open_turns():
            if len(groups) > 1:
                self.state.rng.shuffle(groups)
                groups.sort(key=lambda group: self.state.worker_counts[group, turn])
            jobs.append(self.warm_job(groups, turn))
        return jobs

    def seconds_of_first_answer(
        self, turn: TurnKind, visits: int, opening: float, again: float, in_a_row: int
    ) -> float:
        """Return the seconds of measuring in each visit that a first answer still takes.

        Each kind of turns with too few workers gets its part of the time, by weights; each of its
        visits gets as much as the next one, which takes no proofs, since all workers count alike.
        """
        state, weight = self.state, self.weight(*turn)
        lacking = sum(
            self.weight(*turn)
            for turn, groups in state.find_open_turns()
            for group in groups
            if state.worker_counts[group, turn] < state.find_workers_needed(turn.kind)
        )
        lacking += sum(
            self.weight(workload, COLD_KIND)
            for workload in state.workloads
            if state.find_unswept_cells(workload)
        )
        part = weight / max(weight, lacking) * self.state.seconds_left
        return (part - opening - (visits - 1) * again) / visits / in_a_row

    def plan_visits(self, groups: Sequence[Group], turn: TurnKind, *, proves: bool) -> Visits:
        """Return visits of the first groups, as many as fit; with or without unproven arms."""
        state, costs = self.state, self.costs
        cores, made = state.cores(groups[0], turn.kind), state.worker_counts[groups[0], turn]
        most = len(groups) if len(groups) > 1 else state.most_workers - made
        few_rounds = self.choose_few_rounds(turn, made)
        for count in range(min(len(cores), most), 0, -1):
            visits = [groups[i % len(groups)] for i in range(count)]
            arms = {g: state.find_arms(g, turn, unproven=proves) for g in visits}
            pairs = [(g, cell) for g, cells in arms.items() for cell in cells.values()]
            in_a_row = 1 if cores[0] else count
            again = max(costs.opening(g, *turn, cells) for g, cells in arms.items())
            opening = again + costs.proving(pairs, count, alone=state.proves_before(turn))
            block = max(costs.block(g, turn, [*cells]) for g, cells in arms.items())
            fewest = few_rounds / turn.rounds * block
            room = (self.state.seconds_left - opening) / in_a_row
            if room >= fewest or not made:  # several workers share the first proofs
                break
        return Visits(visits, pairs, in_a_row, again, opening, block, fewest, room)

    def choose_few_rounds(self, turn: TurnKind, made: int) -> int:
        """Return the least rounds of a block, where so many workers have come to their end."""
        enough = self.state.find_workers_needed(turn.kind)
        return turn.rounds if made >= enough else min(FEWEST_ROUNDS, turn.rounds)

    def warm_job(self, groups: Sequence[Group], turn: TurnKind) -> WarmVisits:
        """Return a visit of the first groups, with a lane each, or of a single one in all lanes.

        Where there is no time to prove further arms, those that are proven are measured.
        """
        state, proves = self.state, True
        plan = self.plan_visits(groups, turn, proves=True)
        if plan.room < plan.fewest and all(is_partly_proven(g, turn.workload) for g in groups):
            plan, proves = self.plan_visits(groups, turn, proves=False), False
        made, enough = state.worker_counts[groups[0], turn], state.find_workers_needed(turn.kind)
        count, missing = len(plan.groups), math.ceil((enough - made) / len(plan.groups))
        seconds = self.choose_seconds(plan, turn, missing)
        # Too few workers are preliminary: until there are enough, all that are missing count as one
        visits_counted = 1 if state.is_paired else max(1, missing)
        further = visits_counted - 1
        # Costs of what was never done are guesses: a first visit needs the fewest rounds alone
        is_first = not state.worker_counts.total()
        measuring = plan.in_a_row * (plan.fewest if is_first or made else seconds)
        needed = plan.opening + measuring
        if not is_first:
            needed += further * (plan.again + measuring)
        blocks = seconds / plan.block
        weight, whole = self.weight(*turn), blocks * turn.rounds
        return WarmVisits(
            groups=plan.groups,
            turn=turn,
            cores=state.cores(groups[0], turn.kind)[:count],
            seconds=seconds,
            rounds=self.choose_rounds(turn, blocks, made),
            proves=proves,
            questions=[*self.questions.ask(plan.pairs, *turn, weight, whole)],
            more=visits_counted * count / len({*plan.groups}),
            cost=plan.opening
            + plan.in_a_row * seconds
            + further * (plan.again + plan.in_a_row * seconds),
            seconds_needed=needed,
            begun=not state.is_paired and 0 < made < enough,
        )

    def choose_seconds(self, plan: Visits, turn: TurnKind, missing: int) -> float:
        """Return how long each worker measures, where so many visits are missing for an answer."""
        factor = self.find_workload_factor(turn.workload)
        if self.state.is_paired:
            for_opening = PAIR_FOR_OPENING * plan.again
        else:
            opening = plan.again if self.state.proves_before(turn) else plan.opening
            for_opening = factor * turn.seconds_for_opening * opening
        seconds = max(plan.block, for_opening)
        if missing > 0:
            its_share = self.seconds_of_first_answer(
                turn, missing, plan.opening, plan.again, plan.in_a_row
            )
            shortest = plan.block if factor < 1 else min(2, turn.rounds) * plan.block
            seconds = max(shortest, min(seconds, its_share))
        return max(plan.fewest, min(seconds, plan.room))

    def choose_rounds(self, turn: TurnKind, blocks: float, made: int) -> int:
        """Return the rounds of a block: fewer where a visit has no time for two blocks."""
        if blocks >= 2 or turn.rounds == 1:
            return turn.rounds
        return max(self.choose_few_rounds(turn, made), int(turn.rounds * blocks / 2))

    def allot_seconds(self, job: WarmVisits, opened: int) -> float:
        """Return how many seconds a visit measures, once its workers are open and have proven.

        They also get the rest of the budget if no further visit fits into it.
        """
        state, turn, group, seconds = self.state, job.turn, job.groups[0], job.seconds
        if self.options.is_fixed:
            return seconds
        in_a_row = 1 if job.cores[0] else max(1, opened)
        missing = state.find_workers_needed(turn.kind) - state.worker_counts[group, turn]
        if not state.is_paired and missing > 0:
            again = self.costs.opening(group, *turn)
            visits = 1 + math.ceil(missing / len(job.groups))
            factor = self.find_workload_factor(turn.workload)
            usual = factor * turn.seconds_for_opening * again
            its_part = self.seconds_of_first_answer(turn, visits, 0.0, again, in_a_row)
            seconds = max(seconds, min(usual, its_part))
        rest = self.state.seconds_left - in_a_row * seconds
        jobs: list[Job] = [*self.warm_jobs()]
        if is_skeleton(turn.workload):  # its counts, with the proof of its trees, come next
            jobs += self.once_jobs()
        fits = rest >= min((other.seconds_needed for other in jobs), default=0.0)
        return seconds + (0.0 if fits else rest / in_a_row)

    def cold_jobs(self) -> Iterator[Job]:
        """Yield sweeps of cells with cold samples, and of cells without, beside the reference.

        Entrants' shared styles come first, then others.
        """
        given = self.options.cold_samples
        for workload in self.state.workloads:
            cells = self.state.find_cold_cells(workload)
            rest = self.state.find_unswept_cells(workload)
            swept = [pair for pair in cells if pair not in rest]
            if swept and not given:
                yield self.cold_job(workload, swept, 1)
            part = 1.0
            if rest and not self.state.is_paired:
                reference = [pair for pair in cells if pair[1].arm in REFERENCE]
                shared = [p for p in rest if p[1].style == PURE and p not in reference]
                others = [pair for pair in rest if pair not in reference]
                rest = [*reference, *(others if given or swept else shared or others)]
                part = 1.0 if shared or not swept else FURTHER_STYLES
            sweeps = self.state.count_sweeps(rest)
            if fits := self.choose_fitting_cells(rest, sweeps):
                yield self.cold_job(workload, fits, sweeps, part)

    def cold_job(
        self, workload: str, pairs: Sequence[GroupCell], sweeps: int, part: float = 1.0
    ) -> Job:
        """Return cold sweeps of some cells, whose questions have a `part` of their usual weight."""
        weight = part * self.weight(workload, COLD_KIND)
        questions = [*self.questions.ask(pairs, workload, COLD_KIND, weight)]
        seconds = self.cold_seconds(pairs, sweeps)
        one = max(self.costs.cold(group) for group, _ in pairs)  # lanes cannot share a process
        # A number that was given is taken whatever the time
        needed = 0.0 if self.options.cold_samples else max(seconds, one)
        return ColdSweeps(
            workload=workload,
            pairs=pairs,
            sweeps=sweeps,
            questions=questions,
            more=sweeps,
            cost=seconds,
            seconds_needed=needed,
        )

    def cold_seconds(self, pairs: Sequence[GroupCell], sweeps: int) -> float:
        """Return the seconds of cold sweeps of some cells, and of the proofs before them."""
        lanes = len(self.state.cores(pairs[0][0]))
        processes = sweeps * sum(self.costs.cold(group) for group, _ in pairs) / lanes
        return processes + self.costs.proving(pairs, lanes)

    def forecast_needs(self) -> dict[tuple[str, str], float]:
        """Return (workload, kind of work) → seconds of its first answer, if a proof was timed."""
        turns, has_proofs = self.state.find_open_turns(), self.costs.has_proofs
        turns = [(turn, groups) for turn, groups in turns if has_proofs(turn.workload)]
        needs = {(*turn,): self.warm_job(groups, turn).seconds_needed for turn, groups in turns}
        for workload in filter(has_proofs, self.state.workloads):
            if pairs := self.state.find_unswept_cells(workload):
                seconds = self.cold_seconds(pairs, self.state.count_sweeps(pairs))
                needs[workload, COLD_KIND] = seconds
        return needs

    def choose_fitting_cells(self, pairs: Sequence[GroupCell], sweeps: int) -> Sequence[GroupCell]:
        """Return the first cells, as many as fit into the time left, each on all of its sides."""
        while (
            pairs
            and not self.options.cold_samples
            and self.cold_seconds(pairs, sweeps) > self.state.seconds_left
        ):
            pairs = [pair for pair in pairs if pair[1] != pairs[-1][1]]
        return pairs

    def once_jobs(self) -> Iterator[Job]:
        """Yield the counts and trainings that are not finished."""
        for do, side, cells in self.state.find_once_cells():
            lanes, workload = len(self.state.cores((side,))), cells[0].workload
            alive = [((side,), cell) for cell in side.list_live_cells(workload)]
            seconds = self.costs.opening((side,), workload, do)
            if do == "train":
                seconds += self.costs.proving(alive, lanes, alone=False)
                seconds += self.costs.training(side, cells) / lanes
            questions = [Question(WEIGHTS[do], WIDEST, 0.0, 0, 1)] * len(cells)
            yield OnceWork(
                do=do,
                side=side,
                cells=cells,
                questions=questions,
                cost=seconds,
                seconds_needed=seconds,
            )
