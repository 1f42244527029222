"""The plan of one environment on one backend: prove, measure, then what happens once.

Workers are opened as many at a time as there are lanes, since compiling uses one core. In them,
blocks are measured side by side where each worker keeps to a core of its own, and one worker after
the other where they use all cores. First come the fewest workers that steps need, then cold
processes, exact counts and trainings, then further workers until the time is over, with less time
for what is settled.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, CONTROL, TOGETHER, Cell
from bench.engine.actions import ALL, AUTO, ONE, Turn, rounds_of, work
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
    rounds_for,
    sitting,
)
from bench.engine.scheduler import PREPARED, Scheduler, Visit
from bench.engine.sides import Side, arm_of, with_references
from bench.metrics import HOST, METRICS, TINY, Kind
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.engine.actions import Cores, Lanes, Phases, Steps

STARVED = "not measured within the budget"
NO_PROGRAM = "not written in JAX: nothing is traced, lowered or compiled by it"
LARGE = 5
"""How many times the share of a tiny workload a turn of another one gets: there the difference
that matters is a few per cent, where a tiny one's is a factor."""
ENOUGH_TINY = 6
"""Workers that measure a tiny workload's step on all cores, where there is another: what it costs
the host is measured on one core, far better."""
LATE = 1.03
"""Of the time, after which no cold process may end that another one's sweep has begun."""
TRAINING_STEPS, PURE_RUNS = 200, 4
"""Steps of a training, and trainings of a `pure` style: one of them from the common weights."""
SEED_STEP = 4.5e-3
"""Seconds of a step at `seed`, over all arms, until one has been seen."""
OVER = 0.03
"""Of the budget, by which it may be exceeded for the first answer to a question."""
SETTLED_SHARE = 1 / 3
"""Of visits, those that an arm still takes part in when its verdict is beyond doubt."""
PROGRAMS = {"sample": 1, "epoch": 2}
"""That each `pure` style compiles for a turn."""

type Settled = Callable[[Side, Turn], frozenset[str]]
"""Says which arms of a turn need no more time."""
type Turns = dict[Turn, float]
"""Turns with their shares of the time."""


def nothing_settled(side: Side, turn: Turn) -> frozenset[str]:
    """Return that every arm of a turn is open."""
    del side, turn
    return frozenset()


class EnvironmentPlan:
    """The part of a run in one environment, on one backend."""

    def __init__(
        self,
        scheduler: Scheduler,
        side: Side,
        needed: Mapping[Cell, set[str]],
        lanes: Sequence[Cores],
        deadline: float,
        settled: Settled = nothing_settled,
        *,
        with_reference: bool = True,
    ) -> None:
        """Plan a part of a run.

        Args:
            scheduler: Does it.
            side: The environment.
            needed: Metrics to measure, by cell.
            lanes: A core for each worker that may run at the same time as others.
            deadline: Seconds of the budget at which this part ends.
            settled: Says which arms need no more time.
            with_reference: Whether the baseline's cold processes are this environment's.
        """
        self.with_reference = with_reference
        self.work, self.side, self.needed, self.deadline = scheduler, side, needed, deadline
        self.settled, self.options = settled, scheduler.options
        self.cells = list(needed)
        # The large one first: it is what people ask about. A sweep comes last and goes up.
        sweep = TOGETHER["sweep"]
        self.workloads = sorted(
            dict.fromkeys(cell.workload for cell in self.cells),
            key=lambda w: (w in sweep, work(WORKLOADS[w]) * (1 if w in sweep else -1)),
        )
        cpu = side.backend == "cpu"
        self.one_core: list[Cores] = list(lanes) if cpu and self.options.cores != ALL else [()]
        self.at_once = len(lanes) if cpu else 1
        """Workers that are opened at the same time."""
        self.pinned = cpu and self.options.cores == ONE
        """Whether steps are measured on one core each, too."""
        self.visits: Counter[Turn] = Counter()
        """Workers that have measured a turn."""

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
            metric in self.needed[cell] and METRICS[metric].applies(cell)
            for cell in self.cells
            if cell.workload == workload
        )

    def turns(self, *, host: bool = False, prepared: bool = False) -> Turns:
        """Return the turns of steps, of host costs or of what compiles apart, as wanted."""
        return {
            Turn(workload, metric.turn): metric.weight * (1 if workload in TINY else LARGE)
            for workload in self.workloads
            for metric in METRICS.values()
            if metric.kind is Kind.WARM
            and (metric.turn in PREPARED) == prepared
            and (metric.turn == HOST) == host
            and self.wants(metric.name, workload)
            and self.worth(workload)
        }

    def worth(self, workload: str) -> bool:
        """Tell whether anything that is asked for at a workload can still be measured."""
        return any(cell in self.needed for cell in self.side.alive(workload))

    def wants_cold(self, workload: str) -> bool:
        """Tell whether any cold metric is needed at a workload."""
        return any(self.wants(m, workload) for m in METRICS if METRICS[m].kind is Kind.COLD)

    def cold_cells(self, workload: str) -> list[Cell]:
        """Return the cells at a workload whose cold processes are wanted.

        What belongs to a library is measured of one of its styles. Of several environments, the
        first measures the baseline.
        """
        if not self.wants_cold(workload):
            return []
        found = []
        for cell in self.side.alive(workload):
            beside = cell[:2] in (BASELINE, CONTROL)
            first = cell == next(c for c in self.order() if c[0] == cell[0] and c[2:] == cell[2:])
            wanted = any(
                METRICS[m].kind is Kind.COLD and (first or not METRICS[m].of_library)
                for m in self.needed.get(cell, ())
            )
            if self.with_reference if beside else wanted:
                found.append(cell)
        return found

    def order(self) -> list[Cell]:
        """Return this part's cells, those of the baseline and its control first."""
        return with_references(self.cells)

    # the order of things

    def actions(self) -> Lanes:
        """Yield everything that is done in this environment."""
        self.workloads, _ = self.affordable()
        yield from self.prove()
        if steps := self.turns():
            yield from self.measure(steps, self.pinned, count=MIN_VISITS)
        host = self.turns(host=True)
        if host and self.options.cores == AUTO:
            yield from self.measure(host, pinned=True, count=MIN_VISITS)
        yield from self.once()
        yield from self.apart()
        yield from self.rest()
        self.note_missing()

    def apart(self) -> Lanes:
        """Measure what compiles programs of its own, where there is time for enough workers."""
        others = bool(self.turns() or self.turns(host=True))
        end = self.now + (PREPARED_SHARE if others else ALONE) * self.left
        for turn, weight in self.turns(prepared=True).items():
            arms = [c for c in self.side.alive(turn.workload) if c.style == BASELINE[1]]
            programs = PROGRAMS[turn.kind] * len(arms) * Guess().prove
            each = self.opening({turn: weight}) + programs / 3 + self.turn_seconds(turn)
            cost = programs + MIN_VISITS * each  # later workers have a compilation cache
            if self.options.fixed or not others or cost <= end - self.now:
                yield from self.measure({turn: weight}, pinned=False, count=MIN_VISITS, end=end)

    def rest(self) -> Lanes:
        """Measure steps until the end, and between them what the host costs, a part of the time."""
        used = {False: 0.0, True: 0.0}
        given = self.fixed_count() is not None
        while True:
            steps, host = self.turns(), self.turns(host=True)
            if self.options.cores == ALL or self.pinned:
                steps, host = steps | host, {}
            share = used[True] / max(1e-9, sum(used.values()))
            mine = bool(host) and (
                not steps or (share < HOST_SHARE and (given or any(map(self.open, host))))
            )
            turns = host if mine else steps
            before = self.now
            done = yield from self.some(turns, mine)
            other = {} if not host else steps if mine else host
            if not done and other:  # no time for the one: the other may take less
                mine = not mine
                done = yield from self.some(other, mine)
            if not done:
                return
            used[mine] += self.now - before

    def some(self, turns: Turns, host: bool) -> Phases[bool]:
        """Measure these turns in some workers more; False where there is no time for any.

        What a worker adds to a host cost varies more than its blocks: many short workers tell most.
        """
        return self.one_sitting(
            turns, self.pinned or host, self.deadline, count=self.fixed_count(), short=host
        )

    def open(self, turn: Turn) -> bool:
        """Tell whether an arm of a turn is not settled yet."""
        settled = self.settled(self.side, turn)
        return any(
            arm_of(cell) not in settled
            for cell in self.side.alive(turn.workload)
            if cell[:2] not in (BASELINE, CONTROL)
        )

    def affordable(self) -> tuple[list[str], float]:
        """Return the workloads for which the budget is enough, and seconds until all is proven."""
        guess = Guess()
        spent = guess.load
        kept: list[str] = []
        for workload in self.workloads:
            more = guess.prove * len(self.side.alive(workload)) / self.at_once
            if kept and spent + more > OPEN_SHARE * self.left and not self.options.fixed:
                break
            spent += more
            kept.append(workload)
        return kept, spent

    def outline(self) -> str:
        """Return what is going to be done, in order, before anything is."""
        kept, seconds = self.affordable()
        left_out = [workload for workload in self.workloads if workload not in kept]
        arms = max(len(self.side.alive(workload)) for workload in kept)
        steps, host = self.turns(), self.turns(host=True)
        lanes = len(self.one_core)
        one = f"on one core each, {lanes} worker{'s' if lanes > 1 else ''} at a time"

        def at(turns: Turns) -> str:
            found: dict[str, list[str]] = {}
            for turn in turns:
                if turn.workload in kept:
                    found.setdefault(turn.kind, []).append(turn.workload)
            return ", ".join(f"{kind} at {' and '.join(each)}" for kind, each in found.items())

        done = [
            f"proofs that {arms} arms are equal, at {' and '.join(kept)} (about {seconds:.0f} s)"
        ]
        for turns, pinned in ((steps, self.pinned), (host, bool(self.one_core[0]))):
            if at(turns):
                done.append(f"{at(turns)}, {one if pinned else 'on all cores'}")
        once = [
            *(m for m in METRICS if METRICS[m].kind is Kind.COLD),
            *(m for m in METRICS if METRICS[m].kind is Kind.ONCE),
        ]
        once = [m for m in once if any(m in self.needed[c] for c in self.cells)]
        if once or self.turns(prepared=True):
            apart = [turn.kind for turn in self.turns(prepared=True)]
            names = ", ".join(dict.fromkeys([*once, *apart]))
            done.append(f"where there is time: {names}")
        if left_out:
            done.append(f"no time for {' and '.join(left_out)}")
        where = " ".join(filter(None, (self.side.backend, self.side.name)))
        return f"{where}: {'; '.join(done)}"

    def prove(self) -> Lanes:
        """Open the first workers, which prove everything and measure what they can."""
        steps, host = self.turns(), self.turns(host=True)
        pinned = self.pinned or (not steps and self.options.cores != ALL)
        turns = steps if steps and not self.pinned else steps | host
        until = {
            workload: self.now + (PROVE_FIRST if i == 0 else PROVE_SHARE) * self.left
            for i, workload in enumerate(self.workloads)
        }
        visit = Visit(
            (self.side.name,),
            turns,
            (),
            self.deadline,
            tuple(self.workloads),
            prove_until={} if self.options.fixed else until,
        )
        for _ in range(3):  # a worker that dies is followed by another one
            opened = yield from self.opened(visit, pinned, self.workers_at_once())
            if opened or self.side.given_up:
                break
        in_a_row = 1 if pinned else max(1, len(opened))
        block, each = self.block_seconds(turns), self.left / in_a_row
        others = self.opening(turns) + in_a_row * block
        for blocks in (1, 2):  # as many as leave time for other workers
            if self.left >= in_a_row * blocks * block + others:
                each = blocks * block
        yield from self.sat(opened, turns, pinned, each)

    def workers_at_once(self, most: int | None = None) -> int:
        """Return how many workers to open at the same time."""
        if self.options.fixed or self.options.processes is not None:
            most = min(most or self.at_once, self.options.processes or 1)
        return max(1, min(self.at_once, most or self.at_once))

    def fixed_count(self) -> int | None:
        """Return the number of workers that was asked for, if any was."""
        given = self.options.fixed or self.options.processes is not None
        return (self.options.processes or 1) if given else None

    def measure(self, turns: Turns, pinned: bool, *, count: int, end: float | None = None) -> Lanes:
        """Measure these turns in workers that are as short as is sensible.

        Args:
            turns: With their shares.
            pinned: Whether each worker keeps to a core of its own.
            count: Of workers, after which it is enough.
            end: Of the time, where it is not this part's.
        """
        end = self.deadline if end is None else end
        count = self.fixed_count() or count
        while (yield from self.one_sitting(turns, pinned, end, count=count, short=True)):
            pass

    def one_sitting(
        self, turns: Turns, pinned: bool, end: float, *, count: int | None, short: bool = False
    ) -> Phases[bool]:
        """Open workers and measure in them; False where there are enough, or there is no time."""
        for _ in range(3):  # workers that die are followed by others
            live = self.live(turns)
            have = min((self.visits[turn] for turn in live), default=0)
            if not live or self.side.given_up or (count is not None and have >= count):
                return False
            given = self.fixed_count()
            most = self.workers_at_once(None if given is None else given - have)
            plan = self.sitting(live, pinned, most, end, short=short)
            if plan is None:
                return False
            number, each = plan
            names, left_out = (self.side.name,), self.left_out(live)
            visit = Visit(names, live, (), self.deadline, leave_out=left_out)
            opened = yield from self.opened(visit, pinned, number)
            if opened:
                yield from self.sat(opened, live, pinned, each)
                return True
        return False

    def live(self, turns: Turns) -> Turns:
        """Return the turns that are still worth their time."""
        live = {turn: weight for turn, weight in turns.items() if self.worth(turn.workload)}
        large = {
            turn: weight
            for turn, weight in live.items()
            if turn.workload not in TINY or turn.kind == HOST
        }
        done = all(self.visits[turn] >= ENOUGH_TINY for turn in live if turn not in large)
        return large if large and done and not self.options.fixed else live

    def left_out(self, turns: Turns) -> frozenset[tuple[Turn, str]]:
        """Return what sits a visit out: two thirds of the times, what is settled.

        Where everything is, all goes on: the time is there to narrow intervals.
        """
        return frozenset(
            (turn, arm)
            for turn in turns
            if self.open(turn)
            for arm in sorted(self.settled(self.side, turn))
            if self.work.rng.random() > SETTLED_SHARE
        )

    def sitting(
        self, turns: Turns, pinned: bool, most: int, end: float, *, short: bool
    ) -> tuple[int, float] | None:
        """Return how many workers to open now, and seconds of blocks in each; None without time."""
        if self.options.fixed:
            return most, math.inf
        first = not any(self.visits[turn] for turn in turns)
        left = end - self.now + (OVER * self.options.budget if first else 0.0)
        opening, least = self.opening(turns), self.block_seconds(turns)
        return sitting(left, opening, least, most, side_by_side=pinned, short=short)

    def opened(
        self, visit: Visit, pinned: bool, count: int
    ) -> Phases[list[tuple[Visit, dict[str, int]]]]:
        """Open the workers of several visits at the same time; those that did not die."""
        found: list[tuple[Visit, dict[str, int]]] = []
        begun: list[Cores] = []

        def supply(cores: Cores) -> Steps[Any] | None:
            taken = len(begun) >= count or (cores and cores in begun)
            if taken or not any(map(self.worth, self.workloads)):
                return None
            begun.append(cores)
            return open_one(cores)

        def open_one(cores: Cores) -> Steps[None]:
            own = visit._replace(cores=cores)
            workers = yield from self.work.begin(own)
            if workers:
                found.append((own, workers))

        lanes = self.one_core if pinned else [()] * self.at_once
        yield from self.work.phase(lanes[:count] if pinned else lanes, supply)
        return found

    def sat(
        self,
        opened: Sequence[tuple[Visit, dict[str, int]]],
        turns: Turns,
        pinned: bool,
        each: float,
    ) -> Lanes:
        """Measure in open workers, side by side or one after the other, and close them."""
        waiting = list(opened)
        block = self.block_seconds(turns)
        rounds = [rounds_for(each, block, rounds_of(turn)) for turn in turns]
        usual = rounds == [rounds_of(turn) for turn in turns]

        def supply(cores: Cores) -> Steps[Any] | None:
            mine = [one for one in waiting if one[0].cores == cores or not pinned]
            if not mine:
                return None
            waiting.remove(mine[0])
            return measure_one(*mine[0])

        def measure_one(visit: Visit, workers: dict[str, int]) -> Steps[None]:
            end = math.inf if self.options.fixed else self.now + each
            own = visit._replace(end=end, rounds=None if usual else max(rounds), turns=turns)
            if (yield from self.work.measured(own, workers)):
                self.visits.update(list(turns))

        yield from self.work.phase(self.one_core if pinned else [()], supply)

    # what things cost

    def opening(self, turns: Turns) -> float:
        """Return about how long it takes to open a worker for these turns."""
        return self.work.open_cost((self.side.name,), (turn.workload for turn in turns))

    def block_seconds(self, turns: Turns) -> float:
        """Return about how long one block of each turn takes."""
        return sum(map(self.turn_seconds, turns))

    def turn_seconds(self, turn: Turn) -> float:
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

    def each_cost(self, workload: str) -> float:
        """Return about what it takes to open one arm."""
        known = self.work.open_cost((self.side.name,), [workload])
        loading = self.work.loading.get(self.side.name, Guess().load)
        return max(0.2, (known - loading) / max(1, len(self.side.alive(workload))))

    # what is done once, and what is left out

    def once(self) -> Lanes:
        """Yield exact counts, cold processes and trainings, on one core each."""
        waiting = self.jobs()

        def supply(cores: Cores) -> Steps[Any] | None:
            job = next(waiting, None)  # made when it is asked for: costs are known better by then
            return job and job(cores)

        yield from self.work.phase(self.one_core, supply)

    def jobs(self) -> Iterator[Callable[[Cores], Steps[Any]]]:
        """Yield what is done once, if there is time for it."""
        left, lanes = self.left, len(self.one_core)
        alone = not self.turns() and not self.turns(host=True)
        workload = min(self.workloads, key=lambda w: work(WORKLOADS[w]))
        arms = self.side.alive(workload)
        cost = 2 * len(arms) * self.each_cost(workload) / lanes
        if self.options.fixed or alone or cost <= COUNT_SHARE * left:
            for part in parts(arms, lanes):
                yield partial(self.work.each, self.side.name, "count", part)
        without_cold = self.options.blocks is not None and self.options.cold_samples is None
        yield from self.cold_jobs(0.0 if without_cold else left, lanes, alone)
        yield from self.training_jobs(left, lanes, alone)

    def cold_jobs(self, left: float, lanes: int, alone: bool) -> Iterator[Callable[[Cores], Any]]:
        """Yield cold processes, sweep by sweep, each sweep in another random order."""
        end = self.now + (ALONE if alone else COLD_SHARE) * left
        if self.cold_plan(end, lanes)[1]:
            for cell in self.cold_cells(self.workloads[0])[:lanes]:
                yield partial(self.cold, cell)  # which says what one costs
        chosen, count = self.cold_plan(end, lanes)
        self.note_plan(cold_samples=count, cold_cells=len(chosen))
        for _ in range(count):
            for cell in self.work.rng.sample(chosen, len(chosen)):
                yield partial(self.cold, cell)

    def cold_plan(self, end: float, lanes: int) -> tuple[list[Cell], int]:
        """Return whose cold processes fit into a time, and how many of each."""
        allowed = max(0.0, end - self.now)
        chosen: list[Cell] = []
        each = self.work.cold_cost.get(self.side.name, Guess().cold) / lanes
        count = 0
        for workload in self.workloads:
            every = self.cold_cells(workload)
            pure = [cell for cell in every if cell.style == BASELINE[1]]
            for cells in (every, pure):
                sweep = (len(chosen) + len(cells)) * each
                fits = cold_count(allowed, sweep, self.options.cold_samples)
                if cells and fits:
                    chosen, count = chosen + cells, fits
                    break
        return chosen, count

    def cold(self, cell: Cell, cores: Cores) -> Steps[None]:
        """Measure one cold process, unless the time is over."""
        late = self.options.cold_samples is None and self.now > LATE * self.deadline
        if not late and self.side.state.cells[cell].failure is None:
            yield from self.work.cold([self.side.name], cell, cores)

    def training_jobs(
        self, left: float, lanes: int, alone: bool
    ) -> Iterator[Callable[[Cores], Steps[Any]]]:
        """Yield trainings, a part of the arms for each lane."""
        allowed = (ALONE if alone else TRAINING_SHARE) * left
        for workload in reversed(self.workloads):
            cells = [
                cell
                for cell in self.side.alive(workload)
                if "final_loss" in self.needed.get(cell, ())
            ]
            runs = sum(PURE_RUNS if cell.style == "pure" else 1 for cell in cells)
            cost = 1.2 * runs * TRAINING_STEPS * self.step_seconds(workload) / lanes
            cost += len(cells) * self.each_cost(workload) / lanes
            if not cells or not (self.options.fixed or cost <= allowed):
                continue
            allowed -= cost
            for part in parts(self.work.rng.sample(cells, len(cells)), lanes):
                yield partial(self.work.each, self.side.name, "train", part)

    def note_plan(self, **what: Any) -> None:
        """Write down what was decided."""
        key = f"{self.side.backend} {self.side.name}".strip()
        self.side.state.plan.setdefault(key, {}).update(what)

    def note_missing(self) -> None:
        """Say of each cell and metric that has no sample, why."""
        for cell in self.cells:
            found = self.side.state.cells[cell]
            for name in self.needed[cell]:
                metric = METRICS[name]
                have = bool(found.training if metric.kind is Kind.ONCE else found.blocks.get(name))
                if not have and metric.of_library:
                    have = self.borrowed(cell, name)
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
        for other in self.order():
            if other[0] == cell[0] and other[2:] == cell[2:] and other != cell:
                samples = self.side.state.cells[other].blocks.get(name)
                if samples:
                    self.side.state.cells[cell].blocks[name] = list(samples)
                    return True
        return False


def parts[Item](items: Sequence[Item], count: int) -> list[list[Item]]:
    """Return items in as many parts of nearly equal length, or fewer."""
    return [list(items[i::count]) for i in range(min(count, len(items)))]
