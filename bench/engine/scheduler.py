"""What is done when: a generator of actions that is told what came of each.

It looks at nothing but outcomes, no clock and no disk, so a run that was cut off is taken up by
feeding it the outcomes that were journalled; it then asks for the next thing, as it would have.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, CONTROL, TOGETHER, Cell
from bench.engine.actions import Action, rounds_of, work
from bench.engine.found import Block, Found, State
from bench.engine.planner import MIN_PROCESSES, Allotment, Costs, Turn, allot, next_turn, spread
from bench.metrics import COLD, METRICS, TINY, Kind
from common.config import WORKLOADS
from common.devices import AT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.engine.actions import Options, Outcome, Steps

STARVED = "not measured within the budget"
NO_PROGRAM = "not written in JAX: nothing is traced, lowered or compiled by it"
APART = 6
"""Cells whose time it takes to start a side's own workers."""
BESIDE = (BASELINE, CONTROL)
"""What is measured on every side, beside its own arms."""
DEATHS = 2
"""Workers that may die at nobody's turn before a run gives up on warm metrics."""
PREPARED = ("epoch", "sample")
"""Kinds of turns that compile programs of their own in each worker."""
COLD_GUESS = 0.7
COLD_IMPORT_SHARE = 0.75
"""Seconds of a cold process beside its imports and its compile, and the part of all entrants'
imports that one entrant's take, until a cold process has been seen."""
LARGE = 5
"""How many times the share of a tiny workload a turn of another one gets: there the difference
that matters is a few per cent, where a tiny one's is a factor."""
LEFT_TO_BLOCKS = 0.25
"""Of the budget, what has to be left before a further workload is taken in."""
LATE = 1.09
"""Of the time, after which no cold process may end that another one's sweep has begun."""
TRAINING_STEPS = 200
"""Of one training, as `turns.FINAL_STEPS` has it, which cannot be imported without jax."""
SEED_STEP, LEAST_STEP = 4e-3, 2e-4
"""Seconds of a step at `seed`, and of any, until one has been seen."""
OPEN_SHARE = 0.93
"""Of what a proof takes, the part that a later worker has to do again, until one has."""


@dataclass
class Schedule:
    """One run."""

    needed: Mapping[Cell, set[str]]
    """Metrics to measure, by cell; the baseline and its control are added."""
    options: Options
    before: float = 0.0
    """Seconds that had been spent when the first action was asked for."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Entrants that cannot be loaded, and why."""
    sides: Mapping[str, str] = field(default_factory=dict)
    """What has workers of its own, by entrant or by arm; see `Offer.sides`."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.options.seed)  # noqa: S311 -- an order is no secret
        cells = dict.fromkeys(self.needed)
        for cell in self.needed:
            for name in (BASELINE, CONTROL):
                cells.setdefault(Cell(*name, cell.workload, cell.backend))
        self.state = State({cell: Found() for cell in cells})
        self.state.spent.wall = self.before
        for cell, found in self.state.cells.items():
            found.failure = self.problems.get(cell.entrant)
        self.process = 0
        self.numbers: Counter[tuple[str, Turn]] = Counter()
        """Blocks so far, by backend and turn."""
        reserve = 1.0 + 0.005 * self.options.budget  # replay, tables and the file come after
        self.end = self.options.budget - reserve

    def actions(self) -> Steps[None]:
        """Yield what to do; expects the outcome of each.

        Time is shared out by the number of cells, and by what workers of its own cost.
        """
        parts = Counter((cell.backend, self.side(cell)) for cell in self.needed)
        shares = [
            count + len(BESIDE) + (APART if side else 0) for (_, side), count in parts.items()
        ]
        for i, (backend, side) in enumerate(parts):
            left = self.end - self.state.spent.wall
            deadline = self.state.spent.wall + left * shares[i] / sum(shares[i:])
            state = self.apart(side) if side else self.state
            yield from OnBackend(self, state, backend, deadline, side).actions()
            if side:
                self.join(state)

    def side(self, cell: Cell) -> str:
        """Return whose workers a cell is measured in; empty for everybody's."""
        of_entrant = self.sides.get(cell.entrant, "")
        style = cell.style.partition(AT)[0]
        return self.sides.get(f"{cell.entrant}/{style}", of_entrant)

    def apart(self, side: str) -> State:
        """Return the state of one side: its cells, and a baseline that may fail alone."""
        own = {c: f for c, f in self.state.cells.items() if self.side(c) == side}
        beside = {c: Found() for c in self.state.cells if c[:2] in BESIDE}
        return replace(self.state, cells=beside | own)

    def join(self, state: State) -> None:
        """Take in what a side says of the baseline: ratios are formed within processes.

        Its cold samples may be another environment's, and count where there are no others.
        """
        for cell, found in state.cells.items():
            if cell[:2] not in BESIDE:
                continue
            whole = self.state.cells[cell]
            had = set(whole.blocks)
            for metric, blocks in found.blocks.items():
                if METRICS[metric].kind is Kind.WARM or metric not in had:
                    whole.blocks.setdefault(metric, []).extend(blocks)
            if whole.proof is None:
                whole.proof, whole.exact = found.proof, found.exact
                whole.facts = whole.facts or found.facts
            if not whole.blocks and whole.failure is None:
                whole.failure, whole.stderr = found.failure, found.stderr

    def do(self, action: Action) -> Steps[Outcome]:
        """Ask for one action and take the time it took."""
        outcome = yield action
        spent = self.state.spent
        spent.wall += outcome.took
        if action.do in ("block", "train"):
            spent.sampling += outcome.took
        if outcome.busy is not None:
            spent.busy.append(outcome.busy)
        return outcome

    def next_process(self) -> int:
        """Return the number of a new process."""
        self.process += 1
        self.state.spent.processes += 1
        return self.process


class OnBackend:
    """The part of a run on one backend, on one side."""

    def __init__(
        self, run: Schedule, state: State, backend: str, deadline: float, side: str = ""
    ) -> None:
        self.run, self.backend, self.deadline, self.side = run, backend, deadline, side
        self.state, self.options, self.rng = state, run.options, run.rng
        asked = {cell.workload for cell in run.needed if self.belongs(cell)}
        on_it = [
            cell
            for cell in state.cells
            if cell.workload in asked and (self.belongs(cell) or cell[:2] in BESIDE)
            if cell.backend == backend
        ]
        # Large workloads first: they are what people ask about, and get what there is to get.
        # A sweep comes last and goes up, as far as the budget goes.
        sweep = TOGETHER["sweep"]
        self.workloads = sorted(
            dict.fromkeys(cell.workload for cell in on_it),
            key=lambda w: (w in sweep, WORKLOADS[w].width * (1 if w in sweep else -1)),
        )
        self.cells = [
            cell
            for workload in self.workloads
            for cell in on_it
            if cell.workload == workload and self.state.cells[cell].failure is None
        ]
        for cell in on_it:
            failure = self.state.cells[cell].failure
            if cell[:2] == BASELINE and failure is not None:
                self.fail(cell, failure)
        self.proven: set[Cell] = set()
        self.counts: dict[tuple[str, str], dict[str, Any]] = {}
        """What was counted of each arm, at the first workload: the same at all."""
        self.deaths = 0
        self.costs: dict[Turn, float] = {}
        self.opening = self.workloads
        """What the next worker opens, or proves."""
        self.open_seconds = self.lean_seconds = 0.0
        self.prepare_seconds = 0.0
        self.proof_seconds = 0.0
        self.proof_took = 0.0

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self.state.spent.wall

    def alive(self, workload: str | None = None) -> list[Cell]:
        """Return the cells that have not failed."""
        return [
            cell
            for cell in self.cells
            if self.state.cells[cell].failure is None and workload in (None, cell.workload)
        ]

    def belongs(self, cell: Cell) -> bool:
        """Tell whether a cell is measured on this side."""
        return cell.backend == self.backend and self.run.side(cell) == self.side

    def action(self, do: str, process: int, *rest: Any, **named: Any) -> Action:
        """Return an action on this backend and side."""
        return Action(do, process, self.backend, *rest, **named)._replace(side=self.side)

    def worth(self, workload: str) -> bool:
        """Tell whether anything that is asked for at a workload can still be measured."""
        return any(cell in self.run.needed and self.belongs(cell) for cell in self.alive(workload))

    def fail(self, cell: Cell, failure: str, stderr: str = "") -> None:
        """A cell has failed; without a baseline there is nothing to say of the others."""
        self.note(cell, failure, stderr)
        if cell[:2] == BASELINE:
            for each in self.alive(cell.workload):
                self.note(each, f"there is no baseline: {failure}", stderr)

    def note(self, cell: Cell, failure: str, stderr: str) -> None:
        """A cell has failed; the first reason stays."""
        found = self.state.cells[cell]
        if found.failure is None:
            found.failure, found.stderr = failure, stderr

    def wants(self, metric: str, workload: str) -> bool:
        """Tell whether a metric is needed at a workload, by any cell."""
        return any(
            metric in metrics and METRICS[metric].applies(cell)
            for cell, metrics in self.run.needed.items()
            if cell.workload == workload and self.belongs(cell)
        )

    def actions(self) -> Steps[None]:
        """Yield everything that is done on this backend."""
        wanted = {
            Turn(workload, metric.turn): metric.weight * (1 if workload in TINY else LARGE)
            for workload in self.workloads
            for metric in METRICS.values()
            if metric.kind is Kind.WARM and self.wants(metric.name, workload)
        }
        process = yield from self.up()
        wanted = {
            turn: weight
            for turn, weight in wanted.items()
            if turn.workload in self.workloads and self.worth(turn.workload)
        }
        if process is None:
            self.note_missing(Allotment(0, (), (), {}))
            return
        simple = [turn for turn in wanted if turn.kind not in PREPARED]
        # The second of each says what a block costs.
        probes = simple * min(2, self.options.blocks or 2)
        for turn in probes:
            process = yield from self.measured(process, turn)
        taken = Counter(probes)
        plan = self.plan(wanted)
        self.note_missing(plan)
        weights = {turn: wanted[turn] for turn in plan.turns}
        for workload in plan.trainings:
            if process is not None:
                process = yield from self.train(process, workload)
        sweeps = list(self.cold_order(plan.sweeps))
        gaps = spread(sweeps, max(1, plan.processes - 1))
        shares = [self.turns_of(number, weights) for number in range(plan.processes)]
        for number, here in enumerate(shares):
            last = number == plan.processes - 1
            if number:
                self.opening = [w for w in self.workloads if any(t.workload == w for t in here)]
                blocks = sum(self.costs.get(turn, 0.0) for turn in simple if turn in here)
                least = self.seconds_to_open(number) + blocks
                if self.options.blocks is None and self.spent + least > self.deadline:
                    break
                process = yield from self.up()
            if process is not None and here:
                process = yield from self.blocks(process, number, shares, gaps, taken)
            taken = Counter()
            if process is not None:
                yield from self.run.do(self.action("close", process))
            process = None
            if not last or plan.processes == 1:
                for cell in gaps.pop(0):
                    yield from self.cold(cell)
        for cell in chain.from_iterable(gaps):  # of workers for which there was no time
            yield from self.cold(cell)
        if not weights and sweeps and self.options.cold_samples is None:
            yield from self.more_sweeps(plan.sweeps)

    def turns_of(self, number: int, weights: Mapping[Turn, float]) -> dict[Turn, float]:
        """Return what the worker of this number, from zero, measures.

        Those beyond the fewest leave out what has to be compiled apart, and tiny workloads where
        there is another: programs that are not the baseline's vary from process to process, so more
        processes narrow their intervals, and cost less so.
        """
        if number < MIN_PROCESSES or self.options.blocks is not None:
            return dict(weights)
        lean = {turn: w for turn, w in weights.items() if turn.kind not in PREPARED}
        return {turn: w for turn, w in lean.items() if turn.workload not in TINY} or lean

    def seconds_to_open(self, number: int) -> float:
        """Return about what opening the worker of this number takes."""
        full = self.open_seconds + self.prepare_seconds
        return full if number < MIN_PROCESSES else self.lean_seconds

    def plan(self, wanted: Mapping[Turn, float]) -> Any:
        """Share out what is left, and write down how."""
        left = max(0.0, self.deadline - self.spent)
        costs = self.estimate(wanted)
        self.open_seconds, self.lean_seconds = costs.process, costs.lean
        plan = allot(left, costs, wanted)
        fixed: dict[str, Any] = {}
        if self.options.processes or self.options.blocks:
            fixed["processes"] = self.options.processes or 1
        if self.options.blocks:
            fixed |= {"turns": tuple(wanted), "trainings": tuple(costs.training)}
        if self.options.cold_samples:
            fixed["sweeps"] = dict.fromkeys(costs.sweeps, self.options.cold_samples)
        plan = type(plan)(**(vars(plan) | fixed))
        self.state.plan[f"{self.backend} {self.side}".strip()] = {
            "processes": plan.processes,
            "turns": [list(turn) for turn in plan.turns],
            "trainings": list(plan.trainings),
            "cold_processes_per_cell": dict(plan.sweeps),
            "estimated_seconds": {
                "left": left,
                "process": costs.process,
                "lean_process": costs.lean,
                "blocks": {" ".join(turn): cost for turn, cost in costs.blocks.items()},
                "training": dict(costs.training),
                "cold_sweep": dict(costs.sweeps),
            },
        }
        return plan

    def estimate(self, wanted: Mapping[Turn, float]) -> Costs:
        """Return what things cost, from what has been seen in the first worker."""
        opened = max(1, len(self.alive()))
        one_open = OPEN_SHARE * self.proof_seconds / opened
        lean = len([c for c in self.alive() if c.workload not in TINY]) or opened
        training, sweeps, prepare = {}, {}, {}
        for workload in self.workloads:
            alive = self.alive(workload)
            pure = [cell for cell in alive if cell.style == "pure" and cell[:2] != CONTROL]
            if self.wants("final_loss", workload):
                runs = len(alive) + 3 * len(pure)
                steps = 1.2 * TRAINING_STEPS * runs
                training[workload] = steps * self.step_seconds(workload) + 0.1 * runs
            if any(self.wants(m.name, workload) for m in METRICS.values() if m.kind is Kind.COLD):
                sweeps[workload] = (len(alive) + 1) * (
                    COLD_GUESS + COLD_IMPORT_SHARE * self.import_seconds + one_open
                )
            for kind, programs in (("sample", 1), ("epoch", 2)):
                if Turn(workload, kind) in wanted:
                    block = {"sample": 0.2, "epoch": 160 * self.step_seconds(workload)}[kind]
                    prepare[Turn(workload, kind)] = len(pure) * (programs * one_open + block)
        return Costs(
            arms=max((len(self.alive(w)) for w in self.workloads), default=0),
            process=self.start_seconds + opened * one_open,
            lean=self.start_seconds + lean * one_open,
            blocks={turn: self.costs[turn] for turn in wanted if turn in self.costs},
            prepare=prepare,
            training=training,
            sweeps=sweeps,
        )

    start_seconds = import_seconds = 2.0

    def step_seconds(self, workload: str) -> float:
        """Return about what a step takes, over all arms."""
        medians = [
            sorted(values)[len(values) // 2]
            for cell in self.alive(workload)
            if (values := self.state.cells[cell].values("step"))
        ]
        seed = work(WORKLOADS["seed"])
        guess = max(LEAST_STEP, SEED_STEP * work(WORKLOADS[workload]) / seed)
        return sum(medians) / len(medians) if medians else guess

    def note_missing(self, plan: Any) -> None:
        """Say of each cell and metric that is left out, why."""
        measured = {(turn.workload, turn.kind) for turn in plan.turns}
        for cell, metrics in self.run.needed.items():
            for name in metrics:
                metric = METRICS[name]
                out = {
                    Kind.WARM: (cell.workload, metric.turn) not in measured,
                    Kind.COLD: cell.workload not in plan.sweeps,
                    Kind.ONCE: cell.workload not in plan.trainings,
                }[metric.kind]
                if out and self.belongs(cell):
                    self.state.missing[cell, name] = STARVED

    def up(self) -> Steps[int | None]:
        """Start a worker with all living arms proven or opened; None where it cannot be done."""
        while any(map(self.worth, self.workloads)) and self.deaths <= DEATHS:
            before = self.spent
            process = self.run.next_process()
            outcome = yield from self.run.do(self.action("start", process))
            if not self.survived(outcome):
                continue
            arms = list(dict.fromkeys(f"{c.entrant}/{c.style}" for c in self.alive()))
            load = self.action("load", process, arm=" ".join(arms))
            outcome = yield from self.run.do(load)
            if not self.survived(outcome):
                continue
            self.failures(outcome)
            if not self.proven:
                self.import_seconds = outcome.took
            self.start_seconds = self.spent - before
            ready = yield from self.count(process)
            if not ready:
                continue
            before, proofs = self.spent, 0
            for cell in self.order(self.alive()):
                if cell not in self.proven and cell.workload in self.opening:
                    self.drop_unaffordable(cell.workload)
                    proofs += 1
                failed = self.state.cells[cell].failure is not None  # since: it has no baseline
                if failed or cell.workload not in self.opening:
                    continue
                do = "open" if cell in self.proven else "prove"
                ready = yield from self.one(process, do, cell)
                if not ready:
                    break
            if not self.workloads:
                yield from self.run.do(self.action("close", process))
                return None
            if ready:
                if proofs:
                    self.proof_seconds = self.spent - before
                took = self.spent - before + self.start_seconds
                if self.opening == self.workloads:
                    self.open_seconds = took
                if self.opening == ([w for w in self.workloads if w not in TINY] or self.workloads):
                    self.lean_seconds = took
                return process
        return None

    def count(self, process: int) -> Steps[bool]:
        """Count what no worker has counted yet; False where the worker died of it.

        That clears what JAX has compiled, so it comes before anything else.
        """
        for cell in self.order(self.alive()):
            if cell.workload in self.opening and cell[:2] not in self.counts:
                self.drop_unaffordable(cell.workload)
            failed = self.state.cells[cell].failure is not None  # since: it has no baseline
            if failed or cell.workload not in self.opening or cell[:2] in self.counts:
                continue
            survived = yield from self.one(process, "count", cell)
            if not survived:
                return False
        return True

    def drop_unaffordable(self, workload: str) -> None:
        """Leave a workload out, before any of it is proven, if the budget is too small for it.

        Every workload but the first has to leave a quarter of the budget to blocks, after its
        proofs and after two more workers; the first has to begin within the budget.
        """
        if self.options.blocks is not None or self.options.cold_samples is not None:
            return
        first = workload == self.workloads[0]
        if first or any(cell.workload == workload for cell in self.proven):
            dropped = self.spent > self.deadline
        else:
            proof = self.proof_took / max(1, len(self.proven))
            process = self.start_seconds + OPEN_SHARE * proof * len(self.alive())
            coming = proof * len(self.alive(workload)) + (MIN_PROCESSES - 1) * process
            dropped = self.spent + coming > (1 - LEFT_TO_BLOCKS) * self.deadline
        if dropped:
            self.workloads.remove(workload)
            self.cells = [cell for cell in self.cells if cell.workload != workload]

    def order(self, cells: list[Cell]) -> list[Cell]:
        """Return cells in random order, workload by workload, the baseline first in each."""
        shuffled = self.rng.sample(cells, len(cells))
        return sorted(shuffled, key=lambda c: (self.workloads.index(c.workload), c[:2] != BASELINE))

    def one(self, process: int, do: str, cell: Cell) -> Steps[bool]:
        """Do what is one arm's own; False where the worker died of it."""
        arm = f"{cell.entrant}/{cell.style}"
        action = self.action(do, process, cell.workload, arm)
        outcome = yield from self.run.do(action)
        if not self.survived(outcome, cell.workload):
            return False
        found = self.state.cells[cell]
        if "failure" in outcome.found:
            self.fail(cell, outcome.found["failure"], outcome.found.get("stderr", ""))
            return True
        if do == "count":
            self.counts[cell[:2]] = outcome.found["exact"]
        if do == "prove":
            found.proof = outcome.found["proof"]
            found.exact = self.counts[cell[:2]] | outcome.found["exact"]
            self.proof_took += outcome.took
            self.proven.add(cell)
        if do == "train":
            found.training = outcome.found["training"]
        return True

    def survived(self, outcome: Outcome, workload: str = "") -> bool:
        """Note who is to blame for a worker's death, if it died; at one workload, or at all."""
        death = outcome.death
        if death is None:
            return True
        if death.cut:
            return False
        blamed = self.cells_of(death.arm, workload)
        for cell in blamed:
            self.fail(cell, death.reason, death.stderr)
        if not blamed:
            self.deaths += 1
            self.state.notes.append(f"a worker had to be started anew: {death.reason}")
            if self.deaths > DEATHS:
                for each in self.cells:
                    if not self.state.cells[each].blocks:
                        self.note(each, death.reason, death.stderr)
        return False

    def cells_of(self, arm: str, workload: str = "") -> list[Cell]:
        """Return the living cells of an arm, at one workload or at all."""
        return [c for c in self.alive(workload or None) if f"{c.entrant}/{c.style}" == arm]

    def failures(self, outcome: Outcome, workload: str = "") -> None:
        """Take the failures of a command that is about several arms."""
        for arm, failure in outcome.found["failures"].items():
            for cell in self.cells_of(arm, workload):
                self.fail(cell, failure)

    def measured(self, process: int | None, turn: Turn) -> Steps[int | None]:
        """Measure one block, in as many workers as it takes; return the one to go on with."""
        while process is not None and self.worth(turn.workload):
            after = yield from self.block(process, turn)
            if after == process:
                break
            process = after
        return process

    def block(self, process: int, turn: Turn) -> Steps[int | None]:
        """Measure one block; return the worker to go on with, another one if this one died."""
        key = self.backend, turn
        self.run.numbers[key] += 1
        rounds = self.options.rounds or rounds_of(turn)
        action = self.action(
            "block",
            process,
            turn.workload,
            kind=turn.kind,
            rounds=rounds,
            seed=self.rng.getrandbits(32),
        )
        before = self.spent
        outcome = yield from self.run.do(action)
        if outcome.death is not None:
            self.survived(outcome, turn.workload)
            return None if self.late_for_a_worker() else (yield from self.up())
        self.costs[turn] = self.spent - before
        if turn.kind not in PREPARED:
            for cell in self.alive(turn.workload):
                arm = f"{cell.entrant}/{cell.style}"
                if not all(arm in arms for arms in outcome.found["seconds"].values()):
                    self.fail(cell, "its worker left it out of a block")
        for metric, arms in outcome.found["seconds"].items():
            for arm, values in arms.items():
                entrant, style = arm.split("/")
                cell = Cell(entrant, style, turn.workload, self.backend)
                block = Block(process, self.run.numbers[key], self.spent, values, rounds)
                self.state.cells[cell].blocks.setdefault(metric, []).append(block)
        return process

    def late_for_a_worker(self) -> bool:
        """Tell whether a worker more would only be opened, and there are enough without it."""
        seen = {
            block.process
            for cell in self.cells
            for metric, blocks in self.state.cells[cell].blocks.items()
            if METRICS[metric].kind is Kind.WARM
            for block in blocks
        }
        after = self.spent + self.open_seconds
        return self.options.blocks is None and len(seen) > 1 and after > self.deadline

    def blocks(
        self,
        process: int,
        number: int,
        shares: list[dict[Turn, float]],
        cold: list[list[Cell]],
        taken: Counter[Turn],
    ) -> Steps[int | None]:
        """Measure blocks in the worker of this number.

        `shares` says what each worker measures, and how its time is shared by that; `taken` counts
        the blocks that were measured in this one before.
        """
        weights = shares[number]
        prepared = yield from self.prepare(process, weights)
        if prepared is None:
            return None
        process = prepared
        cold_left = self.cold_seconds() * sum(map(len, cold))
        later = sum(self.seconds_to_open(n) for n in range(number + 1, len(shares)))
        left = self.deadline - self.spent - cold_left - later
        to_come = [sum(weights.values()) for weights in shares[number:]]
        end = self.spent + max(0.0, left) * to_come[0] / sum(to_come)
        used: dict[Turn, float] = {}
        order = self.rng.sample(list(weights), len(weights))
        while True:
            order = [turn for turn in order if self.worth(turn.workload)]
            if not order:
                return process
            if self.options.blocks is not None:
                todo = [turn for turn in order if taken[turn] < self.options.blocks]
                turn = todo[0] if todo else None
            else:
                first = [turn for turn in order if not taken[turn]]
                turn = first[0] if first else next_turn(used, {t: weights[t] for t in order})
                if self.spent + self.costs.get(turn, 0.0) / 2 > end and not (
                    first and self.spent < end
                ):
                    turn = None
            if turn is None:
                return process
            before = self.spent
            after = yield from self.block(process, turn)
            if after is None:
                return None
            taken[turn] += after == process
            if after != process:  # it died; what a new one needs, it has to be given
                prepared = yield from self.prepare(after, weights)
                if prepared is None:
                    return None
                process = prepared
            used[turn] = used.get(turn, 0.0) + self.spent - before

    def prepare(self, process: int, weights: Mapping[Turn, float]) -> Steps[int | None]:
        """Compile what turns need beyond the steps."""
        before = self.spent
        for turn in weights:
            if turn.kind not in PREPARED:
                continue
            metrics = [metric for metric in METRICS.values() if metric.turn == turn.kind]
            arms = [
                f"{c.entrant}/{c.style}"
                for c in self.order(self.alive(turn.workload))
                if any(metric.applies(c) for metric in metrics)
            ]
            action = self.action("prepare", process, turn.workload, " ".join(arms), turn.kind)
            outcome = yield from self.run.do(action)
            if not self.survived(outcome, turn.workload):
                after = yield from self.up()
                return None if after is None else (yield from self.prepare(after, weights))
            self.failures(outcome, turn.workload)
        self.prepare_seconds = self.spent - before
        return process

    def train(self, process: int, workload: str) -> Steps[int | None]:
        """Train each arm of a workload once; return the worker to go on with."""
        for cell in self.order(self.alive(workload)):
            asked = "final_loss" in self.run.needed.get(cell, ())
            if cell[:2] == CONTROL or not asked or not self.belongs(cell):
                continue
            runs = 4 if cell.style == "pure" else 1
            after = self.spent + TRAINING_STEPS * runs * self.step_seconds(workload)
            if self.options.blocks is None and after > LATE * self.deadline:
                self.state.missing[cell, "final_loss"] = STARVED
                continue
            while self.state.cells[cell].failure is None:
                survived = yield from self.one(process, "train", cell)
                if survived:
                    break
                again = yield from self.up()
                if again is None:
                    return None
                process = again
        return process

    def cold_order(self, sweeps: Mapping[str, int]) -> Iterator[Cell]:
        """Yield cells sweep by sweep, each sweep in another random order."""
        for number in range(max(sweeps.values(), default=0)):
            now = [w for w, count in sweeps.items() if number < count and self.worth(w)]
            cells = [c for workload in now for c in self.alive(workload) if self.cold_here(c)]
            # The baseline is in every ratio, so a second sample of it is worth most.
            cells += [cell for cell in cells if cell[:2] == BASELINE]
            yield from self.rng.sample(cells, len(cells))

    def cold_here(self, cell: Cell) -> bool:
        """Tell whether a cell's cold processes are this side's: a baseline's are one's."""
        beside = self.side and cell[:2] in BESIDE
        return not (beside and self.run.state.cells[cell].blocks.keys() & set(COLD))

    def cold_seconds(self) -> float:
        """Return about what a cold process takes."""
        return self.cold_took[0] / self.cold_took[1] if self.cold_took[1] else 3.5

    cold_took = (0.0, 0)

    def more_sweeps(self, sweeps: Mapping[str, int]) -> Steps[None]:
        """Use up what is left with further cold processes, whole sweeps only."""
        while True:
            cells = list(self.cold_order(dict.fromkeys(sweeps, 1)))
            if not cells or self.spent + len(cells) * self.cold_seconds() > self.deadline:
                return
            for cell in cells:
                yield from self.cold(cell)

    def cold(self, cell: Cell) -> Steps[None]:
        """Measure one cold process of a cell."""
        found = self.state.cells[cell]
        after = self.spent + self.cold_seconds()
        late = self.options.cold_samples is None and after > LATE * self.deadline
        if found.failure is not None or late or not self.worth(cell.workload):
            return
        process = self.run.next_process()
        arm = f"{cell.entrant}/{cell.style}"
        outcome = yield from self.run.do(self.action("cold", process, cell.workload, arm))
        if outcome.death is not None:
            self.fail(cell, outcome.death.reason, outcome.death.stderr)
            return
        self.cold_took = (self.cold_took[0] + outcome.took, self.cold_took[1] + 1)
        self.state.spent.sampling += outcome.found["timed_seconds"]
        found.facts["trace_and_lower_split_by"] = outcome.found["trace_and_lower_split_by"]
        for metric, value in outcome.found["values"].items():
            if value is not None:
                block = Block(process, process, self.spent, [value])
                found.blocks.setdefault(metric, []).append(block)
            elif not outcome.found["trace_and_lower_split_by"]:
                self.state.missing[cell, metric] = NO_PROGRAM
