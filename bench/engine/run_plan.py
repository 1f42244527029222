"""The plan of a run: one environment after the other, each proven, then measured until the end.

On each environment and backend: workers prove what they open and measure what the host costs;
the fewest workers measure steps; then come cold processes, trainings and exact counts; the rest of
the time goes to further workers, and in them to what is not settled yet.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, CONTROL, TOGETHER, Cell
from bench.engine.actions import ALL, ONE, Turn, rounds_of, work
from bench.engine.planner import (
    ALONE,
    COLD_SHARE,
    COUNT_SHARE,
    HOST_SHARE,
    MIN_VISITS,
    OPEN_SHARE,
    PREPARED_SHARE,
    PROVE_FIRST,
    PROVE_SHARE,
    TRAINING_SHARE,
    Guess,
    cold_count,
    visits,
)
from bench.engine.scheduler import PREPARED, Scheduler, Visit
from bench.engine.sides import Side, arm_of, with_references
from bench.engine.state import State
from bench.metrics import HOST, METRICS, TINY, Kind
from common.config import WORKLOADS
from common.devices import AT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.engine.actions import Cores, Lanes, Options, Steps

STARVED = "not measured within the budget"
NO_PROGRAM = "not written in JAX: nothing is traced, lowered or compiled by it"
APART = 6
"""Cells whose time it takes to start an environment's own workers."""
LARGE = 5
"""How many times the share of a tiny workload a turn of another one gets: there the difference
that matters is a few per cent, where a tiny one's is a factor."""
LATE = 1.03
"""Of the time, after which no cold process may end that another one's sweep has begun."""
TRAINING_STEPS, PURE_RUNS = 200, 4
"""Steps of a training, and trainings of a `pure` style: one of them from the common weights."""
SEED_STEP = 4e-3
"""Seconds of a step at `seed`, until one has been seen."""
OVER = 0.03
"""Of the budget, by which it may be exceeded for the first answer to a question."""
SETTLED_SHARE = 1 / 3
"""Of visits, those that an arm still takes part in when its verdict is beyond doubt."""
PROVING_SHARE = 0.12
"""Of the budget, what the workers that prove may measure of the host's cost before steps begin."""

type Settled = Callable[[Side, Turn], frozenset[str]]
"""Says which arms of a turn need no more time."""


def nothing_settled(side: Side, turn: Turn) -> frozenset[str]:
    """Return that every arm of a turn is open."""
    del side, turn
    return frozenset()


class Run:
    """All environments and backends of a run."""

    def __init__(
        self,
        needed: Mapping[Cell, set[str]],
        options: Options,
        before: float = 0.0,
        *,
        problems: Mapping[str, str] | None = None,
        environments: Mapping[str, str] | None = None,
        lanes: Sequence[Cores] = ((),),
        settled: Settled = nothing_settled,
    ) -> None:
        """Plan a run.

        Args:
            needed: Metrics to measure, by cell; the baseline and its control are added.
            options: How much is measured.
            before: Seconds that had been spent when the first action was asked for.
            problems: Entrants that cannot be loaded, and why.
            environments: What has workers of its own, by entrant or by arm; see `Offer.sides`.
            lanes: A core for each worker that may run at the same time as others.
            settled: Says which arms need no more time.
        """
        self.needed, self.options = needed, options
        self.environments, self.lanes, self.settled = environments or {}, list(lanes), settled
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in needed:
            groups.setdefault((self.side_of(cell), cell.backend), []).append(cell)
        self.groups = groups
        self.sides = {
            key: Side.of(key[0], key[1], with_references(cells)) for key, cells in groups.items()
        }
        for side in self.sides.values():
            for cell, found in side.state.cells.items():
                found.failure = (problems or {}).get(cell.entrant)
            for cell, found in list(side.state.cells.items()):
                if cell[:2] == BASELINE and found.failure is not None:
                    side.fail(cell, found.failure)
        self.scheduler = Scheduler({}, options, before)
        self.spent, self.end = self.scheduler.spent, self.scheduler.end

    def side_of(self, cell: Cell) -> str:
        """Return whose workers a cell is measured in; empty for everybody's."""
        style = cell.style.partition(AT)[0]
        own = self.environments.get(cell.entrant, "")
        return self.environments.get(f"{cell.entrant}/{style}", own)

    def actions(self) -> Lanes:
        """Yield what to do; the time is shared out by numbers of cells, and by environments."""
        shares = Counter(
            {key: len(cells) + 2 + (APART if key[0] else 0) for key, cells in self.groups.items()}
        )
        keys = list(self.groups)
        for i, key in enumerate(keys):
            left = self.end - self.spent.wall
            total = sum(shares[k] for k in keys[i:])
            side = self.sides[key]
            self.scheduler.sides = {side.name: side}
            side.state.spent = self.spent
            group = Group(self, side, self.spent.wall + left * shares[key] / total)
            yield from group.actions()

    @property
    def state(self) -> State:
        """All that was found; of a baseline, what everybody's environment says first.

        Ratios are formed within a worker, so all of its blocks count; cold samples of another
        environment count where there are no others.
        """
        whole = State({}, spent=self.spent)
        for side in self.sides.values():
            found = side.state
            whole.blocks.extend(found.blocks)
            whole.notes.extend(note for note in found.notes if note not in whole.notes)
            whole.missing |= found.missing
            whole.plan |= found.plan
            for cell, own in found.cells.items():
                if cell not in whole.cells:
                    blocks = {metric: list(each) for metric, each in own.blocks.items()}
                    whole.cells[cell] = replace(own, blocks=blocks)
                    continue
                first = whole.cells[cell]
                had = set(first.blocks)
                for metric, each in own.blocks.items():
                    if METRICS[metric].kind is Kind.WARM or metric not in had:
                        first.blocks.setdefault(metric, []).extend(each)
                if first.proof is None:
                    first.proof, first.exact = own.proof, own.exact
                    first.facts = first.facts or own.facts
                if not first.blocks and first.failure is None:
                    first.failure, first.stderr = own.failure, own.stderr
        return whole


class Group:
    """The part of a run in one environment, on one backend."""

    def __init__(self, run: Run, side: Side, deadline: float) -> None:
        self.run, self.side, self.deadline = run, side, deadline
        self.work, self.options = run.scheduler, run.options
        self.cells = run.groups[side.name, side.backend]
        # The large one first: it is what people ask about. A sweep comes last and goes up.
        sweep = TOGETHER["sweep"]
        self.workloads = sorted(
            dict.fromkeys(cell.workload for cell in self.cells),
            key=lambda w: (w in sweep, work(WORKLOADS[w]) * (1 if w in sweep else -1)),
        )
        one = run.options.cores != ALL and side.backend == "cpu"
        self.one_core: list[Cores] = run.lanes if one else [()]
        self.all_cores: list[Cores] = run.lanes if one and run.options.cores == ONE else [()]
        self.visits: Counter[Turn] = Counter()

    @property
    def now(self) -> float:
        """Seconds of the budget that are spent."""
        return self.work.now

    @property
    def left(self) -> float:
        """Seconds until this part's end."""
        return max(0.0, self.deadline - self.now)

    # what is wanted

    def wants(self, metric: str, workload: str) -> bool:
        """Tell whether a metric is needed at a workload, by any cell."""
        return any(
            metric in self.run.needed[cell] and METRICS[metric].applies(cell)
            for cell in self.cells
            if cell.workload == workload
        )

    def turns(self, *, one_core: bool | None = None, prepared: bool = False) -> dict[Turn, float]:
        """Return warm turns that are wanted and possible, with their shares of the time."""
        return {
            Turn(workload, metric.turn): metric.weight * (1 if workload in TINY else LARGE)
            for workload in self.workloads
            for metric in METRICS.values()
            if metric.kind is Kind.WARM and (metric.turn in PREPARED) == prepared
            if one_core is None or metric.one_core == one_core
            if self.wants(metric.name, workload) and self.worth(workload)
        }

    def worth(self, workload: str) -> bool:
        """Tell whether anything that is asked for at a workload can still be measured."""
        return any(cell in self.run.needed for cell in self.side.alive(workload))

    def cold_cells(self, workload: str) -> list[Cell]:
        """Return the cells at a workload whose cold processes are wanted.

        What belongs to a library is measured of one of its styles.
        """
        found = []
        for cell in self.side.alive(workload):
            beside = cell[:2] in (BASELINE, CONTROL)
            names = {
                m
                for m in self.run.needed.get(cell, ())
                if METRICS[m].kind is Kind.COLD and METRICS[m].applies(cell)
            }
            first = self.first_style(cell)
            if beside and self.side.name:
                continue  # cold ones are compared with everybody's
            if beside or any(not METRICS[m].of_library or first for m in names):
                found.append(cell)
        return (
            found
            if any(c[:2] not in (BASELINE, CONTROL) for c in found)
            or any(METRICS[m].kind is Kind.COLD for c in found for m in self.run.needed.get(c, ()))
            else []
        )

    def first_style(self, cell: Cell) -> bool:
        """Tell whether a cell is the first of its entrant's at its workload."""
        return cell == next(
            c for c in self.cells_and_references() if c[0] == cell[0] and c[2:] == cell[2:]
        )

    def cells_and_references(self) -> list[Cell]:
        """Return this part's cells, those that are beside all of them first."""
        return with_references(self.cells)

    # the order of things

    def actions(self) -> Lanes:
        """Yield everything that is done in this environment."""
        self.choose_workloads()
        yield from self.prove()
        turns = self.turns(one_core=False)
        if turns:
            yield from self.measure(turns, self.all_cores, MIN_VISITS - self.least(turns))
        yield from self.once()
        prepared = self.turns(prepared=True)
        if prepared and not self.options.fixed:
            share = PREPARED_SHARE if turns or self.turns(one_core=True) else ALONE
            yield from self.measure(prepared, [()], 4, self.now + share * self.left)
        elif prepared:
            yield from self.measure(prepared, [()], self.options.processes or 1)
        host, turns = self.turns(one_core=True), self.turns(one_core=False)
        if turns:
            yield from self.measure(turns, self.all_cores)
        elif host:
            yield from self.measure(host, self.one_core)
        self.note_missing()

    def choose_workloads(self) -> None:
        """Leave workloads out for which the budget is too small, before any of them is proven."""
        if self.options.fixed:
            return
        lanes = len(self.proving_lanes())
        guess = Guess()
        each = guess.prove if lanes > 1 else guess.prove_all_cores
        spent = guess.load
        kept: list[str] = []
        for workload in self.workloads:
            spent += each * len(self.side.alive(workload)) / lanes
            if kept and spent > OPEN_SHARE * self.left:
                break
            kept.append(workload)
        self.workloads = kept

    def proving_lanes(self) -> list[Cores]:
        """Return the cores of workers that prove: those whose blocks they take right after."""
        host = any(
            self.wants(m.name, w)
            for m in METRICS.values()
            if m.turn == HOST
            for w in self.workloads
        )
        cold = any(
            self.wants(m, w)
            for m in METRICS
            if METRICS[m].kind is Kind.COLD
            for w in self.workloads
        )
        steps = any(self.wants("step", w) for w in self.workloads)
        return self.one_core if host or (cold and not steps) else self.all_cores

    def prove(self) -> Lanes:
        """Open the first workers, which prove everything and measure what they can."""
        lanes = self.proving_lanes()
        pinned = lanes is self.one_core and lanes is not self.all_cores
        turns = self.turns(one_core=True) if pinned else self.turns(one_core=False)
        begun: list[Cores] = []

        def supply(cores: Cores) -> Steps[Any] | None:
            if cores in begun or not any(map(self.worth, self.workloads)):
                return None
            begun.append(cores)
            return self.proving_visit(turns, cores, len(lanes), pinned)

        if self.options.processes == 1:
            lanes = lanes[:1]
        yield from self.work.phase(lanes, supply)

    def proving_visit(
        self, turns: Mapping[Turn, float], cores: Cores, lanes: int, pinned: bool
    ) -> Steps[None]:
        """Open and prove, again where a worker dies, and measure for a while."""
        guess = Guess()
        share = PROVING_SHARE if pinned and self.turns(one_core=False) else 1 / (MIN_VISITS + 1)
        proofs = sum(len(self.side.alive(workload)) for workload in self.workloads)
        opening = guess.load + guess.prove * proofs / lanes
        end = min(self.deadline, self.now + opening + share * max(0.0, self.left - opening))
        until = {
            workload: self.now + (PROVE_FIRST if i == 0 else PROVE_SHARE) * self.left
            for i, workload in enumerate(self.workloads)
        }
        if self.options.fixed:
            end, until = math.inf, {}
        visit = Visit(
            (self.side.name,), turns, cores, end, tuple(self.workloads), prove_until=until
        )
        while any(map(self.worth, self.workloads)) and not self.side.given_up:
            done = yield from self.work.visit(visit)
            if done:
                self.visits.update(list(turns))
                return

    def least(self, turns: Mapping[Turn, float]) -> int:
        """Return how many workers have measured each of some turns."""
        return min(self.visits[turn] for turn in turns)

    def measure(
        self,
        turns: Mapping[Turn, float],
        lanes: Sequence[Cores],
        count: int | None = None,
        end: float | None = None,
    ) -> Lanes:
        """Visit with these turns until so many workers have, or until the time is over.

        Args:
            turns: With their shares.
            lanes: Cores of the workers that may be there at the same time.
            count: Of visits; with it, they are as short as a sensible one can be.
            end: Of the time, where it is not this part's.
        """
        end = self.deadline if end is None else end
        if self.options.blocks is not None or self.options.processes is not None:
            count = (self.options.processes or 1) - self.least(turns)
        begun = 0

        def supply(cores: Cores) -> Steps[Any] | None:
            nonlocal begun
            live = {t: w for t, w in turns.items() if self.worth(t.workload)}
            if not live or self.side.given_up or (count is not None and begun >= count):
                return None
            until = self.visit_end(live, end, len(lanes), count)
            if until is None:
                return None
            begun += 1
            return visit(live, cores, until)

        def visit(live: dict[Turn, float], cores: Cores, until: float) -> Steps[None]:
            nonlocal begun
            done = yield from self.visit(live, cores, until)
            begun -= not done

        yield from self.work.phase(lanes, supply)

    def visit(self, turns: Mapping[Turn, float], cores: Cores, until: float) -> Steps[bool]:
        """Measure these turns in a worker; two thirds of what is settled sit it out."""
        left_out = {
            (turn, arm)
            for turn in turns
            for arm in sorted(self.run.settled(self.side, turn))
            if self.work.rng.random() > SETTLED_SHARE
        }
        names = (self.side.name,)
        done = yield from self.work.visit(
            Visit(names, turns, cores, until, leave_out=frozenset(left_out))
        )
        if done:
            self.visits.update(list(turns))
        return done

    def visit_end(
        self, turns: Mapping[Turn, float], end: float, lanes: int, count: int | None
    ) -> float | None:
        """Return when a visit that begins now stops; None where the time is too short for it."""
        if self.options.blocks is not None:
            return self.deadline
        opening = self.opening(turns)
        least = sum(self.block_seconds(turn) for turn in turns)
        left = end - self.now
        first = not any(self.visits[turn] for turn in turns)
        if left + (OVER * self.options.budget if first else 0.0) < opening + least:
            return None
        if count is not None:
            return min(end, self.now + opening + max(least, 1.5 * opening))
        length = visits(max(left, opening + least), opening, least, lanes)
        return self.now + opening + length.each

    def opening(self, turns: Mapping[Turn, float]) -> float:
        """Return about how long it takes to open a worker for these turns."""
        return self.work.open_cost((self.side.name,), (turn.workload for turn in turns))

    def block_seconds(self, turn: Turn) -> float:
        """Return about how long a block of a turn takes."""
        arms = [arm_of(cell) for cell in self.side.alive(turn.workload)]
        known = self.work.block_cost((self.side.name,), turn, arms)
        return known or len(arms) * rounds_of(turn) * 6 * self.step_seconds(turn.workload)

    def step_seconds(self, workload: str) -> float:
        """Return about what a step takes, over all arms."""
        values = [
            value
            for cell in self.side.alive(workload)
            for samples in self.side.state.cells[cell].blocks.get("step", [])[:1]
            for value in samples.values
        ]
        guess = SEED_STEP * work(WORKLOADS[workload]) / work(WORKLOADS["seed"])
        return sum(values) / len(values) if values else max(2e-4, guess)

    # what is done once, and what is left out

    def once(self) -> Lanes:
        """Yield cold processes, counts, trainings and host costs, on one core each."""
        jobs = list(self.jobs())
        host = self.turns(one_core=True)
        alone = not self.turns(one_core=False)
        end = self.now + (ALONE if alone else HOST_SHARE) * self.left if host else self.now
        waiting = jobs

        def supply(cores: Cores) -> Steps[Any] | None:
            while waiting:
                job = waiting.pop(0)
                return job(cores)
            return None

        yield from self.work.phase(self.one_core, supply)
        if host and self.all_cores is not self.one_core:
            precise = self.now + HOST_SHARE * self.left if not alone else end
            yield from self.measure(host, self.one_core, end=precise)

    def jobs(self) -> Iterator[Callable[[Cores], Steps[Any]]]:
        """Yield what is done once, if there is time for it: exact counts, cold ones, trainings."""
        lanes, left = len(self.one_core), self.left
        if self.options.blocks is not None and self.options.cold_samples is None:
            left_for_cold = 0.0
        else:
            left_for_cold = left
        steps = bool(self.turns())
        workload = min(self.workloads, key=lambda w: work(WORKLOADS[w]))
        arms = self.side.alive(workload)
        count_cost = len(arms) * self.each_cost(workload) * 0.8
        if self.options.fixed or not steps or count_cost / lanes <= COUNT_SHARE * left:
            half = -(-len(arms) // lanes)
            for part in (arms[i : i + half] for i in range(0, len(arms), max(1, half))):
                yield partial(self.work.each, self.side.name, "count", part)
        yield from self.cold_jobs(left_for_cold, lanes, steps)
        yield from self.training_jobs(left, lanes, steps)

    def each_cost(self, workload: str) -> float:
        """Return about what it takes to open one arm."""
        known = self.work.open_cost((self.side.name,), [workload])
        loading = self.work.loading.get(self.side.name, Guess().load)
        return max(0.3, (known - loading) / max(1, len(self.side.alive(workload))))

    def cold_jobs(self, left: float, lanes: int, steps: bool) -> Iterator[Callable[[Cores], Any]]:
        """Yield cold processes, sweep by sweep, each sweep in another random order."""
        allowed = (COLD_SHARE if steps else ALONE) * left
        chosen: list[Cell] = []
        each = self.work.cold_cost.get(self.side.name, Guess().cold) / lanes
        count = 0
        for workload in self.workloads:
            cells = self.cold_cells(workload)
            fits = cold_count(allowed, (len(chosen) + len(cells)) * each, self.options.cold_samples)
            if cells and fits:
                chosen, count = chosen + cells, fits
        self.note_plan(cold_samples=count, cold_cells=len(chosen))
        for number in range(count):
            for cell in self.work.rng.sample(chosen, len(chosen)):
                yield partial(self.cold, cell, number)

    def cold(self, cell: Cell, number: int, cores: Cores) -> Steps[None]:
        """Measure one cold process, unless the time is over and there are enough."""
        del number
        late = self.options.cold_samples is None and self.now > LATE * self.deadline
        if not late and self.side.state.cells[cell].failure is None:
            yield from self.work.cold([self.side.name], cell, cores)

    def training_jobs(
        self, left: float, lanes: int, steps: bool
    ) -> Iterator[Callable[[Cores], Steps[Any]]]:
        """Yield trainings, a part of the arms for each lane."""
        allowed = (TRAINING_SHARE if steps else ALONE) * left
        for workload in reversed(self.workloads):
            cells = [
                cell
                for cell in self.side.alive(workload)
                if "final_loss" in self.run.needed.get(cell, ())
            ]
            runs = sum(PURE_RUNS if cell.style == "pure" else 1 for cell in cells)
            cost = 1.2 * runs * TRAINING_STEPS * self.step_seconds(workload) / lanes
            cost += len(cells) * self.each_cost(workload) / lanes
            fixed = self.options.fixed
            if not cells or not (fixed or cost <= allowed):
                continue
            allowed -= cost
            cells = self.work.rng.sample(cells, len(cells))
            for part in (cells[i::lanes] for i in range(min(lanes, len(cells)))):
                yield partial(self.work.each, self.side.name, "train", part)

    def note_plan(self, **what: Any) -> None:
        """Write down what was decided."""
        key = f"{self.side.backend} {self.side.name}".strip()
        self.side.state.plan.setdefault(key, {}).update(what)

    def note_missing(self) -> None:
        """Say of each cell and metric that has no sample, why."""
        for cell in self.cells:
            found = self.side.state.cells[cell]
            for name in self.run.needed[cell]:
                metric = METRICS[name]
                have = found.training if metric.kind is Kind.ONCE else found.blocks.get(name)
                if metric.of_library and not have and self.borrowed(cell, name):
                    continue
                if not have:
                    without = name in found.facts.get("without", ())
                    program = without and not found.facts.get("trace_and_lower_split_by")
                    self.side.state.missing[cell, name] = NO_PROGRAM if program else STARVED
        self.note_plan(
            workloads=list(self.workloads),
            workers={" ".join(turn): n for turn, n in self.visits.items()},
        )

    def borrowed(self, cell: Cell, name: str) -> bool:
        """Give a cell the samples of its library's first style; False where there are none."""
        for other in self.cells_and_references():
            if other[0] == cell[0] and other[2:] == cell[2:] and other != cell:
                samples = self.side.state.cells[other].blocks.get(name)
                if samples:
                    self.side.state.cells[cell].blocks[name] = list(samples)
                    return True
        return False
