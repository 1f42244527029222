"""Lanes: workers are opened in them, prove, count, train, and are closed.

`bench.engine.plan` says what comes when, and measures blocks in them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.cells import PURE, REFERENCE, WHOLE
from bench.engine.planner.kinds import COLD_KIND
from bench.engine.planner.state import find_counted
from bench.metrics import HOST, METRICS, STAGES
from bench.wording import name_place
from bench.worker import protocol
from bench.workloads import SKELETON, is_skeleton, is_user_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action, Actions, LaneActions, LaneWork, Outcome
    from bench.engine.planner.state import RunState
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
    cores: Cores
    workers: dict[SideState, int] = field(default_factory=dict)
    """Side → number of its open worker."""
    opening_seconds: float = 0.0
    """Seconds that opening its slowest worker took."""


class Lanes:
    """Lanes of work and the workers in them, whose answers become part of a run's state."""

    def __init__(self, state: RunState) -> None:
        self.state, self.durations = state, state.durations
        self.lanes_in_use = 1
        """Lanes of the present phase."""
        self.held_arms: dict[int, set[str]] = {}
        """Worker → arms whose steps it holds, while it lives."""

    def run_phase(self, lanes: Sequence[Cores], jobs: Iterable[LaneWork]) -> Actions[None]:
        """Do jobs; each lane takes the next one when it has done its last.

        Each lane has one action under way at any time. A lane asks for a job when it is free: more
        is known by then.
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

    def load(self, side: SideState, cells: Iterable[Cell], cores: Cores) -> LaneActions[int]:
        """Start a worker and let it import the entrants of some cells; return its number.

        Raises:
            WorkerEndedError: it died, and the side was given up or there is no time to try again.
        """
        check = not any(map(side.is_proven, side.cells))
        while not side.given_up:
            living = [cell for cell in cells if side.cells[cell].failure is None]
            if not living:
                break
            self.state.spent.processes += 1
            worker = self.state.spent.processes
            self.held_arms[worker] = set()
            arms = self.state.rng.sample([str(cell.arm) for cell in living], len(living))
            seed = self.state.rng.getrandbits(32)
            command = protocol.Load(arms, seed, check_programs=check)
            with suppress(WorkerEndedError):
                action = side.make_action(worker, command, cores=cores)
                loaded = yield from self.ask_workers(action, side)
                self.durations.note(("load", side.environment), loaded.took)
                return worker
            if self.state.spent_seconds > self.state.end:
                break
        raise WorkerEndedError

    def open_worker(self, side: SideState, visit: Visit, cells: Iterable[Cell]) -> LaneActions[int]:
        """Start a side's worker and open proven arms in it in random order; return its number.

        Where it dies, another one is started, as long as there are arms and time.

        Raises:
            WorkerEndedError: none can be opened.
        """
        cells = [*cells]
        while True:
            worker = yield from self.load(side, cells, visit.cores)
            try:
                for cell in self.state.rng.sample(cells, len(cells)):
                    if side.cells[cell].failure is None:
                        yield from self.ask_arm(side, worker, protocol.Open, cell)
            except WorkerEndedError:
                if self.state.spent_seconds > self.state.end:
                    raise
                continue
            return worker

    def rank_proof(self, side: SideState, cell: Cell) -> tuple[int, float]:
        """Return the place of a cell among proofs: the baseline is first, others in random order.

        A real step of a user's may take a minute. There, a file's own `make_step` is next, then the
        style that most tutorials write, and those that add the least to a call, by their skeletons.
        The control is last: it has the baseline's program, which is compiled by then.
        """
        if cell.is_baseline:
            return 0, 0.0
        if not is_user_step(cell.workload) or is_skeleton(cell.workload):
            return 1, self.state.rng.random()
        styles = [c for c in side.needed if c.workload == cell.workload and c.style != PURE]
        if cell.style == WHOLE or cell == next(iter(styles), None):
            return 1, 0.0
        light = cell.workload + SKELETON, cell.arm, HOST
        samples = self.state.samples
        calls = [s.value for s in samples if (s.cell.workload, s.cell.arm, s.metric) == light]
        return 3 if cell.arm in REFERENCE else 2, median(calls) if calls else math.inf

    def ask_arm(
        self, side: SideState, worker: int, make: type[protocol.ArmCommand], cell: Cell
    ) -> LaneActions[None]:
        """Let a worker prove, open, count or train one arm, and keep the result."""
        result, about = side.cells[cell], dict[str, Any]()
        if make is protocol.Open:
            about["losses"] = side.cells[cell.baseline].losses
        action = side.make_action(worker, make(cell.workload, cell.backend, str(cell.arm), **about))
        outcome = yield from self.ask_workers(action, side)
        [answer], cells = outcome.answers, [cell]
        if not cell.is_control:  # whose program is compiled
            self.durations.note((action.do, cell.workload), outcome.took)
        if isinstance(answer, protocol.Proven):
            result.proof = answer.proof
            result.losses, result.program = answer.losses, answer.program
            if not (result.program or is_skeleton(cell.workload)):
                reason = UNKNOWN_PROGRAM if is_user_step(cell.workload) else NOT_JAX
                asked = side.needed.get(cell, frozenset()) & {*protocol.KINDS[STAGES]}
                result.missing |= dict.fromkeys(asked, reason)
        elif action.do == "open" and result.failure is None:
            self.held_arms[worker].add(str(cell.arm))
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

    def measure_cold(self, group: Group, cell: Cell, cores: Cores) -> LaneActions[None]:
        """Measure one cold process of a cell on each side, in random order.

        A process that dies is begun once more, unless too many have died.
        """
        self.state.cold_counts[group, cell] += 1
        sample_number, arm = self.state.spent.processes + 1, str(cell.arm)
        for side in self.state.rng.sample(group, len(group)):
            side_cores = cores if side.backend == "cpu" else ()
            for _ in range(COLD_TRIES):
                if not side.may_begin_cold(cell):
                    break
                self.state.spent.processes += 1
                worker = self.state.spent.processes
                command = protocol.MeasureCold(cell.workload, cell.backend, arm)
                outcome = yield side.make_action(worker, command, cores=side_cores)
                if outcome.death is None:
                    [answer] = outcome.answers
                    self.durations.note(("cold", side.environment), outcome.took)
                    self.state.spent.sampling_seconds += answer.timed_seconds / self.lanes_in_use
                    samples, kind = answer.samples, (cell.workload, COLD_KIND)
                    self.state.note_disturbance(kind, is_disturbed=outcome.is_disturbed)
                    if outcome.is_disturbed:
                        samples = [s for s in samples if METRICS[s.metric].unit != "s"]
                        side.disturbed.add((cell, COLD_KIND))
                    self.keep_samples(side, samples, sample_number, cores=side_cores)
                    break
                if outcome.death.is_late:
                    break
                side.cold_deaths[cell] += 1
                side.deaths[arm, cell.workload] = outcome.death.reason
                place = f"{cell.arm} at {name_place(cell)}"
                side.notes.append(f"a cold process of {place} died: {outcome.death.reason}")
