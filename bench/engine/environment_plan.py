"""The plan of one environment on one backend: prove, measure, then what happens once.

Workers are opened as many at a time as there are lanes, since compiling uses one core. In them,
blocks are measured side by side where each worker keeps to a core of its own, and one worker after
the other where they use all cores.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.cells import BASELINE, TOGETHER, Cell
from bench.engine.actions import ALL, AUTO, ONE, STEPS, rounds_of
from bench.engine.planner import COLD, LOAD, PROVE, cold_cells, rounds_for, sitting, usual
from bench.engine.scheduler import PREPARED, Scheduler, Visit
from bench.engine.state import Side, with_references
from bench.metrics import HOST, METRICS, TINY, Kind
from bench.samples import MIN_VISITS, STARVED, Turn
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.engine.actions import Lanes, Phases, Steps
    from bench.engine.scheduler import Job
    from bench.samples import Cores, State

NO_PROGRAM = "not written in JAX: nothing is traced, lowered or compiled by it"
OPEN_SHARE = 0.45
"""Of the budget: a further workload is proven only if that and what came before takes no more."""
PROVE_FIRST, PROVE_SHARE = 0.6, 0.42
"""Of the budget, after which the first workers prove no more arms of the first workload, and of the
others: they measure what they have."""
COLD_SHARE, TRAINING_SHARE, COUNT_SHARE, HOST_SHARE, PREPARED_SHARE = 0.33, 0.15, 0.1, 0.45, 0.15
"""Of the time that is left after the fewest visits, where steps are measured too."""
ALONE = 0.95
"""The same share, where nothing else is asked for."""
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
OVER = 0.03
"""Of the budget, by which it may be exceeded for the first answer to a question."""
SETTLED_SHARE = 1 / 3
"""Of visits, those that an arm still takes part in when its verdict is beyond doubt."""
PROGRAMS = {"sample": 1, "epoch": 2}
"""That each `pure` style compiles for a turn."""
TRIES = 3
"""Of a sitting whose workers all died."""

type Settled = Callable[[State, Turn], frozenset[str]]
"""Says which arms of a turn need no more time."""
type Turns = dict[Turn, float]
"""Turns with their shares of the time."""
type Phase = tuple[str, Lanes | tuple[()]]
"""A part of the plan: what is said of it before the run begins, and what is done."""


def share(workload: str) -> float:
    """Return the share of the time that a workload's turns get, beside others'.

    Of depths, the deeper ones get the time that their calls take: a law needs both of its ends.
    """
    if workload not in TINY:
        return LARGE
    return WORKLOADS[workload].layers / WORKLOADS["toy"].layers


@dataclass
class EnvironmentPlan:
    """The part of a run in one environment, on one backend."""

    work: Scheduler
    side: Side
    needed: Mapping[Cell, set[str]]
    """Metrics to measure, by cell."""
    lanes: Sequence[Cores]
    """A core for each worker that may run at the same time as others."""
    deadline: float
    """Seconds of the budget at which this part ends."""
    settled: Settled = lambda _state, _turn: frozenset()
    """Says which arms need no more time."""
    with_reference: bool = True
    """Whether the baseline's cold processes are this environment's."""

    def __post_init__(self) -> None:
        self.options, self.names = self.work.options, (self.side.name,)
        self.cells = list(self.needed)
        # The large one first: it is what people ask about. Sweeps come last and go up.
        sweep = [workload for several in TOGETHER.values() for workload in several]
        self.workloads = sorted(
            dict.fromkeys(cell.workload for cell in self.cells),
            key=lambda w: (w in sweep, WORKLOADS[w].work * (1 if w in sweep else -1)),
        )
        cpu = self.side.backend == "cpu"
        self.one_core: list[Cores] = list(self.lanes) if cpu and self.options.cores != ALL else [()]
        self.pinned = cpu and self.options.cores == ONE
        """Whether steps are measured on one core each, too."""
        given = self.options.fixed or self.options.processes is not None
        self.count = (self.options.processes or 1) if given else None
        """Of workers, if a number was asked for."""
        lanes = len(self.lanes) if cpu else 1
        self.at_once = min(lanes, self.count or lanes)
        """Workers that are opened at the same time."""
        key = f"{self.side.backend} {self.side.name}".strip()
        self.decided: dict[str, Any] = self.side.state.plan.setdefault(key, {})
        """For the file."""
        self.visits: Counter[Turn] = Counter()
        """Workers that have measured a turn."""

    @property
    def left(self) -> float:
        """Seconds until this part's end."""
        return max(0.0, self.deadline - self.work.now)

    # what is wanted

    def wants(self, metric: str, workload: str) -> bool:
        """Tell whether a metric is needed at a workload, by any cell."""
        return any(
            metric in self.needed[cell] and METRICS[metric].applies(cell)
            for cell in self.cells
            if cell.workload == workload
        )

    def turns(self, *kinds: str) -> Turns:
        """Return the turns of some kinds that can still be measured, as wanted."""
        return {
            Turn(workload, metric.turn): metric.weight * share(workload)
            for workload in self.workloads
            for metric in METRICS.values()
            if metric.kind is Kind.WARM
            and metric.turn in kinds
            and self.wants(metric.name, workload)
            and self.worth(workload)
        }

    def worth(self, workload: str) -> bool:
        """Tell whether anything that is asked for at a workload can still be measured."""
        return any(cell in self.needed for cell in self.side.alive(workload))

    def open(self, turn: Turn) -> bool:
        """Tell whether an arm of a turn is not settled yet."""
        settled = self.settled(self.side.state, turn)
        return any(
            str(cell.arm) not in settled
            for cell in self.side.alive(turn.workload)
            if not (cell.is_baseline or cell.is_control)
        )

    # the order of things

    def phases(self) -> Iterator[Phase]:
        """Yield what is done, in order; each phase is chosen when those before it are over."""
        seconds = LOAD
        every, self.workloads = self.workloads, []
        for workload in every:
            more = PROVE * len(self.side.alive(workload)) / self.at_once
            affordable = seconds + more <= OPEN_SHARE * self.left or self.options.fixed
            if self.workloads and not affordable:
                break
            seconds += more
            self.workloads.append(workload)
        arms = max(len(self.side.alive(workload)) for workload in self.workloads)
        names = " and ".join(self.workloads)
        proofs = f"proofs that {arms} arms are equal, at {names} (about {seconds:.0f} s)"
        yield proofs, self.prove()
        if steps := self.turns(*STEPS):
            yield self.said(steps, self.pinned), self.measure(steps, self.pinned)
        if host := self.turns(HOST):
            auto = self.options.cores == AUTO
            actions: Lanes | tuple[()] = self.measure(host, True) if auto else ()
            yield self.said(host, bool(self.one_core[0])), actions
        kinds = (Kind.COLD, Kind.ONCE)
        once = [m for kind in kinds for m in METRICS if METRICS[m].kind is kind]
        once = [m for m in once if any(m in self.needed[cell] for cell in self.cells)]
        names = ", ".join(dict.fromkeys([*once, *(t.kind for t in self.turns(*PREPARED))]))
        yield f"where there is time: {names}" if names else "", self.once()
        yield "", self.apart()
        yield "", self.rest()
        if left_out := every[len(self.workloads) :]:
            yield f"no time for {' and '.join(left_out)}", ()

    def actions(self) -> Lanes:
        """Yield everything that is done in this environment."""
        for _, actions in self.phases():
            yield from actions
        self.note_missing()

    def outline(self) -> str:
        """Return what is going to be done, in order, before anything is."""
        where = " ".join(filter(None, (self.side.backend, self.side.name)))
        return f"{where}: {'; '.join(text for text, _ in self.phases() if text)}"

    def said(self, turns: Turns, pinned: bool) -> str:
        """Return which turns are measured, and on which cores."""
        at: dict[str, list[str]] = {}
        for turn in turns:
            at.setdefault(turn.kind, []).append(turn.workload)
        what = ", ".join(f"{kind} at {' and '.join(each)}" for kind, each in at.items())
        lanes = len(self.one_core)
        each = f"on one core each, {lanes} worker{'s' if lanes > 1 else ''} at a time"
        return f"{what}, {each if pinned else 'on all cores'}"

    # workers

    def prove(self) -> Lanes:
        """Open the first workers, which prove everything and measure what they can."""
        steps, host = self.turns(*STEPS), self.turns(HOST)
        pinned = self.pinned or (not steps and self.options.cores != ALL)
        turns = steps if steps and not self.pinned else steps | host
        until = {
            workload: self.work.now + (PROVE_FIRST if i == 0 else PROVE_SHARE) * self.left
            for i, workload in enumerate(self.workloads)
        }
        visit = Visit(
            self.names,
            turns,
            opens=tuple(self.workloads),
            prove_until={} if self.options.fixed else until,
        )
        opened: list[Visit] = []
        for _ in range(TRIES):
            if opened or self.side.given_up or not any(map(self.worth, self.workloads)):
                break
            lanes = self.one_core[: self.at_once] if pinned else [()] * self.at_once
            opened = yield from self.work.opened(lanes, [visit] * len(lanes))
        in_a_row = 1 if pinned else max(1, len(opened))
        opening, block = self.work.costs(self.names, turns)
        wanted = usual(opening, in_a_row, side_by_side=pinned, short=self.short(pinned))
        others = self.owed(len(opened)) or 1
        spare = (self.left - others * opening) / in_a_row - others * block  # a block in each
        each = min(max(block, wanted), spare) if spare >= block else self.left / in_a_row
        yield from self.measured(opened, each)

    def measure(self, turns: Turns, pinned: bool, end: float | None = None) -> Lanes:
        """Measure turns until `end`, in as few workers as it takes."""
        end = self.deadline if end is None else end
        count, short = self.count or MIN_VISITS, self.short(pinned)
        while (yield from self.one_sitting(turns, pinned, end, count=count, short=short)):
            pass

    def short(self, pinned: bool) -> bool:
        """Tell whether the first workers measure no longer than is sensible: more is to come."""
        once = {name for name, metric in METRICS.items() if metric.kind in (Kind.COLD, Kind.ONCE)}
        others = self.turns(HOST, *PREPARED) or any(once & self.needed[c] for c in self.cells)
        return not pinned or bool(others)

    def owed(self, have: int) -> int:
        """Return how many sittings it takes at least until a turn has the fewest workers."""
        fewest = MIN_VISITS if self.count is None else self.count
        return max(0, math.ceil((fewest - have) / self.at_once))

    def apart(self) -> Lanes:
        """Measure what compiles programs of its own, where there is time for enough workers."""
        others = bool(self.turns(*STEPS) or self.turns(HOST))
        end = self.work.now + (PREPARED_SHARE if others else ALONE) * self.left
        for turn, weight in self.turns(*PREPARED).items():
            arms = [c for c in self.side.alive(turn.workload) if c.is_pure]
            programs = PROGRAMS[turn.kind] * len(arms) * PROVE
            opening, block = self.work.costs(self.names, [turn])
            each = opening + programs / 3 + block  # later workers have a compilation cache
            cost = programs + MIN_VISITS * each
            if self.options.fixed or not others or cost <= end - self.work.now:
                yield from self.measure({turn: weight}, False, end)

    def rest(self) -> Lanes:
        """Measure steps until the end, and between them what the host costs, a part of the time.

        What a worker adds to a host cost varies more than its blocks: many short workers tell most.
        When no more of them is wanted, steps have all of the time.
        """
        used = {False: 0.0, True: 0.0}
        while True:
            steps, host = self.turns(*STEPS), self.turns(HOST)
            unsettled = self.count is not None or any(map(self.open, host))
            if self.options.cores == ALL or self.pinned:
                steps, host = (steps | host if unsettled or not steps else steps), {}
            share = used[True] / max(1e-9, sum(used.values()))
            mine = bool(host) and (not steps or (share < HOST_SHARE and unsettled))
            before = self.work.now
            for is_host in (mine, not mine) if host else (mine,):  # the other may take less time
                turns = host if is_host else steps
                done = yield from self.one_sitting(
                    turns, self.pinned or is_host, self.deadline, count=self.count, short=is_host
                )
                if done:
                    used[is_host] += self.work.now - before
                    break
            else:
                return

    def one_sitting(
        self, turns: Turns, pinned: bool, end: float, *, count: int | None, short: bool
    ) -> Phases[bool]:
        """Open workers and measure in them; False where there are enough, or there is no time."""
        for _ in range(TRIES):
            live = self.live(turns)
            have = min((self.visits[turn] for turn in live), default=0)
            if not live or self.side.given_up or (count is not None and have >= count):
                return False
            most = self.at_once if self.count is None else min(self.at_once, self.count - have)
            plan: tuple[int, float] | None = (most, math.inf)
            if not self.options.fixed:
                first = not any(self.visits[turn] for turn in live)
                left = end - self.work.now + (OVER * self.options.budget if first else 0.0)
                opening, least = self.work.costs(self.names, live)
                plan = sitting(
                    *(left, opening, least, most, self.owed(have)), side_by_side=pinned, short=short
                )
            if plan is None:
                return False
            number, each = plan
            visit = Visit(self.names, live, leave_out=self.left_out(live))
            lanes = self.one_core[:number] if pinned else [()] * number
            opened = yield from self.work.opened(lanes, [visit] * len(lanes))
            if opened:
                yield from self.measured(opened, each)
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
            for arm in sorted(self.settled(self.side.state, turn))
            if self.work.rng.random() > SETTLED_SHARE
        )

    def measured(self, visits: Sequence[Visit], each: float) -> Lanes:
        """Measure in open workers, side by side or one after the other, and close them."""
        turns = visits[0].turns if visits else {}
        block = self.work.blocks_cost(self.names, turns)
        rounds = max((rounds_for(each, block, rounds_of(turn)) for turn in turns), default=None)
        own = [visit._replace(rounds=rounds) for visit in visits]
        for visit in (yield from self.work.measured(own, each)):
            self.visits.update(list(visit.turns))

    # what is done once, and what is left out

    def each_cost(self, workload: str) -> float:
        """Return about what it takes to open one arm."""
        known = self.work.open_cost(self.names, [workload])
        loading = self.work.loading.get(self.side.name, LOAD)
        return max(0.2, (known - loading) / max(1, len(self.side.alive(workload))))

    def once(self) -> Lanes:
        """Do exact counts, cold processes and trainings, on one core each."""
        yield from self.work.phase(self.one_core, self.jobs())

    def jobs(self) -> Iterator[Job]:
        """Yield what is done once, if there is time for it."""
        left, lanes = self.left, len(self.one_core)
        alone = not self.turns(*STEPS) and not self.turns(HOST)
        cost = 0.0
        for workload in self.smallest_of_each_depth():
            arms = self.side.alive(workload)
            cost += 2 * len(arms) * self.each_cost(workload) / lanes
            if self.options.fixed or alone or cost <= COUNT_SHARE * left:
                yield from self.parts("count", arms)
        without_cold = self.options.blocks is not None and self.options.cold_samples is None
        seconds = 0.0 if without_cold else (ALONE if alone else COLD_SHARE) * left
        yield from self.cold_jobs(self.work.now + seconds, lanes)
        allowed = (ALONE if alone else TRAINING_SHARE) * left
        for workload in reversed(self.workloads):
            cells = [
                cell
                for cell in self.side.alive(workload)
                if "final_loss" in self.needed.get(cell, ())
            ]
            runs = sum(PURE_RUNS if cell.is_pure else 1 for cell in cells)
            cost = (
                1.2 * runs * TRAINING_STEPS * self.work.step_cost(self.side.name, workload) / lanes
            )
            cost += len(cells) * self.each_cost(workload) / lanes
            if cells and (self.options.fixed or cost <= allowed):
                allowed -= cost
                yield from self.parts("train", self.work.rng.sample(cells, len(cells)))

    def smallest_of_each_depth(self) -> list[str]:
        """Return the workloads to count at: what Python does depends on the layers alone."""
        found: dict[int, str] = {}
        for workload in sorted(self.workloads, key=lambda w: WORKLOADS[w].work):
            found.setdefault(WORKLOADS[workload].layers, workload)
        return list(found.values())

    def parts(self, do: Any, cells: Sequence[Cell]) -> Iterator[Job]:
        """Yield counts or trainings, a part of the cells for each lane."""
        lanes = len(self.one_core)
        for lane in range(min(lanes, len(cells))):
            yield partial(self.work.each, self.side.name, do, cells[lane::lanes])

    def cold_jobs(self, end: float, lanes: int) -> Iterator[Job]:
        """Yield cold processes, sweep by sweep, each sweep in another random order."""
        if self.cold_plan(end, lanes)[1]:
            for cell in self.cold_cells(self.workloads[0])[:lanes]:
                yield partial(self.cold, cell)  # which says what one costs
        chosen, count = self.cold_plan(end, lanes)
        self.decided.update(cold_samples=count, cold_cells=len(chosen))
        for _ in range(count):
            for cell in self.work.rng.sample(chosen, len(chosen)):
                yield partial(self.cold, cell)

    def cold_plan(self, end: float, lanes: int) -> tuple[list[Cell], int]:
        """Return whose cold processes fit into a time, and how many of each."""
        every = map(self.cold_cells, self.workloads)
        groups = [(cells, [c for c in cells if c.style == BASELINE[1]]) for cells in every]
        each = self.work.cold_cost.get(self.side.name, COLD) / lanes
        allowed = max(0.0, end - self.work.now)
        return cold_cells(groups, allowed, each, self.options.cold_samples)

    def cold_cells(self, workload: str) -> list[Cell]:
        """Return the cells at a workload whose cold processes are wanted.

        What belongs to a library is measured of one of its styles. Of several environments, the
        first measures the baseline.
        """
        cold = [metric for metric in METRICS.values() if metric.kind is Kind.COLD]
        if not any(self.wants(metric.name, workload) for metric in cold):
            return []
        found = []
        for cell in self.side.alive(workload):
            first = next(self.same_library(cell)) == cell
            wanted = any(
                metric.name in self.needed.get(cell, ()) and (first or not metric.of_library)
                for metric in cold
            )
            if self.with_reference if cell.is_baseline or cell.is_control else wanted:
                found.append(cell)
        return found

    def same_library(self, cell: Cell) -> Iterator[Cell]:
        """Yield the cells of all styles of a cell's library, the baseline and its control first."""
        return (
            other
            for other in with_references(self.cells)
            if (other.entrant, other.baseline) == (cell.entrant, cell.baseline)
        )

    def cold(self, cell: Cell, cores: Cores) -> Steps[None]:
        """Measure one cold process, unless the time is over."""
        late = self.options.cold_samples is None and self.work.now > LATE * self.deadline
        if not late and self.side.state.cells[cell].failure is None:
            yield from self.work.cold([self.side.name], cell, cores)

    def note_missing(self) -> None:
        """Say of each cell and metric that has no sample, why."""
        for cell in self.cells:
            found = self.side.state.cells[cell]
            for name in self.needed[cell]:
                metric = METRICS[name]
                have = bool(found.training if metric.kind is Kind.ONCE else found.blocks.get(name))
                if not have and not (metric.of_library and self.borrowed(cell, name)):
                    without = name in found.facts.get("without", ())
                    program = without and not found.facts.get("trace_and_lower_split_by")
                    self.side.state.missing[cell, name] = NO_PROGRAM if program else STARVED
        self.decided.update(
            workloads=list(self.workloads),
            workers={" ".join(turn): n for turn, n in self.visits.items()},
        )

    def borrowed(self, cell: Cell, name: str) -> bool:
        """Give a cell the samples of its library's first style; False where there are none."""
        for other in self.same_library(cell):
            samples = self.side.state.cells[other].blocks.get(name)
            if other != cell and samples:
                self.side.state.cells[cell].blocks[name] = list(samples)
                return True
        return False
