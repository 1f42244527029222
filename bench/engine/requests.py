"""Requests to workers: they are opened, prove, count, train, and measure cold.

`bench.engine.plan` says what comes when, and measures blocks in them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.cells import PURE, REFERENCE, WHOLE
from bench.engine.state import COLD_KIND, find_counted
from bench.metrics import HOST, METRICS, STAGES
from bench.wording import name_place, name_workload
from bench.worker import protocol
from bench.workloads import SKELETON, is_real_step, is_skeleton, is_user_step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action, Actions, LaneActions, LaneWork, Outcome
    from bench.engine.state import RunState
    from bench.engine.task import Group, SideState
    from bench.samples import Cores, Sample

NOT_JAX = "not written in JAX: nothing is traced, lowered or compiled by it"
UNKNOWN_PROGRAM = "the program of a `make_step` is not known: its first step compiles it"
"""Reasons why an arm has no times of stages, whatever the budget."""
COLD_TRIES = 2
"""Times that a cold process is tried: one that dies costs its own sample, not the cell's."""


class WorkerEndedError(Exception):
    """A worker has ended, or none can be opened, which ends the lane's job."""


@dataclass
class Visit:
    """Workers of a group on the same cores, which measure by turns."""

    group: Group
    workload: str
    arms: Collection[str]
    """Arms that take part."""
    prove_until: float = math.inf
    """Seconds of the budget after which only the reference is still proven."""
    only_proves: bool = False
    """Whether its worker proves for others, and measures nothing."""
    compiles: bool = False
    """Whether its turns make and compile the steps of arms that others have proven."""
    cores: Cores = ()
    workers: dict[SideState, int] = field(default_factory=dict)
    """Side → number of its open worker."""
    measured_seconds: float = 0.0
    """Seconds of its blocks since their steps were made."""


class Requests:
    """Requests to the workers of a run, whose answers become part of its state."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.notify: Callable[[str], None] = lambda _: None
        """Called with a line about what there is no time for."""
        self.told_late: set[tuple[SideState, Cell]] = set()
        """Cells of which that was said."""
        self.lanes_in_use = 1
        """Lanes of the present phase."""
        self.held_arms: dict[int, set[str]] = {}
        """Worker → arms whose steps it holds, while it lives."""

    # phases and lanes

    def run_phase(self, lanes: Sequence[Cores], jobs: Iterable[LaneWork]) -> Actions[None]:
        """Do jobs; each lane takes the next one when it has done its last.

        Each lane has one action under way at any time. A lane asks for a job when it is free: costs
        are known better by then.
        """
        left = iter(jobs)

        def lane(cores: Cores) -> LaneActions[None]:
            for job in left:
                with suppress(WorkerEndedError):
                    yield from job(cores)

        self.lanes_in_use = len(lanes)
        waiting: dict[int, LaneActions[None]] = {}
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
            self.state.spent.wall_seconds = max(self.state.spent.wall_seconds, outcome.at)
            free = [waiting.pop(outcome.worker)]
        self.lanes_in_use = 1

    def ask_workers(self, action: Action, *sides: SideState) -> LaneActions[Outcome]:
        """Let a worker of each side do something, and note what failed.

        Raises:
            WorkerEndedError: one died, or is ended because an arm has left it in a wrong state.
        """
        outcome = yield action
        if outcome.death is not None:
            sides[action.workers.index(outcome.death.number)].note_death(outcome.death, action)
            for worker in action.workers:
                self.held_arms.pop(worker, None)
            raise WorkerEndedError
        for side, answer in zip(sides, outcome.answers, strict=True):
            side.note_success(action)
            if isinstance(answer, protocol.Failed):
                side.fail_arm(action.arms[0], answer.failure, action.workload, answer.stderr)
            elif isinstance(answer, protocol.Failures | protocol.Timed):
                for arm, failure in answer.failures.items():
                    side.fail_arm(arm, failure, action.workload)
        spoiled = getattr(outcome.answers[0], "spoiled", False)
        if spoiled and action.do != "block":  # a block has samples, which come first
            yield from self.close(sides[0], action.worker)
            raise WorkerEndedError
        return outcome

    # opening

    def open_worker(self, side: SideState, visit: Visit) -> LaneActions[int]:
        """Start a side's worker and make its living arms' steps; return its number.

        Of the arms that are not proven yet, this worker proves its part.

        Raises:
            WorkerEndedError: none can be opened.
        """
        rows = side.cells
        while not side.given_up:
            cells = [c for c in side.list_live_cells(visit.workload) if str(c.arm) in visit.arms]
            if visit.compiles:
                cells = [c for c in cells if rows[c].proof and "compile" not in rows[c].missing]
            if not cells:
                break
            with suppress(WorkerEndedError):
                worker = yield from self.load_worker(side, cells, visit.cores)
                if visit.compiles:
                    self.held_arms[worker] = {str(c.arm) for c in cells if rows[c].failure is None}
                else:
                    yield from self.make_steps(side, worker, cells, visit)
                return worker
            if self.state.spent_seconds > self.state.end:
                break
        raise WorkerEndedError

    def load_worker(self, side: SideState, cells: Sequence[Cell], cores: Cores) -> LaneActions[int]:
        """Start a worker and let it import the entrants of some cells; return its number."""
        self.state.spent.processes += 1
        worker = self.state.spent.processes
        self.held_arms[worker] = set()
        arms = self.state.rng.sample([str(cell.arm) for cell in cells], len(cells))
        check = not any(map(side.is_proven, side.cells))
        seed = self.state.rng.getrandbits(32)
        load = protocol.Load(arms, seed, check_programs=check)
        action = side.make_action(worker, load, cores=cores)
        loaded = yield from self.ask_workers(action, side)
        if side not in self.state.costs.load_seconds or not check:
            self.state.costs.load_seconds[side] = loaded.took
        return worker

    def make_steps(
        self, side: SideState, worker: int, cells: Sequence[Cell], visit: Visit
    ) -> LaneActions[None]:
        """Prove or open cells in random order, the baseline at no fixed place.

        Only before any proof was timed, the baseline comes first: without it, there are no numbers.
        Cells that another worker is proving come last: they can be opened by then. Cells that are
        proven on the other side of a pair come first: only common arms are measured.
        """
        waiting = self.state.rng.sample(cells, len(cells))
        if is_real_step(visit.workload):
            waiting.sort(key=partial(self.rank_style, side))
        others = [other for other in visit.group if other is not side]
        waiting.sort(key=lambda cell: not all(other.is_proven(cell) for other in others))
        if not self.state.costs.has_proofs(visit.workload):
            waiting.sort(key=lambda cell: not cell.is_baseline)
        while waiting:
            claimed = {cell for cell, prover in side.provers.items() if prover in self.held_arms}
            free = (c for c in waiting if side.is_proven(c) or c not in claimed)
            cell = next(free, waiting[0])
            waiting.remove(cell)
            if side.cells[cell].failure is not None:
                continue
            if visit.only_proves and (side.is_proven(cell) or cell in claimed):
                continue
            if not side.is_proven(cell) and self.is_too_late(side, cell, visit):
                if cell not in claimed:
                    self.tell_late(side, [cell, *(c for c in waiting if c not in claimed)])
                continue
            command = protocol.Open if side.is_proven(cell) else protocol.Prove
            yield from self.ask_arm(side, worker, command, cell)
            if side.cells[cell].failure is None:
                self.held_arms[worker].add(str(cell.arm))

    def rank_style(self, side: SideState, cell: Cell) -> tuple[int, float]:
        """Return the place of a real step's style, which may take a minute to compile.

        A file's own `make_step` comes first, beside the baseline, then the style that most
        tutorials write, and those that add the least to a call, by their skeletons. The control is
        last: it has the baseline's program, which is compiled by then.
        """
        if cell.style == WHOLE or cell.is_baseline:
            return 0, 0.0
        styles = [c for c in side.needed if c.workload == cell.workload and c.style != PURE]
        if cell == next(iter(styles), None):
            return 1, 0.0
        if cell.arm in REFERENCE:
            return 3, 0.0
        light = cell.workload + SKELETON, cell.arm, HOST
        samples = self.state.samples
        calls = [s.value for s in samples if (s.cell.workload, s.cell.arm, s.metric) == light]
        return 2, median(calls) if calls else math.inf

    def is_too_late(self, side: SideState, cell: Cell, visit: Visit) -> bool:
        """Tell whether a proof that begins now would end too late to measure something after it.

        The baseline is always proven, its control and a first style as long as anything may begin;
        of real steps also a second one, which is the advised one.
        """
        others = {c for c in side.provers if c.workload == cell.workload and c.arm not in REFERENCE}
        until, costs = visit.prove_until, self.state.costs
        if cell.arm in REFERENCE or len(others) < 1 + is_real_step(cell.workload):
            again = visit.only_proves and costs.opening(visit.group, cell.workload, "", ())
            until = max(until, self.state.end - again)
        end = self.state.spent_seconds + costs.proof(cell.workload)
        return not cell.is_baseline and end > until

    def tell_late(self, side: SideState, cells: Sequence[Cell]) -> None:
        """Say once which arms there is no time to prove, and how long that takes."""
        late = [c for c in cells if c.arm not in REFERENCE and not side.is_proven(c)]
        late = [c for c in late if (side, c) not in self.told_late]
        if late and self.state.costs.has_proofs(cells[0].workload):
            self.told_late.update((side, cell) for cell in late)
            arms = ", ".join(sorted(str(cell.arm) for cell in late))
            self.notify(
                f"skipped {arms} at {name_workload(late[0].workload)}: "
                f"proving one takes about {self.state.costs.proof(late[0].workload):.0f} s"
            )

    def ask_arm(
        self, side: SideState, worker: int, make: type[protocol.ArmCommand], cell: Cell
    ) -> LaneActions[None]:
        """Let a worker prove, open, count or train one arm, and keep the result."""
        result, about = side.cells[cell], dict[str, Any]()
        if make is protocol.Open:
            about["losses"] = side.cells[cell.baseline].losses
        command = make(cell.workload, cell.backend, str(cell.arm), **about)
        action = side.make_action(worker, command)
        side.provers[cell] = worker
        is_first = not self.held_arms[worker]
        outcome = yield from self.ask_workers(action, side)
        [answer], cells = outcome.answers, [cell]
        if isinstance(answer, protocol.Proven):
            result.proof = answer.proof
            result.losses, result.program = answer.losses, answer.program
            if not (result.program or is_skeleton(cell.workload)):
                reason = UNKNOWN_PROGRAM if is_user_step(cell.workload) else NOT_JAX
                asked = side.needed.get(cell, frozenset()) & {*protocol.KINDS[STAGES]}
                result.missing |= dict.fromkeys(asked, reason)
            if not cell.is_control:  # whose program is compiled
                self.state.costs.note_proof(cell.workload, outcome.took, is_first=is_first)
        elif action.do == "open":
            self.state.costs.open_seconds[side, cell] = outcome.took
        elif action.do == "train":
            self.state.spent.sampling_seconds += outcome.took / self.lanes_in_use
        elif action.do == "count":
            alike, key = side.list_live_cells(), find_counted(cell.workload)
            alike = [other for other in alike if other.arm == cell.arm]
            cells = [other for other in alike if find_counted(other.workload) == key]
        samples: list[Sample] = getattr(answer, "samples", [])
        if self.state.is_paired:  # what varies is compared in turns alone
            samples = [row for row in samples if not METRICS[row.metric].varies]
        for other in cells:
            self.keep_samples(side, [row._replace(cell=other) for row in samples], worker)

    def keep_samples(
        self,
        side: SideState,
        samples: Iterable[Sample],
        worker: int,
        block: int = 0,
        cores: Cores = (),
    ) -> None:
        """Add the samples that a worker has just measured.

        Samples of unrequested arms are left out: few and noisy, they would make intervals wider.
        """
        for sample in samples:
            if str(sample.cell.arm) not in self.state.unrequested_arms:
                row = sample._replace(
                    environment=side.environment,
                    worker=worker,
                    block=block or worker,
                    at=self.state.spent_seconds,
                    cores=len(cores),
                )
                self.state.samples.append(row)

    def close(self, side: SideState, worker: int, _: Cores = ()) -> LaneActions[None]:
        """End a worker, unless it has died."""
        if self.held_arms.pop(worker, None) is not None:
            yield side.make_action(worker)

    # what is done once

    def measure_cold(self, group: Group, cell: Cell, cores: Cores) -> LaneActions[None]:
        """Measure one cold process of a cell on each side, in random order.

        A process that dies is begun once more, unless too many have died.
        """
        self.state.cold_counts[group, cell] += 1
        sample_number, arm = self.state.spent.processes + 1, str(cell.arm)
        for side in self.state.rng.sample(group, len(group)):
            own_cores = cores if side.backend == "cpu" else ()
            for _ in range(COLD_TRIES):
                if not side.may_begin_cold(cell):
                    break
                self.state.spent.processes += 1
                worker = self.state.spent.processes
                command = protocol.MeasureCold(cell.workload, cell.backend, arm)
                action = side.make_action(worker, command, cores=own_cores)
                outcome = yield action
                if outcome.death is None:
                    [answer] = outcome.answers
                    self.state.costs.cold_seconds[side] = outcome.took
                    self.state.spent.sampling_seconds += answer.timed_seconds / self.lanes_in_use
                    samples, kind = answer.samples, (cell.workload, COLD_KIND)
                    self.state.note_disturbance(kind, is_disturbed=outcome.is_disturbed)
                    if outcome.is_disturbed:
                        samples = [s for s in samples if METRICS[s.metric].unit != "s"]
                        side.disturbed.add((cell, COLD_KIND))
                    self.keep_samples(side, samples, sample_number, cores=own_cores)
                    break
                if outcome.death.is_late:
                    break
                side.cold_deaths[cell] += 1
                side.deaths[arm, cell.workload] = outcome.death.reason
                place = f"{cell.arm} at {name_place(cell)}"
                side.notes.append(f"a cold process of {place} died: {outcome.death.reason}")
