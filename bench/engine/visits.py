"""What can be done in a run: visits of workers, cold processes, counts and trainings.

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
    from bench.engine.costs import TurnKind
    from bench.engine.state import Group, SideState
    from bench.options import Options
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

    def __init__(self, options: Options, base: str = "") -> None:
        self.options, self.base = options, base
        self.rng = random.Random()  # noqa: S311 -- an order is no secret
        self.spent = TimeSpent()
        self.samples: list[Sample] = []
        self.costs = Costs()
        self.lanes_in_use = 1
        """Lanes of the present phase."""
        self.held: dict[int, set[str]] = {}
        """Arms whose steps each living worker holds."""
        self.unasked: frozenset[str] = frozenset()
        """Arms that were not asked for."""
        self.over: set[tuple[Do, SideState, Cell]] = set()
        """Counts and trainings that are done, failed, or too late."""

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
            free = [waiting.pop(outcome.worker)]
        self.lanes_in_use = 1

    def do(self, action: Action) -> Steps[Outcome]:
        """Ask for one action and take the time it took."""
        outcome = yield action
        self.spent.wall_seconds = max(self.spent.wall_seconds, outcome.at)
        if action.do in ("block", "train") and outcome.death is None:
            making = sum(part.making for part in outcome.answer) if action.do == "block" else 0.0
            self.spent.sampling_seconds += (outcome.took - making) / self.lanes_in_use
        return outcome

    def done(self, side: SideState, action: Action) -> Steps[Outcome | None]:
        """Let a worker of a side do something, and note what failed; None where that ended it."""
        outcome = yield from self.do(action)
        if outcome.death is not None:
            side.died(outcome.death, action)
            self.held.pop(action.worker, None)
            return None
        side.did_well(action)
        answer = outcome.answer
        if isinstance(answer, protocol.Failed):
            side.fail_arm(action.arms[0], answer.failure, action.workload, answer.stderr)
        elif isinstance(answer, protocol.Failures):
            for arm, failure in answer.failures.items():
                side.fail_arm(arm, failure, action.workload)
        if getattr(answer, "spoiled", False):
            yield from self.close(side, action.worker)
            return None
        return outcome

    def next_worker(self) -> int:
        """Return the number of a new process."""
        self.spent.processes += 1
        return self.spent.processes

    # opening

    def open(self, side: SideState, visit: Visit) -> Steps[int | None]:
        """Start a side's worker and make its living arms' steps; None if that cannot be.

        Of the arms that are not proven yet, this worker proves its part.
        """
        while not side.given_up:
            cells = [c for c in side.alive(visit.workload) if str(c.arm) in visit.arms]
            if visit.compiles:
                rows = side.cells
                cells = [c for c in cells if rows[c].proof and "compile" not in rows[c].missing]
            if not cells:
                return None
            kind = STAGES if visit.compiles else ""
            worker = yield from self.loaded(side, cells, visit.cores, kind)
            if worker is None:
                continue
            if visit.compiles:
                self.held[worker] = {str(c.arm) for c in cells if side.cells[c].failure is None}
                return worker
            if (yield from self.made(side, worker, cells, visit)):
                return worker
        return None

    def loaded(
        self, side: SideState, cells: Sequence[Cell], cores: Cores, kind: str = ""
    ) -> Steps[int | None]:
        """Start a worker and let it import what some cells need; None if it died."""
        worker = self.next_worker()
        self.held[worker] = set()
        arms = self.rng.sample([str(cell.arm) for cell in cells], len(cells))
        started = yield from self.done(side, side.action("start", worker, cores=cores))
        if started is None:
            return None
        check = not any(map(side.proven, side.cells))
        seed = self.rng.getrandbits(32)
        more: dict[str, Any] = {"seed": seed, "cores": cores, "check": check, "kind": kind}
        action = side.action("load", worker, arms=arms, **more)
        outcome = yield from self.done(side, action)
        if outcome is None:
            return None
        if side not in self.costs.load_seconds or not check:
            self.costs.load_seconds[side] = started.took + outcome.took
        return worker

    def made(
        self, side: SideState, worker: int, cells: Sequence[Cell], visit: Visit
    ) -> Steps[bool]:
        """Prove or open cells in random order, the baseline at no fixed place; False if it died.

        Cells that another worker is proving come last: they can be opened by then. Cells that are
        proven on the other side of a pair come first: only common arms are measured.
        """
        waiting = self.rng.sample(cells, len(cells))
        others = [other for other in visit.group if other is not side]
        waiting.sort(key=lambda cell: not all(other.proven(cell) for other in others))
        while waiting:
            free = (c for c in waiting if side.proven(c) or c not in side.claimed)
            cell = next(free, waiting[0])
            waiting.remove(cell)
            late = self.now > visit.prove_until and cell.arm not in REFERENCE
            if side.cells[cell].failure is not None or (late and not side.proven(cell)):
                continue
            if visit.only_proves and (side.proven(cell) or cell in side.claimed):
                continue
            do: Do = "open" if side.proven(cell) else "prove"
            if not (yield from self.one(side, worker, do, cell)):
                return False
            if side.cells[cell].failure is None:
                self.held[worker].add(str(cell.arm))
        return True

    def one(self, side: SideState, worker: int, do: Do, cell: Cell) -> Steps[bool]:
        """Do one arm's own thing; False where the worker died of it."""
        result, arms = side.cells[cell], [str(cell.arm)]
        losses = side.cells[cell.baseline].losses if do == "open" else ()
        if do == "prove":
            side.claimed.add(cell)
        action = side.action(do, worker, cell.workload, arms, losses=tuple(losses))
        outcome = yield from self.done(side, action)
        side.claimed.discard(cell)
        if outcome is None:
            return False
        answer = outcome.answer
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
        if isinstance(answer, protocol.Sampled) and do == "count":
            layers = WORKLOADS[cell.workload].layers
            for other in side.alive():  # what Python does depends on the layers alone
                if other.arm == cell.arm and WORKLOADS[other.workload].layers == layers:
                    self.keep(side, other.workload, answer, outcome.at, worker)
        elif isinstance(answer, protocol.Proven | protocol.Sampled):
            self.keep(side, cell.workload, answer, outcome.at, worker)
        return True

    def keep(
        self,
        side: SideState,
        workload: str,
        answer: Any,
        at: float,
        worker: int,
        *,
        block: int = 0,
        cores: Cores = (),
        arm: str = "",
    ) -> None:
        """Add the samples of an answer that came `at` a time; of this arm, where one is given.

        Those of arms that nobody asked for would make intervals wider: they are few, and noisy.
        """
        taken = worker, block or worker, at, len(cores)
        for row in answer.samples:
            if (arm or row.arm) in self.unasked:
                continue
            cell = side.cell(arm or row.arm, workload)
            self.samples.append(Sample(side.environment, cell, row.metric, *taken, *row[2:]))

    def prove(self, side: SideState, visit: Visit, cores: Cores) -> Steps[None]:
        """Prove in a worker that measures nothing what is not proven yet of a side's arms."""
        visit.cores = cores
        worker = yield from self.open(side, visit)
        if worker is not None:
            yield from self.close(side, worker)

    # visits

    def opened(self, lanes: Sequence[Cores], visits: Sequence[Visit]) -> Phases[list[Visit]]:
        """Open the workers of visits at the same time, one visit's on each lane's cores.

        Both sides of a pair begin together. Where one was opened after the other, the first took
        0.5 % longer in each call until its end (standard error 0.1 %, 36 pairs); so, 0.1 % (0.1 %).

        Returns:
            Visits of which no worker died.
        """

        def begin(visit: Visit, side: SideState, _: Cores) -> Steps[None]:
            worker = yield from self.open(side, visit)
            if worker is not None:
                visit.workers[side] = worker

        work = []
        for visit, cores in zip(visits, lanes, strict=True):
            visit.cores = cores
            for side in self.rng.sample(visit.group, len(visit.group)):
                work.append(partial(begin, visit, side))
        yield from self.phase([()] * len(work), work)
        alone = [visit for visit in visits if len(visit.workers) < len(visit.group)]
        for side, worker in [pair for visit in alone for pair in visit.workers.items()]:
            yield from self.phase([()], [partial(self.close, side, worker)])
        return [visit for visit in visits if len(visit.workers) == len(visit.group)]

    def measured(
        self,
        visits: Sequence[Visit],
        turn: TurnKind,
        seconds: float,
        rounds: int,
        until: float = math.inf,
    ) -> Phases[list[Visit]]:
        """Measure in the workers of each visit, and close them; return those that came to an end.

        All at the same time, so that none is timed while another one compiles; those that use all
        cores one after the other.

        Args:
            visits: Open ones.
            turn: What is measured.
            seconds: Of blocks in each.
            rounds: In a block.
            until: Seconds of the budget after which a second visit takes no first block.
        """
        done: list[Visit] = []

        def measure(visit: Visit, _: Cores) -> Steps[None]:
            end = math.inf if self.options.fixed else self.now + seconds
            late = bool(done) and self.now > until
            if not late and (yield from self.blocks_of(visit, turn, end, rounds)):
                done.append(visit)
                for side in visit.group:
                    side.lived(visit.workload, self.common(visit))
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
        if not self.base:  # blocks of two environments have no arms in common
            rows = [s for s in rows if s.environment == rows[0].environment]
        times = max(1.0, self.options.budget * STEPS_SHARE / self.now)
        about = detectable_after(rows, times, base=self.base)
        if math.isfinite(about):
            self.spent.calls_vary, self.spent.forecast = variation(rows), about

    def blocks_of(self, visit: Visit, turn: TurnKind, end: float, rounds: int) -> Steps[bool]:
        """Measure blocks until a time, one at least; False where a worker died."""
        number, given = 0, rounds if visit.compiles else self.options.rounds
        while arms := self.common(visit):
            if self.options.blocks is not None and number >= self.options.blocks:
                break
            if number % SELDOM or visit.compiles:
                arms = [arm for arm in arms if arm not in self.unasked]
            one = self.costs.block(visit.group, turn, arms) / turn.rounds
            count = given or max(rounds, min(MOST_ROUNDS, int(BLOCK_SECONDS / one)))
            if self.options.blocks is None and number:
                count = given or max(rounds, min(count, int((end - self.now) / one)))
                last = self.now + one * count > self.options.budget
                if last or self.now + one * count / 2 > end:
                    break
            if not (yield from self.in_turns(visit, turn, arms, count)):
                return False
            number += 1
        return number > 0

    def common(self, visit: Visit) -> list[str]:
        """Return the arms that live, and that all of a visit's workers hold.

        None without the baseline: what an arm computed while it was timed is compared with that.
        """
        held = set.intersection(*(self.held[worker] for worker in visit.workers.values()))
        arms = [arm for arm in living(visit.group, visit.workload) if arm in held]
        return arms if str(BASELINE) in arms else []

    def in_turns(
        self, visit: Visit, turn: TurnKind, arms: Sequence[str], rounds: int
    ) -> Steps[bool]:
        """Measure one block, on two sides by turns of each arm; False where a worker ended."""
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
        outcome = yield from self.do(action)
        if outcome.death is not None:
            worker = outcome.death.worker or action.worker
            dead = next(side for side in sides if visit.workers[side] == worker)
            dead.died(outcome.death, action)
            for number in action.workers:
                self.held.pop(number, None)
            return False
        answers: list[protocol.Timed] = outcome.answer
        made = sum(answer.making for answer in answers)
        if made:
            self.costs.making_seconds[visit.group, turn.workload] = made
        measured = outcome.took - made
        visit.measured_seconds = measured + visit.measured_seconds * (not anew)
        total = sum(sum(answer.seconds.values()) for answer in answers) or 1.0
        for side, answer in zip(sides, answers, strict=True):
            side.did_well(action)
            for arm, failure in answer.failures.items():
                side.fail_arm(arm, failure, turn.workload)
            taken: dict[str, Any] = {"block": block, "cores": visit.cores}
            self.keep(side, turn.workload, answer, outcome.at, pair, **taken)
            for arm, seconds in answer.seconds.items():
                whole = measured * seconds / total * turn.rounds / rounds
                self.costs.turn_seconds[side, turn, arm] = whole
        for side, answer in zip(sides, answers, strict=True):
            if answer.spoiled:
                yield from self.close(side, visit.workers[side])
        return not any(answer.spoiled for answer in answers)

    def close(self, side: SideState, worker: int, _: Cores = ()) -> Steps[None]:
        """End a worker, unless it has died."""
        if self.held.pop(worker, None) is not None:
            yield from self.do(side.action("close", worker))

    # what is done once

    def cold(self, group: Group, cell: Cell, cores: Cores) -> Steps[None]:
        """Measure one cold process of a cell on each side, in random order.

        A process that dies costs its own sample: it is begun once more.
        """
        number = self.spent.processes + 1
        for side in self.rng.sample(group, len(group)):
            if not (yield from self.cold_on(side, cell, number, cores)):
                yield from self.cold_on(side, cell, number, cores)

    def cold_on(self, side: SideState, cell: Cell, number: int, cores: Cores) -> Steps[bool]:
        """Measure a cold process on one side, unless too many have died; False if this one did."""
        if not side.begins_cold(cell):
            return True
        worker, arm = self.next_worker(), str(cell.arm)
        cores = cores if side.backend == "cpu" else ()
        outcome = yield from self.do(side.action("cold", worker, cell.workload, [arm], cores=cores))
        if outcome.death is not None:
            side.cold_deaths[cell] += 1
            side.deaths[arm, cell.workload] = outcome.death.reason
            side.notes.append(f"a cold process of {cell} died: {outcome.death.reason}")
            return False
        answer: protocol.Cold = outcome.answer
        self.costs.cold_seconds[side] = outcome.took
        self.spent.sampling_seconds += answer.timed_seconds / self.lanes_in_use
        self.keep(side, cell.workload, answer, outcome.at, number, cores=cores, arm=arm)
        return True

    def count_or_train(
        self, side: SideState, do: Do, cells: Sequence[Cell], end: float, cores: Cores
    ) -> Steps[None]:
        """Count or train cells of one workload in a worker.

        Where it dies, that cell and those after it are still to do.
        """
        if do == "train":
            arms = {str(cell.arm) for cell in cells} | {*map(str, REFERENCE)}
            worker = yield from self.open(
                side, Visit((side,), cells[0].workload, arms, cores=cores)
            )
        else:
            worker = yield from self.loaded(side, cells, cores)
        if worker is None:
            return
        for cell in cells:
            able = do == "count" or str(cell.arm) in self.held[worker]
            able = able and side.cells[cell].failure is None
            if able and self.now <= end and not (yield from self.one(side, worker, do, cell)):
                return
            self.over.add((do, side, cell))
        yield from self.close(side, worker)
