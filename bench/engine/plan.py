"""The plan: carries out visits of workers, sweeps of cold processes, counts, trainings.

`bench.engine.jobs` chooses the next: the one that settles most within a budget, or the next of
given counts.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE, REFERENCE
from bench.engine.costs import FEW_ROUNDS
from bench.engine.jobs import OVERRUN, ColdSweeps, Jobs, OnceWork, WarmVisits
from bench.engine.requests import Requests, Visit, WorkerEndedError
from bench.engine.task import find_live_cells
from bench.estimates import group_by_key
from bench.metrics import STAGES
from bench.worker import protocol
from bench.workloads import is_real_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Actions, LaneActions
    from bench.engine.costs import TurnKind
    from bench.engine.state import RunState
    from bench.engine.task import Group, GroupCell, SideState
    from bench.samples import Cores, Sample

ONCE_COMMANDS = {"count": protocol.Count, "train": protocol.Train}
"""What is done once for a cell → its command."""
BLOCK_SECONDS = 1.0
"""Minimum seconds of a block, as far as `MOST_ROUNDS` allow: beside that, its fresh buffers, warm
calls and proof take little."""
MOST_ROUNDS = 128
"""Maximum rounds in a block: more tell less than other buffers do."""
MOST_CALL_ROUNDS = 512
"""Maximum rounds in a block of single calls: more tell less than another worker does."""
MEASURED_PER_MAKING = 3.0
"""Measuring time between two makings of all steps, per second of making: steps differ from making
to making as much as blocks of a second vary."""
UNREQUESTED_INTERVAL = 4
"""Interval, in blocks, at which an unrequested arm joins: results of the others are compared with
its own, which needs one block of a worker."""
PROVE_SHARE = 0.6
"""Fraction of the time left that a first visit may spend on proofs; then it measures, so that a
short budget has an answer about the arms that are proven by then."""


class Plan:
    """The plan of a whole run; between jobs, it asks whether there are enough samples by now."""

    def __init__(self, state: RunState, is_enough: Callable[[Sequence[Sample]], bool]) -> None:
        self.state, self.options, self.is_enough = state, state.options, is_enough
        self.requests, self.jobs = Requests(state), Jobs(state)

    def actions(self) -> Actions[None]:
        """Yield the actions to begin; expects the outcome of the one that ends next."""
        while not self.is_enough(self.state.samples) and (job := self.jobs.choose()):
            self.state.spent.precision = self.jobs.questions.measure_precision()
            match job:
                case WarmVisits():
                    yield from self.visit(job)
                case ColdSweeps():
                    yield from self.sweep(job)
                case OnceWork():
                    yield from self.do_once(job)
        self.state.note_missing(self.jobs.forecast_needs())

    def visit(self, job: WarmVisits) -> Actions[None]:
        """Open workers, measure in them, and close them.

        In a process that has compiled, a call costs the host about 8 % more until its end. The arms
        of one worker have that in common, the two workers of a pair do not: others prove for them,
        and for a worker that compiles its arms anew. On skeletons, it changes ratios by a tenth.
        """
        turn, counts, failures = job.turn, self.state.worker_counts, self.state.failed_visits
        groups, workload, compiles = job.groups, turn.workload, turn.kind == STAGES
        until = self.state.spent_seconds + PROVE_SHARE * self.state.seconds_left
        arms = {g: self.state.find_arms(g, turn, unproven=job.proves) for g in groups}
        if self.state.proves_before(turn):
            pairs = [(group, cell) for group in groups for cell in arms[group].values()]
            yield from self.prove(pairs, workload, job.cores, until)
        alive = {group: find_live_cells(group, workload).keys() for group in groups}
        visits = [
            Visit(group, workload, arms[group].keys(), until, compiles=compiles, cores=cores)
            for group, cores in zip(groups, job.cores, strict=True)
        ]
        opened = yield from self.open_visits(visits)
        counts.update((visit.group, turn) for visit in opened)
        seconds = self.jobs.allot_seconds(job, len(opened))
        done = yield from self.measure_visits(opened, turn, seconds, job.rounds)
        for visit in opened:
            counts[visit.group, turn] -= visit not in done
        ended = {visit.group for visit in done}
        for group in {*groups}:
            fewer = len(find_live_cells(group, workload)) < len(alive[group])  # an arm has ended it
            failures[group, turn] = 0 if group in ended else failures[group, turn] + (not fewer)

    def open_visits(self, visits: Sequence[Visit]) -> Actions[list[Visit]]:
        """Open the workers of visits at the same time; return those visits of which none died.

        Both sides of a pair begin together. When one was opened after the other, the first took 0.5
        % longer in each call until its end (standard error 0.1 %, 36 pairs); together, 0.1 % (0.1
        %).
        """

        def begin(visit: Visit, side: SideState, _: Cores) -> LaneActions[None]:
            visit.workers[side] = yield from self.requests.open_worker(side, visit)

        work = []
        for visit in visits:
            for side in self.state.rng.sample(visit.group, len(visit.group)):
                work.append(partial(begin, visit, side))
        yield from self.requests.run_phase([()] * len(work), work)
        opened = [visit for visit in visits if len(visit.workers) == len(visit.group)]
        alone = [pair for v in visits if v not in opened for pair in v.workers.items()]
        closing = [partial(self.requests.close, *pair) for pair in alone]
        yield from self.requests.run_phase([()], closing)
        return opened

    def measure_visits(
        self, visits: Sequence[Visit], turn: TurnKind, seconds: float, rounds: int
    ) -> Actions[list[Visit]]:
        """Measure in the workers of each visit, and close them; return those that came to an end.

        They measure at the same time, so that none is timed while another one compiles; with all
        cores, one after the other, and only the first still begins after the end of the budget.
        """
        done: list[Visit] = []

        def measure(visit: Visit, _: Cores) -> LaneActions[None]:
            visit_end = self.state.spent_seconds + seconds
            is_late = self.state.spent_seconds > self.state.end
            if done and is_late:  # the first visit still begins
                blocks = 0
            else:
                blocks = yield from self.measure_blocks(visit, turn, visit_end, rounds)
            if blocks:
                done.append(visit)
                for side in visit.group:
                    side.note_survival(visit.workload, self.common_arms(visit))
            for side in visit.group:
                yield from self.requests.close(side, visit.workers[side])

        lanes = list(dict.fromkeys(visit.cores for visit in visits))
        yield from self.requests.run_phase(lanes, [partial(measure, visit) for visit in visits])
        return done

    def measure_blocks(
        self, visit: Visit, turn: TurnKind, end: float, rounds: int
    ) -> LaneActions[int]:
        """Measure blocks until a time, one at least; return how many there were.

        Blocks of steps take some seconds each. Single calls have one block: on one side as long as
        there is time, on two sides of as many rounds as fit.
        """
        state, blocks = self.state, 0
        fixed_rounds = rounds if visit.compiles else self.options.rounds
        fills_time = turn.pairs_calls and not fixed_rounds and not self.options.is_fixed
        while blocks != self.options.blocks and (arms := self.choose_arms(visit, blocks)):
            left = end - state.spent_seconds
            if fills_time and len(visit.group) == 1:
                seconds = max(BLOCK_SECONDS, left)
                yield from self.measure_block(visit, turn, arms, MOST_CALL_ROUNDS, seconds)
                return 1
            if fills_time and (round_seconds := state.costs.round_seconds.get(turn)):
                fitting = min(MOST_CALL_ROUNDS, int(left / round_seconds))
                if blocks and fitting < rounds:
                    return blocks
                yield from self.measure_block(visit, turn, arms, max(rounds, fitting))
                return blocks + 1
            round_seconds = state.costs.block(visit.group, turn, arms) / turn.rounds
            count = fixed_rounds or self.choose_rounds(visit, turn, rounds, round_seconds)
            if blocks and self.options.blocks is None:
                count = fixed_rounds or max(rounds, min(count, int(left / round_seconds)))
                seconds = count * round_seconds
                if seconds / 2 > left or seconds > self.options.budget - state.spent_seconds:
                    break
            yield from self.measure_block(visit, turn, arms, count)
            blocks += 1
        return blocks

    def choose_arms(self, visit: Visit, blocks: int) -> list[str]:
        """Return the arms of a visit's next block, after so many; none if only unrequested ones.

        There may have been time to prove the baseline alone, which nobody asked for.
        """
        arms = self.common_arms(visit)
        if blocks % UNREQUESTED_INTERVAL or visit.compiles:
            arms = [arm for arm in arms if arm not in self.state.unrequested_arms]
        return arms

    def choose_rounds(self, visit: Visit, turn: TurnKind, rounds: int, round_seconds: float) -> int:
        """Return the rounds of a block of some seconds, at least as many as given."""
        if is_real_step(turn.workload) and not self.state.costs.is_timed(visit.group, turn):
            return min(rounds, FEW_ROUNDS)  # a step may take milliseconds or seconds
        return max(rounds, min(MOST_ROUNDS, int(BLOCK_SECONDS / round_seconds)))

    def common_arms(self, visit: Visit) -> list[str]:
        """Return the living arms that all of a visit's workers hold; none without the baseline.

        Results of the arms that are timed are compared with the baseline's.
        """
        held = set.intersection(*map(self.requests.held_arms.__getitem__, visit.workers.values()))
        arms = [arm for arm in find_live_cells(visit.group, visit.workload) if arm in held]
        return arms if str(BASELINE) in arms else []

    def measure_block(
        self, visit: Visit, turn: TurnKind, arms: Sequence[str], rounds: int, seconds: float = 0.0
    ) -> LaneActions[None]:
        """Measure one block; on two sides, each arm's turns alternate between them.

        After some `seconds`, if there are any, it ends before it has all its rounds.
        """
        state, costs, requests = self.state, self.state.costs, self.requests
        state.spent.blocks += 1
        block, pair = state.spent.blocks, min(visit.workers.values())
        sides = state.rng.sample(visit.group, len(visit.group))
        first, *others = sides
        making = costs.making(visit.group, turn.workload, arms)
        programs = {}
        if visit.compiles and not others:  # in a pair, each arm is compared with itself
            programs = {arm: first.cells[first.cell(arm, turn.workload)].program for arm in arms}
        anew = not visit.compiles and visit.measured_seconds >= MEASURED_PER_MAKING * making > 0
        command = protocol.TimeBlock(
            turn.workload,
            first.backend,
            turn.kind,
            state.rng.sample(arms, len(arms)),
            rounds,
            seed=state.rng.getrandbits(32),
            seconds=seconds,
            anew=anew,
            programs=programs,
        )
        action = first.make_action(
            visit.workers[first],
            command,
            cores=visit.cores,
            partner=visit.workers[others[0]] if others else 0,
            partner_environment=others[0].environment if others else "",
        )
        outcome = yield from requests.ask_workers(action, *sides)
        answers: list[protocol.Timed] = outcome.answers
        made = sum(answer.making for answer in answers)
        if made:
            costs.making_seconds[visit.group, turn.workload] = made
        measured = outcome.took - made
        state.spent.sampling_seconds += measured / requests.lanes_in_use
        visit.measured_seconds = measured + visit.measured_seconds * (not anew)
        calls = [sample.calls for answer in answers for sample in answer.samples]
        rounds = min(calls, default=rounds) if seconds else rounds
        total = sum(sum(answer.seconds.values()) for answer in answers) or 1.0
        if calls:  # or it is not known how many rounds there were
            costs.round_seconds[turn] = total / rounds
        state.note_disturbance(turn, is_disturbed=outcome.is_disturbed)
        for side, answer in zip(sides, answers, strict=True):
            samples = [] if outcome.is_disturbed else answer.samples
            requests.keep_samples(side, samples, pair, block, visit.cores)
            disturbed = answer.seconds if outcome.is_disturbed else answer.disturbed
            cells = (side.cell(arm, turn.workload) for arm in disturbed)
            side.disturbed.update((cell, turn.kind) for cell in cells)
            for arm, seconds in answer.seconds.items() if calls else ():
                whole = measured * seconds / total * turn.rounds / rounds
                costs.turn_seconds[side, turn, arm] = whole
        if any(answer.spoiled for answer in answers):
            for side, worker in visit.workers.items():
                yield from requests.close(side, worker)
            raise WorkerEndedError

    def prove(
        self, pairs: Iterable[GroupCell], workload: str, cores: Sequence[Cores], until: float
    ) -> Actions[None]:
        """Prove cells in workers that do nothing else, in all lanes, a side in each.

        After `until` seconds of the budget, only the reference is proven any more.
        """
        left: dict[SideState, tuple[Group, dict[str, None]]] = {}
        for group, cell in pairs:
            for side in group:
                if not side.is_proven(cell):
                    left.setdefault(side, (group, {}))[1][str(cell.arm)] = None

        def prove(side: SideState, visit: Visit, cores: Cores) -> LaneActions[None]:
            visit.cores = cores
            worker = yield from self.requests.open_worker(side, visit)
            yield from self.requests.close(side, worker)

        proofs = []
        for i, (side, (group, arms)) in enumerate(left.items()):
            workers = max(1, len(cores) // len(left) + (i < len(cores) % len(left)))
            for _ in range(min(workers, len(arms))):
                visit = Visit(group, workload, arms, until, only_proves=True)
                proofs.append(partial(prove, side, visit))
        yield from self.requests.run_phase(cores, proofs)

    def sweep(self, job: ColdSweeps) -> Actions[None]:
        """Measure cold processes of each cell, every sweep in another random order.

        The first processes say what one costs, and so how many cells fit.
        """
        by_cores = group_by_key((tuple(self.state.cores(pair[0])), pair) for pair in job.pairs)
        for cores, unproven in by_cores.items():
            yield from self.prove(unproven, job.workload, cores, math.inf)
        pairs = [(g, cell) for g, cell in job.pairs if all(side.is_proven(cell) for side in g)]
        lanes = self.state.cores(job.pairs[0][0])
        begun = pairs[: len(lanes)] if job.sweeps > 1 else []

        def processes() -> Iterator[GroupCell]:
            yield from begun
            fit = self.jobs.choose_fitting_cells(pairs, job.sweeps) if begun else pairs
            for number in range(job.sweeps):
                order = [pair for pair in fit if number or pair not in begun]
                yield from self.state.rng.sample(order, len(order))

        last = math.inf if self.options.cold_samples else (1 + OVERRUN) * self.options.budget
        cost, measure = self.state.costs.cold, self.requests.measure_cold
        in_time = (pair for pair in processes() if self.state.spent_seconds + cost(pair[0]) <= last)
        yield from self.requests.run_phase(lanes, (partial(measure, *pair) for pair in in_time))

    def do_once(self, job: OnceWork) -> Actions[None]:
        """Count or train some cells of one workload, a part of them in each lane.

        Where a worker dies, the cell that it is at and those after it are still to do.
        """
        requests, side, do = self.requests, job.side, job.do

        def count_or_train(cells: Sequence[Cell], cores: Cores) -> LaneActions[None]:
            if do == "train":
                arms = {str(cell.arm) for cell in cells} | {*map(str, REFERENCE)}
                visit = Visit((side,), cells[0].workload, arms, cores=cores)
                worker = yield from requests.open_worker(side, visit)
            else:
                worker = yield from requests.load_worker(side, cells, cores)
            for cell in cells:
                able = do == "count" or str(cell.arm) in requests.held_arms[worker]
                if (
                    able
                    and side.cells[cell].failure is None
                    and self.state.spent_seconds <= self.state.end
                ):
                    yield from requests.ask_arm(side, worker, ONCE_COMMANDS[do], cell)
                self.state.finished_once.add((do, side, cell))
            yield from requests.close(side, worker)

        lanes = self.state.cores((side,))
        order = self.state.rng.sample(job.cells, len(job.cells))
        parts = [order[i :: len(lanes)] for i in range(min(len(lanes), len(order)))]
        yield from requests.run_phase(lanes, [partial(count_or_train, part) for part in parts])
