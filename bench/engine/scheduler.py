"""The one scheduler: environments, arms and workloads, measured by workers on given cores.

It looks at nothing but outcomes, no clock and no disk, so a run that was cut off is taken up by
feeding it the outcomes that were journalled. A run, an A/B, a history and a step of a bisection
are plans: they say which visits and cold processes come when (`run_plan`, `sides_plan`). What a
visit is, which worker proves what, what a death costs and where the time went is here, once.

A *visit* opens one worker on each of its sides, on the same cores, measures blocks in turns, and
closes them. A run has visits of one side, an A/B and a history of two.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.engine.actions import calls_of, rounds_of
from bench.engine.planner import COLD, LEAST_STEP, LOADING, OPEN_PART, SEED_STEP
from bench.metrics import HOST, METRICS
from bench.samples import BASELINE_ARM, CONTROL_ARM, Block, Found, Samples, Spent, Turn
from bench.worker import protocol
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action, Do, Lanes, Options, Outcome, Phases, Steps
    from bench.engine.state import Side
    from bench.samples import Cores

    type Job = Callable[[Cores], Steps[Any]]
    """Something to do on a lane's cores."""

PREPARED = ("epoch", "sample")
"""Kinds of turns that compile programs of their own in each worker."""
FAR, FAR_HOST, SELDOM = 2.0, 20.0, 4
"""An arm that takes so many times the baseline's time in a visit's first block is in every fourth
of the others: it is decided, and would take most of the time. What an arm costs the host is wanted
in microseconds, however much it is, so that there only the slowest rest."""
COLD_DEATHS = 3
"""Cold processes of a cell that may die before no more are begun."""
REFERENCES = (BASELINE_ARM, CONTROL_ARM)


class Visit(NamedTuple):
    """Workers of some sides on the same cores, and what they measure in turns."""

    sides: tuple[str, ...]
    turns: Mapping[Turn, float]
    """With the share of the time that each gets."""
    cores: Cores = ()
    opens: tuple[str, ...] = ()
    """Workloads to open beside those of the turns: they are to be proven."""
    leave_out: frozenset[tuple[Turn, str]] = frozenset()
    """Turns and arms that are settled: they sit this visit out."""
    rounds: int | None = None
    """In a block, where that is not what a turn usually has."""
    beside: frozenset[str] = frozenset()
    """Arms that were not asked for: they are in some blocks, for others to be compared with."""
    number: int = 0
    """Of the visit, the same for all its sides; 0 has workers numbered by themselves."""
    prove_until: Mapping[str, float] = MappingProxyType({})
    """By workload: seconds of the budget after which only its reference is proven any more."""
    workers: Mapping[str, int] = MappingProxyType({})
    """Numbers of its workers, by side, when they are open."""


class Scheduler:
    """What can be done, and what has been found."""

    def __init__(self, sides: Mapping[str, Side], options: Options, before: float = 0.0) -> None:
        """Begin; `before` are seconds that had been spent when the first action was asked for."""
        self.sides, self.options = sides, options
        self.rng = random.Random(options.seed)  # noqa: S311 -- an order is no secret
        self.spent = Spent(wall=before)
        for side in sides.values():
            side.state.spent = self.spent
        self.end = options.budget - 1.0 - 0.005 * options.budget
        """Seconds of the budget after which nothing begins: the report comes after."""
        self.blocks = 0
        """How many there have been."""
        self.width = 1
        """Lanes of the present phase."""
        self.cost: dict[tuple[str, Turn, str], float] = {}
        """Seconds of a side's arm in a block."""
        self.opening: dict[tuple[str, Cell], float] = {}
        """Seconds to open a cell; guessed from its proof, until it has been opened."""
        self.loading: dict[str, float] = {}
        """Seconds until a side's worker has imported everything."""
        self.cold_cost: dict[str, float] = {}
        """Seconds of a side's last cold process."""
        self.far: dict[tuple[str, Turn], set[str]] = defaultdict(set)
        self.held: dict[int, set[tuple[str, str]]] = defaultdict(set)
        """Workloads and arms whose steps a worker holds."""
        self.dead: set[int] = set()
        self.prepared: dict[tuple[int, Turn], set[str]] = {}
        """Arms that a worker has compiled for a turn that needs more than steps."""

    @property
    def now(self) -> float:
        """Seconds of the budget that are spent."""
        return self.spent.wall

    def in_common(self, names: Sequence[str], workload: str) -> list[str]:
        """Return the arms that are alive at a workload on all of some sides."""
        first, *others = [[str(c.arm) for c in self.sides[name].alive(workload)] for name in names]
        return [arm for arm in first if all(arm in each for each in others)]

    # what things cost

    def open_cost(self, names: Sequence[str], workloads: Iterable[str]) -> float:
        """Return about how many seconds it takes to open a worker on each of some sides."""
        workloads = set(workloads)
        alive = {(n, c) for n in names for c in self.sides[n].alive() if c.workload in workloads}
        known = [seconds for key, seconds in self.opening.items() if key in alive]
        return sum(known) + sum(self.loading.get(name, LOADING) for name in names)

    def costs(self, names: Sequence[str], turns: Iterable[Turn]) -> tuple[float, float]:
        """Return about how many seconds opening workers for turns takes, and a block of each."""
        opening = self.open_cost(names, [turn.workload for turn in turns])
        return opening, self.blocks_cost(names, turns)

    def blocks_cost(self, names: Sequence[str], turns: Iterable[Turn]) -> float:
        """Return about how many seconds one block of each turn takes, on all of some sides."""
        total = 0.0
        for turn in turns:
            arms = self.in_common(names, turn.workload)
            guess = (
                len(arms)
                * rounds_of(turn)
                * calls_of(turn)
                * self.step_cost(names[0], turn.workload)
            )
            total += self.block_cost(names, turn, arms) or guess
        return total

    def block_cost(self, names: Sequence[str], turn: Turn, arms: Iterable[str]) -> float:
        """Return how many seconds a block of these arms took; 0 where none has been seen."""
        return sum(self.cost.get((name, turn, arm), 0.0) for name in names for arm in arms)

    def step_cost(self, name: str, workload: str) -> float:
        """Return about how many seconds a step takes, over all arms of a side."""
        side = self.sides[name]
        values = [
            value
            for cell in side.alive(workload)
            for samples in side.state.cells[cell].blocks.get("step", [])[:1]
            for value in samples.values
        ]
        guess = SEED_STEP * WORKLOADS[workload].work / WORKLOADS["seed"].work
        return sum(values) / len(values) if values else max(LEAST_STEP, guess)

    def most_cold_cost(self) -> float:
        """Return about how many seconds a cold process takes, on any side."""
        return max([*self.cold_cost.values(), 0.0]) or COLD

    # phases and lanes

    def phase(self, lanes: Sequence[Cores], jobs: Iterable[Job]) -> Lanes:
        """Do jobs; each lane takes the next one when it has done its last.

        Each lane has one action under way at any time. Which lane goes on is decided by which
        action ends, and by nothing else, so that the same outcomes in the same order give the same
        actions. A job is asked for when a lane is free: costs are known better by then.
        """
        left = iter(jobs)

        def lane(cores: Cores) -> Steps[None]:
            for job in left:
                yield from job(cores)

        self.width = len(lanes)
        waiting: dict[int, Steps[None]] = {}
        begin: list[Action] = []
        for steps in map(lane, lanes):
            with suppress(StopIteration):
                action = next(steps)
                waiting[action.worker] = steps
                begin.append(action)
        while waiting:
            outcome = yield tuple(begin)
            steps, begin = waiting.pop(outcome.worker), []
            with suppress(StopIteration):
                action = steps.send(outcome)
                waiting[action.worker] = steps
                begin = [action]
        self.width = 1

    def do(self, action: Action) -> Steps[Outcome]:
        """Ask for one action and take the time it took."""
        outcome = yield action
        self.spent.wall = max(self.spent.wall, outcome.at)
        if action.do in ("block", "train") and outcome.death is None:
            self.spent.sampling += outcome.took / self.width
        return outcome

    def done(self, side: Side, action: Action) -> Steps[Outcome | None]:
        """Let a worker of a side do something, and note what failed; None where it died of it."""
        outcome = yield from self.do(action)
        if outcome.death is not None:
            side.died(outcome.death, action)
            self.dead.add(action.worker)
            return None
        side.did_well(action)
        answer = outcome.answer
        if isinstance(answer, protocol.Failed):
            side.fail_arm(action.arms[0], answer.failure, action.workload, answer.stderr)
        elif isinstance(answer, protocol.Failures | protocol.Timed):
            for arm, failure in answer.failures.items():
                side.fail_arm(arm, failure, action.workload)
        return outcome

    def next_worker(self) -> int:
        """Return the number of a new process."""
        self.spent.processes += 1
        return self.spent.processes

    # opening

    def open(
        self,
        name: str,
        workloads: Sequence[str],
        cores: Cores,
        arms: Iterable[str] | None = None,
        *,
        make: bool = True,
        prove_until: Mapping[str, float] | None = None,
    ) -> Steps[int | None]:
        """Start a worker of a side with its living arms proven or opened; None if it cannot be.

        Args:
            name: Of the side.
            workloads: To open; of those that are not proven yet, this worker proves its part.
            cores: That it keeps to.
            arms: To open; all that live if None. The baseline and its control always are.
            make: Whether to make the steps, or just to import.
            prove_until: By workload, seconds of the budget after which it proves the reference
                only.
        """
        side = self.sides[name]
        while not side.given_up:
            wanted = [
                cell
                for workload in workloads
                for cell in side.alive(workload)
                if arms is None or str(cell.arm) in {*arms, *REFERENCES}
            ]
            if not wanted:
                return None
            worker = self.next_worker()
            started = yield from self.loaded(side, worker, wanted, cores)
            if started and (
                not make or (yield from self.made(side, worker, wanted, prove_until or {}))
            ):
                return worker
        return None

    def loaded(self, side: Side, worker: int, wanted: Sequence[Cell], cores: Cores) -> Steps[bool]:
        """Start a worker and let it import; False if it died."""
        arms = tuple(dict.fromkeys(str(cell.arm) for cell in wanted))
        arms = tuple(self.rng.sample(arms, len(arms)))
        started = yield from self.done(side, side.action("start", worker, cores=cores))
        if started is None:
            return False
        check = not any(map(side.proven, wanted))
        seed = self.rng.getrandbits(32)
        action = side.action("load", worker, arms=arms, seed=seed, cores=cores, check=check)
        outcome = yield from self.done(side, action)
        if outcome is None:
            return False
        if side.name not in self.loading or not check:
            self.loading[side.name] = started.took + outcome.took
        side.state.notes.extend(n for n in outcome.answer.notes if n not in side.state.notes)
        return True

    def made(
        self, side: Side, worker: int, wanted: Sequence[Cell], prove_until: Mapping[str, float]
    ) -> Steps[bool]:
        """Prove or open cells in random order, the baseline at no fixed place; False if it died.

        What another living worker is proving comes last: by then it is proven, and is opened.
        """
        waiting = self.rng.sample(list(wanted), len(wanted))
        waiting.sort(key=lambda cell: -WORKLOADS[cell.workload].work)
        while waiting:
            free = [c for c in waiting if side.proven(c) or c not in side.claimed]
            cell = (free or waiting)[0]
            waiting.remove(cell)
            late = self.now > prove_until.get(cell.workload, math.inf)
            late = late and str(cell.arm) not in REFERENCES
            if side.state.cells[cell].failure is not None or (late and not side.proven(cell)):
                continue
            do: Do = "open" if side.proven(cell) else "prove"
            if not (yield from self.one(side, worker, do, cell)):
                return False
            if side.state.cells[cell].failure is None:
                self.held[worker].add((cell.workload, str(cell.arm)))
        return True

    def one(self, side: Side, worker: int, do: Do, cell: Cell) -> Steps[bool]:
        """Do one arm's own thing; False where the worker died of it."""
        found, arm = side.state.cells[cell], str(cell.arm)
        baseline = side.state.cells[side.cell(BASELINE_ARM, cell.workload)]
        losses = baseline.losses if do == "open" else ()
        if do == "prove":
            side.claimed.add(cell)
        action = side.action(do, worker, cell.workload, [arm], losses=losses)
        outcome = yield from self.done(side, action)
        side.claimed.discard(cell)
        if outcome is None:
            return False
        answer = outcome.answer
        if isinstance(answer, protocol.Proven):
            found.proof, found.losses = answer.proof, tuple(answer.losses)
            found.exact |= answer.exact
        elif isinstance(answer, protocol.Counted):
            layers = WORKLOADS[cell.workload].layers
            for each in side.alive():  # at all sizes it is the same
                if str(each.arm) == arm and WORKLOADS[each.workload].layers == layers:
                    side.state.cells[each].exact |= answer.exact
        elif isinstance(answer, protocol.Trained):
            found.training = answer.training
        if do == "open":
            self.opening[side.name, cell] = outcome.took
        elif do == "prove":  # most of it is compiling, which later workers need not do
            self.opening.setdefault((side.name, cell), OPEN_PART * outcome.took)
        return True

    # visits

    def opened(self, lanes: Sequence[Cores], visits: Iterable[Visit]) -> Phases[list[Visit]]:
        """Open the workers of visits at the same time, one in each lane; those that did not die."""
        found: list[Visit] = []
        yield from self.phase(lanes, [partial(self.begin, visit, found) for visit in visits])
        return sorted(found, key=lambda visit: lanes.index(visit.cores))

    def measured(self, visits: Sequence[Visit], seconds: float) -> Phases[list[Visit]]:
        """Measure for so many seconds in the workers of each visit, and close them.

        At the same time, so that none is timed while another one compiles; those that use all cores
        one after the other.

        Returns:
            The visits that came to their end.
        """
        done: list[Visit] = []

        def measure(visit: Visit, _: Cores) -> Steps[None]:
            end = math.inf if self.options.fixed else self.now + seconds
            if (yield from self.blocks_of(visit, end)):
                done.append(visit)
            yield from self.close(visit.workers)

        lanes = list(dict.fromkeys(visit.cores for visit in visits))
        yield from self.phase(lanes, [partial(measure, visit) for visit in visits])
        return done

    def begin(self, visit: Visit, found: list[Visit], cores: Cores) -> Steps[None]:
        """Open the workers of a visit, which is then one of those found; none if one cannot be."""
        workloads = list(dict.fromkeys([*visit.opens, *(turn.workload for turn in visit.turns)]))
        arms = {
            arm
            for turn in visit.turns
            for arm in self.in_common(visit.sides, turn.workload)
            if (turn, arm) not in visit.leave_out
        }
        workers: dict[str, int] = {}
        for name in self.rng.sample(visit.sides, len(visit.sides)):
            wanted = None if visit.opens else arms
            worker = yield from self.open(
                name, workloads, cores, wanted, prove_until=visit.prove_until
            )
            if worker is None:
                yield from self.close(workers)
                return
            workers[name] = worker
        for turn in visit.turns:
            if turn.kind in PREPARED and not (yield from self.prepare(workers, turn, cores)):
                yield from self.close(workers)
                return
        found.append(visit._replace(cores=cores, workers=workers))

    def blocks_of(self, visit: Visit, end: float) -> Steps[bool]:
        """Measure blocks until a time, each turn once at least; False where a worker died."""
        used: dict[Turn, float] = {}
        count: dict[Turn, int] = defaultdict(int)
        fixed = self.options.blocks
        while True:
            turns = [turn for turn in visit.turns if self.common(visit, turn)]
            first = [turn for turn in turns if not count[turn]]
            if fixed is not None:
                turns = [turn for turn in turns if count[turn] < fixed]
            elif not first and self.now >= end:
                turns = []
            if not turns:
                return True
            turn = (
                self.rng.choice(first)
                if first
                else min(turns, key=lambda t: used.get(t, 0.0) / visit.turns[t])
            )
            arms = self.arms_of(visit, turn, count[turn])
            cost = self.block_cost(visit.sides, turn, arms)
            if fixed is None and not first and self.now + cost / 2 > end:
                return True
            before = self.now
            if not (yield from self.in_turns(visit, turn, arms)):
                return False
            count[turn] += 1
            used[turn] = used.get(turn, 0.0) + self.now - before

    def common(self, visit: Visit, turn: Turn) -> list[str]:
        """Return the arms that live, and that all of its workers hold; the baseline is one."""
        found = self.in_common(list(visit.workers), turn.workload)
        held = [self.held[worker] for worker in visit.workers.values()]
        arms = [arm for arm in found if all((turn.workload, arm) in each for each in held)]
        return arms if BASELINE_ARM in arms else []

    def arms_of(self, visit: Visit, turn: Turn, number: int) -> list[str]:
        """Return the arms of a visit's block of this number, from 0.

        Arms that take far longer than the baseline rest only where they are compared with it, and
        where no number of blocks was asked for: between two sides, each arm needs all its blocks.
        """
        rest: set[str] = set()
        if number % SELDOM:
            rest |= visit.beside
            if len(visit.sides) == 1 and self.options.blocks is None:
                rest |= self.far[visit.sides[0], turn] - {*REFERENCES}
        settled = {arm for each, arm in visit.leave_out if each == turn} - {*REFERENCES}
        return [arm for arm in self.common(visit, turn) if arm not in rest | settled]

    def in_turns(self, visit: Visit, turn: Turn, arms: Sequence[str]) -> Steps[bool]:
        """Measure one block on each side, in random order, with the same seed; False at a death."""
        self.blocks += 1
        number, seed = self.blocks, self.rng.getrandbits(32)
        usual = rounds_of(turn) if len(visit.sides) == 1 else max(2, rounds_of(turn) * 3 // 4)
        rounds = self.options.rounds or min(usual, visit.rounds or usual)
        for name in self.rng.sample(visit.sides, len(visit.sides)):
            side, worker = self.sides[name], visit.workers[name]
            ready = self.prepared.get((worker, turn), ()) if turn.kind in PREPARED else arms
            mine = [arm for arm in arms if arm in ready]
            action = side.action(
                "block",
                worker,
                turn.workload,
                self.rng.sample(mine, len(mine)),
                kind=turn.kind,
                rounds=rounds,
                seed=seed,
                cores=visit.cores,
            )
            outcome = yield from self.done(side, action)
            if outcome is None:
                return False
            block = Block(
                number,
                visit.number or worker,
                name,
                turn.workload,
                side.backend,
                turn.kind,
                visit.cores,
                outcome.at,
                rounds,
                outcome.answer.seconds,
                outcome.answer.cpu_seconds,
            )
            self.take(side, turn, block, outcome.took)
        return True

    def take(self, side: Side, turn: Turn, block: Block, took: float) -> None:
        """Keep a block, and what it says of costs."""
        side.state.blocks.append(block)
        timed: dict[str, float] = defaultdict(float)
        for metric, arms in block.seconds.items():
            for arm, values in arms.items():
                timed[arm] += sum(values)
                samples = Samples(
                    block.process, block.number, block.at, values, block.rounds, block.cores
                )
                cell = side.cell(arm, turn.workload)
                side.state.cells[cell].blocks.setdefault(metric, []).append(samples)
        total, far = sum(timed.values()), FAR_HOST if turn.kind == HOST else FAR
        for arm, seconds in timed.items():
            self.cost[side.name, turn, arm] = took * seconds / total
            if seconds > far * timed.get(BASELINE_ARM, seconds):
                self.far[side.name, turn].add(arm)

    def prepare(self, workers: Mapping[str, int], turn: Turn, cores: Cores) -> Steps[bool]:
        """Compile what turns need beyond the steps; False where a worker died."""
        metrics = [metric for metric in METRICS.values() if metric.turn == turn.kind]
        for name, worker in workers.items():
            side = self.sides[name]
            alive = side.alive(turn.workload)
            arms = [str(cell.arm) for cell in alive if any(m.applies(cell) for m in metrics)]
            arms = self.rng.sample(arms, len(arms))
            action = side.action(
                "prepare", worker, turn.workload, arms, kind=turn.kind, cores=cores
            )
            outcome = yield from self.done(side, action)
            if outcome is None:
                return False
            self.prepared[worker, turn] = set(arms) - set(outcome.answer.failures)
        return True

    def close(self, workers: Mapping[str, int]) -> Steps[None]:
        """End the workers, by side, that have not died."""
        for name, worker in workers.items():
            if worker not in self.dead:
                yield from self.do(self.sides[name].action("close", worker))

    # what is done once

    def cold(self, names: Sequence[str], cell: Cell, cores: Cores, number: int = 0) -> Steps[None]:
        """Measure one cold process of a cell on each side, in random order.

        A process that dies costs its own sample: it is begun once more.
        """
        for name in self.rng.sample(list(names), len(names)):
            side = self.sides[name]
            found = side.state.cells[cell]
            for _ in range(2):
                if found.failure or side.cold_deaths[cell] >= COLD_DEATHS:
                    break
                worker = self.next_worker()
                action = side.action("cold", worker, cell.workload, [str(cell.arm)], cores=cores)
                outcome = yield from self.do(action)
                self.cold_cost[name] = outcome.took
                if outcome.death is None:
                    self.take_cold(found, outcome, number or worker, cores)
                    break
                side.cold_deaths[cell] += 1
                side.state.notes.append(f"a cold process of {cell} died: {outcome.death.reason}")

    def take_cold(self, found: Found, outcome: Outcome, number: int, cores: Cores) -> None:
        """Keep what a cold process found in a cell."""
        answer: protocol.Cold = outcome.answer
        self.spent.sampling += answer.timed_seconds / self.width
        found.facts["trace_and_lower_split_by"] = answer.trace_and_lower_split_by
        if answer.fingerprint:
            found.facts["fingerprint"] = answer.fingerprint
        for metric, value in answer.values.items():
            if value is not None:
                samples = Samples(number, number, outcome.at, [value], 1, cores)
                found.blocks.setdefault(metric, []).append(samples)
            else:
                found.facts.setdefault("without", []).append(metric)

    def each(self, name: str, do: Do, cells: Sequence[Cell], cores: Cores) -> Steps[None]:
        """Count or train some cells in a worker of their own, started again where it dies."""
        left = list(cells)
        side = self.sides[name]
        while left and not side.given_up:
            workloads = list(dict.fromkeys(cell.workload for cell in left))
            arms = {str(cell.arm) for cell in left}
            worker = yield from self.open(name, workloads, cores, arms, make=do == "train")
            if worker is None:
                return
            while left:
                cell = left[0]
                late = self.now > self.end and not self.options.fixed
                held = do == "count" or (cell.workload, str(cell.arm)) in self.held[worker]
                skipped = late or not held or side.state.cells[cell].failure is not None
                if not skipped and not (yield from self.one(side, worker, do, cell)):
                    break
                left.pop(0)
            else:
                yield from self.close({name: worker})
