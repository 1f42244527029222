"""Several sides measured in turns: workers of different environments that live at the same time.

Like the schedule of a run, this looks at nothing but outcomes: whatever was cut off goes on from
its journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, Cell
from bench.engine.actions import Action, rounds_of, work
from bench.engine.found import Block, Found, State
from bench.engine.planner import Turn
from bench.engine.scheduler import OPEN_SHARE
from bench.metrics import METRICS, Kind
from common.config import WORKLOADS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence, Set

    from bench.engine.actions import Options, Outcome, Steps

DEATHS = 2
"""Workers of a side that may die at nobody's turn before it is given up."""
COLD_DEATHS = 2
"""Cold processes of a cell that may die before no more are begun."""
TURNS = ("step", "dispatch")
"""Kinds of turns that sides are compared by: what others need is compiled apart."""


@dataclass
class Side:
    """One environment, and what was found in it."""

    name: str
    state: State
    proven: set[Cell] = field(default_factory=set)
    counts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    deaths: int = 0
    """Of warm workers, at nobody's turn."""
    cold_deaths: Counter[Cell] = field(default_factory=Counter)
    cold_failures: dict[Cell, str] = field(default_factory=dict)
    """Why cold processes of a cell died: that costs its cold metrics only."""
    up_seconds: float = 0.0
    """What its last worker took until it was ready for blocks; what is done once, left out."""

    def alive(self, workload: str | None = None) -> list[Cell]:
        """Return the cells that have not failed."""
        return [
            cell
            for cell, found in self.state.cells.items()
            if found.failure is None and workload in (None, cell.workload)
        ]

    def fail(self, cell: Cell, failure: str, stderr: str = "") -> None:
        """A cell has failed; the first reason stays. Without a baseline there are no others."""
        found = self.state.cells[cell]
        if found.failure is None:
            found.failure, found.stderr = failure, stderr
        if cell[:2] == BASELINE:
            for each in self.alive(cell.workload):
                self.fail(each, f"there is no baseline: {failure}", stderr)


class Sides:
    """What can be done on sides; each method is a part of a schedule."""

    def __init__(
        self,
        cells: Mapping[str, Iterable[Cell]],
        options: Options,
        rng: random.Random,
        before: float = 0.0,
    ) -> None:
        self.sides = {
            name: Side(name, State({cell: Found() for cell in with_baselines(offered)}))
            for name, offered in cells.items()
        }
        self.options, self.rng = options, rng
        self.state = State({})
        """Of all of them: where the time went."""
        self.state.spent.wall = before
        self.end = options.budget - 1.0 - 0.005 * options.budget

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self.state.spent.wall

    def do(self, action: Action) -> Steps[Outcome]:
        """Ask for one action and take the time it took."""
        outcome = yield action
        spent = self.state.spent
        spent.wall += outcome.took
        spent.sampling += outcome.took if action.do == "block" else 0.0
        if outcome.busy is not None:
            spent.busy.append(outcome.busy)
        return outcome

    def next_process(self) -> int:
        """Return the number of a new process."""
        self.state.spent.processes += 1
        return self.state.spent.processes

    def up(self, name: str, cells: Sequence[Cell]) -> Steps[int | None]:
        """Start a worker of a side with cells proven or opened; None where it cannot be done."""
        side = self.sides[name]
        while side.deaths <= DEATHS and (wanted := with_baselines(living(side, cells))):
            before, process = self.spent, self.next_process()
            backend = wanted[0].backend
            outcome = yield from self.do(Action("start", process, backend, side=name))
            if not survived(side, outcome):
                continue
            arms = " ".join(dict.fromkeys(arm_of(cell) for cell in wanted))
            outcome = yield from self.do(Action("load", process, backend, arm=arms, side=name))
            if not survived(side, outcome):
                continue
            for arm, failure in outcome.found["failures"].items():
                for cell in side.alive():
                    if arm_of(cell) == arm:
                        side.fail(cell, failure)
            proofs = 0.0
            ready = True
            for do, cell in self.proofs(side, wanted):
                if side.state.cells[cell].failure is not None:
                    continue
                since = self.spent
                ready = yield from self.one(process, side, do, cell)
                if do != "open":  # what a later worker has to do again is most of a proof
                    proofs += (self.spent - since) * (1 if do == "count" else 1 - OPEN_SHARE)
                if not ready:
                    break
            if ready:
                side.up_seconds = self.spent - before - proofs
                return process
        return None

    def proofs(self, side: Side, cells: Sequence[Cell]) -> list[tuple[str, Cell]]:
        """Return what a new worker has to do for its cells: in random order, the baseline first.

        Counting clears what JAX has compiled, so it comes before anything else.
        """
        order = sorted(
            self.rng.sample(cells, len(cells)),
            key=lambda c: (work(WORKLOADS[c.workload]), c[:2] != BASELINE),
        )
        first: dict[tuple[str, str], Cell] = {}
        for cell in order:
            if cell[:2] not in side.counts:
                first.setdefault(cell[:2], cell)
        counts = [("count", cell) for cell in first.values()]
        return counts + [("open" if c in side.proven else "prove", c) for c in order]

    def one(self, process: int, side: Side, do: str, cell: Cell) -> Steps[bool]:
        """Do what is one arm's own; False where the worker died of it."""
        action = Action(do, process, cell.backend, cell.workload, arm_of(cell), side=side.name)
        outcome = yield from self.do(action)
        if not survived(side, outcome, cell.workload):
            return False
        if "failure" in outcome.found:
            side.fail(cell, outcome.found["failure"], outcome.found.get("stderr", ""))
        elif do == "count":
            side.counts[cell[:2]] = outcome.found["exact"]
        elif do == "prove":
            found = side.state.cells[cell]
            found.proof = outcome.found["proof"]
            found.exact = side.counts.get(cell[:2], {}) | outcome.found["exact"]
            side.proven.add(cell)
        return True

    def block(
        self, process: int, name: str, turn: Turn, number: int, pair: int, seed: int
    ) -> Steps[bool]:
        """Measure one block on one side; False where the worker died of it."""
        side = self.sides[name]
        rounds = self.options.rounds or max(2, rounds_of(turn) // 2)
        backend = next(iter(side.state.cells)).backend
        action = Action(
            "block",
            process,
            backend,
            turn.workload,
            kind=turn.kind,
            rounds=rounds,
            seed=seed,
            side=name,
        )
        outcome = yield from self.do(action)
        if not survived(side, outcome, turn.workload):
            return False
        for metric, arms in outcome.found["seconds"].items():
            for arm, values in arms.items():
                entrant, style = arm.split("/")
                cell = Cell(entrant, style, turn.workload, backend)
                block = Block(pair, number, self.spent, values, rounds)
                side.state.cells[cell].blocks.setdefault(metric, []).append(block)
        return True

    def cold(self, name: str, cell: Cell, number: int) -> Steps[None]:
        """Measure one cold process of a cell on one side."""
        side = self.sides[name]
        found = side.state.cells[cell]
        if found.failure is not None or side.cold_deaths[cell] >= COLD_DEATHS:
            return
        process, arm = self.next_process(), arm_of(cell)
        action = Action("cold", process, cell.backend, cell.workload, arm, side=name)
        outcome = yield from self.do(action)
        if outcome.death is not None:
            side.cold_deaths[cell] += 1
            side.cold_failures[cell] = outcome.death.reason
            side.state.notes.append(f"a cold process of {cell} died: {outcome.death.reason}")
            return
        self.state.spent.sampling += outcome.found["timed_seconds"]
        for metric, value in outcome.found["values"].items():
            if value is not None:
                block = Block(number, number, self.spent, [value])
                found.blocks.setdefault(metric, []).append(block)

    def close(self, process: int | None, name: str) -> Steps[None]:
        """End a worker."""
        if process is not None:
            backend = next(iter(self.sides[name].state.cells)).backend
            yield from self.do(Action("close", process, backend, side=name))


def arm_of(cell: Cell) -> str:
    """Return what a worker calls a cell's code."""
    return f"{cell.entrant}/{cell.style}"


def living(side: Side, cells: Iterable[Cell]) -> list[Cell]:
    """Return those of the cells that have not failed on a side."""
    alive = set(side.alive())
    return [cell for cell in cells if cell in alive]


def with_baselines(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells, each workload's baseline before the others, since they are proven by it."""
    cells = list(cells)
    return list(dict.fromkeys([*(Cell(*BASELINE, *c[2:]) for c in cells), *cells]))


def turns_of(metrics: Set[str], cells: Sequence[Cell]) -> list[Turn]:
    """Return the turns that metrics need, in an order that is the same in every process."""
    found = [
        Turn(cell.workload, METRICS[name].turn)
        for cell in cells
        for name in METRICS
        if name in metrics
        and METRICS[name].kind is Kind.WARM
        and METRICS[name].turn in TURNS
        and METRICS[name].applies(cell)
    ]
    return list(dict.fromkeys(found))


def survived(side: Side, outcome: Outcome, workload: str | None = None) -> bool:
    """Note who is to blame for a worker's death, if it died."""
    death = outcome.death
    if death is None:
        return True
    if death.cut:
        return False
    blamed = [cell for cell in side.alive(workload) if arm_of(cell) == death.arm]
    for cell in blamed:
        side.fail(cell, death.reason, death.stderr)
    if not blamed:
        side.deaths += 1
        side.state.notes.append(f"a worker had to be started anew: {death.reason}")
        if side.deaths > DEATHS:
            for cell in side.alive():
                if not side.state.cells[cell].blocks:
                    side.fail(cell, death.reason, death.stderr)
    return False
