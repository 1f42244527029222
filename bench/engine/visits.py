"""What workers do in a run: prove and open arms, measure blocks; and cold processes.

A *visit* opens one worker on each side of a group, on the same cores, measures blocks of one kind
of turns in both together, and closes them. A run has groups of one side, an A/B and a history of
two. What comes when is the plan's (`bench.engine.plan`).
"""

from __future__ import annotations

import math
import random
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import BASELINE, REFERENCE
from bench.engine.costs import Costs
from bench.metrics import STAGES, STEP
from bench.runfile import Proof, TimeSpent
from bench.samples import Sample
from bench.stats.forecast import detectable_after, variation
from bench.worker import protocol
from common.config import WORKLOADS, is_own

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action, Do, Lanes, LaneWork, Outcome, Phases, Steps
    from bench.engine.agenda import Agenda
    from bench.engine.costs import TurnKind
    from bench.engine.state import Group, SideState
    from bench.samples import Cores

NOT_JAX = "not written in JAX: nothing is traced, lowered or compiled by it"
UNKNOWN_PROGRAM = "the program of a `make_step` is not known: its first step compiles it"
"""Why an arm has no times of stages, whatever the budget."""
BLOCK_SECONDS = 1.0
"""Seconds that a block takes at least where that is no more than `MOST_ROUNDS`: from then on, what
its fresh buffers, warm calls and proof take is little beside it."""
MOST_ROUNDS = 128
"""Rounds in a block at most: more tell less than other buffers do."""
MEASURED_PER_MAKING = 3.0
"""Seconds that are measured between two makings of all steps, per second that one takes: what steps
differ by from making to making is as large as what a second of blocks varies by."""
STEPS_SHARE = 0.5
"""Fraction of a budget that goes to the steps of the first workload, with opening and proving: a
third of a default run is steps, nearly all of an A/B of steps."""
SELDOM = 4
"""An arm that nobody asked for is in one block of so many: what others computed is compared with
it, which takes one block of a worker."""
COLD_TRIES = 2
"""Times that a cold process is begun: one that dies costs its own sample, not the cell's."""


class WorkerEndedError(Exception):
    """A worker has ended, or none can be opened: with it ends what a lane was doing."""


@dataclass
class Visit:
    """Workers of a group on the same cores, and what they measure by turns."""

    group: Group
    workload: str
    arms: Collection[str]
    """Those that take part."""
    prove_until: float = math.inf
    """Seconds of the budget after which only the reference is proven any more."""
    only_proves: bool = False
    """Whether its worker proves for others, and measures nothing."""
    compiles: bool = False
    """Whether its turns make and compile the steps of arms that others have proven."""
    cores: Cores = ()
    workers: dict[SideState, int] = field(default_factory=dict)
    """Numbers of its open workers."""
    measured_seconds: float = 0.0
    """Seconds of its blocks since their steps were made."""


def living(group: Group, workload: str) -> dict[str, Cell]:
    """Return the cells that are alive on all sides by arm, in a fixed order."""
    sides = [{str(cell.arm): cell for cell in side.alive(workload)} for side in group]
    return {arm: sides[0][arm] for arm in sorted(set.intersection(*map(set, sides)))}


class Visits:
    """What can be done, and what came of it."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda, self.options = agenda, agenda.options
        self.rng = random.Random()  # noqa: S311 -- an order is no secret
        self.spent = TimeSpent()
        self.samples: list[Sample] = []
        self.costs = Costs()
        self.lanes_in_use = 1
        """Lanes of the present phase."""
        self.held: dict[int, set[str]] = {}
        """Arms whose steps each living worker holds."""

    @property
    def now(self) -> float:
        """Seconds of the budget that are spent."""
        return self.spent.wall_seconds

    # phases and lanes

    def phase(self, lanes: Sequence[Cores], jobs: Iterable[LaneWork]) -> Lanes:
        """Do jobs; each lane takes the next one when it has done its last.

        Each lane has one action under way at any time. A job is asked for when a lane is free:
        costs are known better by then.
        """
        left = iter(jobs)

        def lane(cores: Cores) -> Steps[None]:
            for job in left:
                with suppress(WorkerEndedError):
                    yield from job(cores)

        self.lanes_in_use = len(lanes)
        waiting: dict[int, Steps[None]] = {}
        outcome: Any = None
        free = [lane(cores) for cores in lanes]
        while True:
            begin: list[Action] = []
            for steps in free:
                with suppress(StopIteration):
                    action = steps.send(outcome)
                    waiting[action.worker] = steps
                    begin.append(action)
            if not waiting:
                break
            outcome = yield tuple(begin)
            self.spent.wall_seconds = max(self.spent.wall_seconds, outcome.at)
            free = [waiting.pop(outcome.worker)]
        self.lanes_in_use = 1

    def ask_workers(self, action: Action, *sides: SideState) -> Steps[Outcome]:
        """Let a worker of each side do something, and note what failed.

        Raises:
            WorkerEndedError: one died, or is ended because an arm has left it in a wrong state.
        """
        outcome = yield action
        if outcome.death is not None:
            sides[action.workers.index(outcome.death.number)].died(outcome.death, action)
            for worker in action.workers:
                self.held.pop(worker, None)
            raise WorkerEndedError
        answers = outcome.answer if action.do == "block" else [outcome.answer]
        for side, answer in zip(sides, answers, strict=True):
            side.did_well(action)
            if isinstance(answer, protocol.Failed):
                side.fail_arm(action.arms[0], answer.failure, action.workload, answer.stderr)
            elif isinstance(answer, protocol.Failures | protocol.Timed):
                for arm, failure in answer.failures.items():
                    side.fail_arm(arm, failure, action.workload)
        if getattr(outcome.answer, "spoiled", False):  # a block has samples, which come first
            yield from self.close(sides[0], action.worker)
            raise WorkerEndedError
        return outcome

    # opening

    def open_worker(self, side: SideState, visit: Visit) -> Steps[int]:
        """Start a side's worker and make its living arms' steps; return its number.

        Of the arms that are not proven yet, this worker proves its part.

        Raises:
            WorkerEndedError: none can be opened.
        """
        rows = side.cells
        while not side.given_up:
            cells = [c for c in side.alive(visit.workload) if str(c.arm) in visit.arms]
            if visit.compiles:
                cells = [c for c in cells if rows[c].proof and "compile" not in rows[c].missing]
            if not cells:
                break
            with suppress(WorkerEndedError):
                kind = STAGES if visit.compiles else ""
                worker = yield from self.load_worker(side, cells, visit.cores, kind)
                if visit.compiles:
                    self.held[worker] = {str(c.arm) for c in cells if rows[c].failure is None}
                else:
                    yield from self.make_steps(side, worker, cells, visit)
                return worker
        raise WorkerEndedError

    def load_worker(
        self, side: SideState, cells: Sequence[Cell], cores: Cores, kind: str = ""
    ) -> Steps[int]:
        """Start a worker and let it import what some cells need; return its number."""
        self.spent.processes += 1
        worker = self.spent.processes
        self.held[worker] = set()
        arms = self.rng.sample([str(cell.arm) for cell in cells], len(cells))
        start = side.action("start", worker, cores=cores)
        started = yield from self.ask_workers(start, side)
        check = not any(map(side.proven, side.cells))
        seed = self.rng.getrandbits(32)
        load = side.action("load", worker, arms=arms, seed=seed, check=check, kind=kind)
        loaded = yield from self.ask_workers(load, side)
        if side not in self.costs.load_seconds or not check:
            self.costs.load_seconds[side] = started.took + loaded.took
        return worker

    def make_steps(
        self, side: SideState, worker: int, cells: Sequence[Cell], visit: Visit
    ) -> Steps[None]:
        """Prove or open cells in random order, the baseline at no fixed place.

        Cells that another worker is proving come last: they can be opened by then. Cells that are
        proven on the other side of a pair come first: only common arms are measured.
        """
        waiting = self.rng.sample(cells, len(cells))
        others = [other for other in visit.group if other is not side]
        waiting.sort(key=lambda cell: not all(other.proven(cell) for other in others))
        while waiting:
            claimed = {cell for cell, prover in side.claimed.items() if prover in self.held}
            free = (c for c in waiting if side.proven(c) or c not in claimed)
            cell = next(free, waiting[0])
            waiting.remove(cell)
            late = self.now > visit.prove_until and cell.arm not in REFERENCE
            if side.cells[cell].failure is not None or (late and not side.proven(cell)):
                continue
            if visit.only_proves and (side.proven(cell) or cell in claimed):
                continue
            yield from self.ask_arm(side, worker, "open" if side.proven(cell) else "prove", cell)
            if side.cells[cell].failure is None:
                self.held[worker].add(str(cell.arm))

    def ask_arm(self, side: SideState, worker: int, do: Do, cell: Cell) -> Steps[None]:
        """Let a worker prove, open, count or train one arm, and keep what came of it."""
        result, arms = side.cells[cell], [str(cell.arm)]
        losses = side.cells[cell.baseline].losses if do == "open" else ()
        action = side.action(do, worker, cell.workload, arms, losses=tuple(losses))
        side.claimed[cell] = worker
        outcome = yield from self.ask_workers(action, side)
        answer, workloads = outcome.answer, [cell.workload]
        if isinstance(answer, protocol.Proven):
            result.proof = msgspec.convert(answer.proof, Proof)
            result.losses, result.program = answer.losses, answer.program
            if not result.program:
                reason = UNKNOWN_PROGRAM if is_own(cell.workload) else NOT_JAX
                asked = side.needed.get(cell, frozenset()) & {*protocol.KINDS[STAGES]}
                result.missing |= dict.fromkeys(asked, reason)
            self.costs.proof_seconds.append(outcome.took)
        elif do == "open":
            self.costs.open_seconds[side, cell] = outcome.took
        elif do == "train":
            self.spent.sampling_seconds += outcome.took / self.lanes_in_use
        elif do == "count":  # what Python does depends on the layers alone
            layers = WORKLOADS[cell.workload].layers
            alike = (other.workload for other in side.alive() if other.arm == cell.arm)
            workloads = [name for name in alike if WORKLOADS[name].layers == layers]
        for workload in workloads:
            self.keep_samples(side, workload, getattr(answer, "samples", ()), worker)

    def keep_samples(
        self,
        side: SideState,
        workload: str,
        rows: Iterable[protocol.WorkerSample],
        worker: int,
        block: int = 0,
        cores: Cores = (),
    ) -> None:
        """Add what a worker has just measured.

        Samples of arms that were not asked for would make intervals wider: they are few, and noisy.
        """
        taken = {"worker": worker, "block": block or worker, "at": self.now, "cores": len(cores)}
        for row in rows:
            if row.arm not in self.agenda.unasked:
                place = {"environment": side.environment, "cell": side.cell(row.arm, workload)}
                numbers = row._asdict()
                del numbers["arm"]
                self.samples.append(Sample(**place, **taken, **numbers))

    # visits

    def open_visits(self, visits: Sequence[Visit]) -> Phases[list[Visit]]:
        """Open the workers of visits at the same time; return those visits of which none died.

        Both sides of a pair begin together. Where one was opened after the other, the first took
        0.5 % longer in each call until its end (standard error 0.1 %, 36 pairs); so, 0.1 % (0.1 %).
        """

        def begin(visit: Visit, side: SideState, _: Cores) -> Steps[None]:
            visit.workers[side] = yield from self.open_worker(side, visit)

        work = []
        for visit in visits:
            for side in self.rng.sample(visit.group, len(visit.group)):
                work.append(partial(begin, visit, side))
        yield from self.phase([()] * len(work), work)
        opened = [visit for visit in visits if len(visit.workers) == len(visit.group)]
        alone = [pair for v in visits if v not in opened for pair in v.workers.items()]
        yield from self.phase([()], [partial(self.close, *pair) for pair in alone])
        return opened

    def measure_visits(
        self, visits: Sequence[Visit], turn: TurnKind, seconds: float, rounds: int
    ) -> Phases[list[Visit]]:
        """Measure in the workers of each visit, and close them; return those that came to an end.

        All at the same time, so that none is timed while another one compiles; those that use all
        cores one after the other, of which only the first still begins where the budget has ended.
        """
        done: list[Visit] = []

        def measure(visit: Visit, _: Cores) -> Steps[None]:
            end = self.now + seconds
            late = bool(done) and self.now > self.agenda.end
            if not late and (yield from self.measure_blocks(visit, turn, end, rounds)):
                done.append(visit)
                for side in visit.group:
                    side.lived(visit.workload, self.common_arms(visit))
            for side in visit.group:
                yield from self.close(side, visit.workers[side])

        lanes = list(dict.fromkeys(visit.cores for visit in visits))
        yield from self.phase(lanes, [partial(measure, visit) for visit in visits])
        if turn.kind == STEP and not self.spent.forecast:
            self.forecast(turn.workload)
        return done

    def forecast(self, workload: str) -> None:
        """Say what the budget can tell, by the first blocks of a workload's steps."""
        if self.options.fixed:
            return
        rows = [s for s in self.samples if (s.metric, s.cell.workload) == (STEP, workload)]
        rows = [s for s in rows if s.worker > self.spent.earlier_processes]
        if not self.agenda.base:  # blocks of two environments have no arms in common
            rows = [s for s in rows if s.environment == rows[0].environment]
        times = max(1.0, self.options.budget * STEPS_SHARE / self.now)
        about = detectable_after(rows, times, base=self.agenda.base)
        if math.isfinite(about):
            self.spent.calls_vary, self.spent.forecast = variation(rows), about

    def measure_blocks(self, visit: Visit, turn: TurnKind, end: float, rounds: int) -> Steps[int]:
        """Measure blocks until a time, one at least; return how many there were."""
        number, given = 0, rounds if visit.compiles else self.options.rounds
        while arms := self.common_arms(visit):
            if self.options.blocks is not None and number >= self.options.blocks:
                break
            if number % SELDOM or visit.compiles:
                arms = [arm for arm in arms if arm not in self.agenda.unasked]
            one = self.costs.block(visit.group, turn, arms) / turn.rounds
            count = given or max(rounds, min(MOST_ROUNDS, int(BLOCK_SECONDS / one)))
            if self.options.blocks is None and number:
                count = given or max(rounds, min(count, int((end - self.now) / one)))
                last = self.now + one * count > self.options.budget
                if last or self.now + one * count / 2 > end:
                    break
            yield from self.measure_block(visit, turn, arms, count)
            number += 1
        return number

    def common_arms(self, visit: Visit) -> list[str]:
        """Return the arms that live, and that all of a visit's workers hold.

        None without the baseline: what an arm computed while it was timed is compared with that.
        """
        held = set.intersection(*(self.held[worker] for worker in visit.workers.values()))
        arms = [arm for arm in living(visit.group, visit.workload) if arm in held]
        return arms if str(BASELINE) in arms else []

    def measure_block(
        self, visit: Visit, turn: TurnKind, arms: Sequence[str], rounds: int
    ) -> Steps[None]:
        """Measure one block, on two sides by turns of each arm."""
        self.spent.blocks += 1
        block, pair = self.spent.blocks, min(visit.workers.values())
        sides = self.rng.sample(visit.group, len(visit.group))
        first, *others = sides
        making = self.costs.making(visit.group, turn.workload, arms)
        programs = {}
        if visit.compiles and not others:  # in a pair, each arm is compared with itself
            programs = {arm: first.cells[first.cell(arm, turn.workload)].program for arm in arms}
        anew = not visit.compiles and visit.measured_seconds >= MEASURED_PER_MAKING * making > 0
        action = first.action(
            "block",
            visit.workers[first],
            turn.workload,
            self.rng.sample(arms, len(arms)),
            kind=turn.kind,
            rounds=rounds,
            seed=self.rng.getrandbits(32),
            cores=visit.cores,
            anew=anew,
            programs=programs,
            partner=visit.workers[others[0]] if others else 0,
            partner_environment=others[0].environment if others else "",
        )
        outcome = yield from self.ask_workers(action, *sides)
        answers: list[protocol.Timed] = outcome.answer
        made = sum(answer.making for answer in answers)
        if made:
            self.costs.making_seconds[visit.group, turn.workload] = made
        measured = outcome.took - made
        self.spent.sampling_seconds += measured / self.lanes_in_use
        visit.measured_seconds = measured + visit.measured_seconds * (not anew)
        total = sum(sum(answer.seconds.values()) for answer in answers) or 1.0
        for side, answer in zip(sides, answers, strict=True):
            self.keep_samples(side, turn.workload, answer.samples, pair, block, visit.cores)
            for arm, seconds in answer.seconds.items():
                whole = measured * seconds / total * turn.rounds / rounds
                self.costs.turn_seconds[side, turn, arm] = whole
        if any(answer.spoiled for answer in answers):
            for side, worker in visit.workers.items():
                yield from self.close(side, worker)
            raise WorkerEndedError

    def close(self, side: SideState, worker: int, _: Cores = ()) -> Steps[None]:
        """End a worker, unless it has died."""
        if self.held.pop(worker, None) is not None:
            yield side.action("close", worker)

    # what is done once

    def measure_cold(self, group: Group, cell: Cell, cores: Cores) -> Steps[None]:
        """Measure one cold process of a cell on each side, in random order.

        A process that dies is begun once more, unless too many have died.
        """
        self.agenda.cold[group, cell] += 1
        number, arm = self.spent.processes + 1, str(cell.arm)
        for side in self.rng.sample(group, len(group)):
            own_cores = cores if side.backend == "cpu" else ()
            for _ in range(COLD_TRIES):
                if not side.begins_cold(cell):
                    break
                self.spent.processes += 1
                worker = self.spent.processes
                action = side.action("cold", worker, cell.workload, [arm], cores=own_cores)
                outcome = yield action
                if outcome.death is None:
                    answer: protocol.Cold = outcome.answer
                    self.costs.cold_seconds[side] = outcome.took
                    self.spent.sampling_seconds += answer.timed_seconds / self.lanes_in_use
                    # The control runs the baseline's code, and its worker says so
                    rows = [row._replace(arm=arm) for row in answer.samples]
                    self.keep_samples(side, cell.workload, rows, number, cores=own_cores)
                    break
                side.cold_deaths[cell] += 1
                side.deaths[arm, cell.workload] = outcome.death.reason
                side.notes.append(f"a cold process of {cell} died: {outcome.death.reason}")
