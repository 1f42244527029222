"""Does what the schedule asks for: holds the workers, the clock and the journal."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from bench.engine.actions import Action, Death, Outcome
from bench.engine.answers import problem
from bench.engine.processes import Place, Worker, WorkerFailedError
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from bench.engine.actions import Options, Steps
    from bench.engine.found import State
    from bench.engine.journal import Journal

LEAST_SILENCE, MOST_SILENCE = 30.0, 300.0
"""Seconds after which a worker is taken to hang: a third of the budget, within these."""
HEAVY_SILENCE = 180.0
"""At least so long while a heavy library is imported."""
LAST_SILENCE = 20.0
"""The same, where the budget is nearly spent."""
USUAL, LEAST_USUAL = 10, 10.0
"""Once something of its kind has been done: so many times as long, and so many seconds at least."""
CUT = Death("the run was cut off", cut=True)


class Schedule(Protocol):
    """What says what is done when."""

    state: State
    options: Options
    end: float
    """Seconds of the budget after which nothing begins."""

    def actions(self) -> Steps[None]:
        """Yield what to do; expects the outcome of each."""


@dataclass
class Engine:
    """One run from its first action to its last, or to where it is cut off."""

    schedule: Schedule
    journal: Journal | None = None
    outside: dict[str, str] = field(default_factory=dict)
    """Files of entrants that are not the project's, by name."""
    places: Mapping[str, Place] = field(default_factory=lambda: {"": Place()})
    """Where workers run, by side."""
    told: Callable[[Action, State], None] = lambda _action, _state: None
    """Told before each action; shows how far the run is."""
    clock: Callable[[], float] = time.monotonic
    heavy: Collection[str] = ()
    """Sides whose libraries may take long to import."""

    def __post_init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.arms: dict[int, list[str]] = {}
        """What each worker has loaded."""
        self.longest: dict[tuple[str, str, str, str], float] = {}
        """Seconds that what was done at a workload, of one kind of turns, took at most."""
        self.replayed = 0
        self.silence = min(MOST_SILENCE, max(LEAST_SILENCE, self.schedule.options.budget / 3))

    def run(self) -> State:
        """Do everything that the schedule asks for; what was found is its state, at any time.

        Raises:
            BakeoffError: the journal is another run's, or cannot be written.
        """
        actions = self.schedule.actions()
        self.mark = self.clock()
        try:
            with suppress(StopIteration):
                action = next(actions)
                while True:
                    action = actions.send(self.outcome(action))
        finally:
            for worker in self.workers.values():
                worker.close()
            self.workers.clear()
        return self.schedule.state

    def outcome(self, action: Action) -> Outcome:
        """Return what came of an action: from the journal, or by doing it."""
        if action.do == "load":
            self.arms[action.process] = action.arm.split()
        outcome = self.done(action)
        if outcome.death is None:
            key = kind_of(action)
            self.longest[key] = max(outcome.took, self.longest.get(key, 0.0))
        return outcome

    def done(self, action: Action) -> Outcome:
        """Do an action, if the journal does not hold what came of it."""
        if self.journal is not None and self.replayed < len(self.journal.records):
            record = self.journal.records[self.replayed]
            self.replayed += 1
            self.mark = self.clock()
            return self.recorded(record, action)
        self.told(action, self.schedule.state)
        before = busy_seconds()
        outcome = self.perform(action)
        now = self.clock()
        took, self.mark = now - self.mark, now
        busy = None
        if action.do == "block":
            stolen, others = (a - b for a, b in zip(busy_seconds(), before, strict=True))
            busy = (took, stolen, max(0.0, others - self.own_seconds(action)))
        outcome = outcome._replace(took=took, busy=busy)
        if self.journal is not None:
            self.journal.write({"action": list(action), **as_record(outcome)})
        return outcome

    def recorded(self, record: dict[str, Any], action: Action) -> Outcome:
        """Return a journalled outcome, which has to be this action's."""
        if record.get("action") != list(action):
            assert self.journal is not None
            raise BakeoffError(
                f"the journal {self.journal.path} does not fit this run: it holds "
                f"{record.get('action')!r} where {list(action)!r} was to be done; it was written "
                "by another version or with other options: start anew without --resume"
            )
        try:
            death = record["death"] and Death(**record["death"])
            busy = record["busy"] and (record["busy"][0], record["busy"][1], record["busy"][2])
            found = dict(record["found"])
            if death is None and problem(action, found, self.loaded(action)):
                raise ValueError(found)
            return Outcome(float(record["took"]), found, death, busy)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            assert self.journal is not None
            raise BakeoffError(
                f"record {self.replayed} of the journal {self.journal.path} is damaged: "
                "delete its line and what follows to keep what is before, or start anew"
            ) from error

    def perform(self, action: Action) -> Outcome:
        """Let a worker do it."""
        if action.do not in ("start", "cold") and action.process not in self.workers:
            return Outcome(0.0, {}, CUT)
        try:
            found = self.asked(action)
            wrong = problem(action, found, self.loaded(action))
            if wrong:
                said = f"it answered `{action.do}` with {str(found)[:80]}: {wrong}"
                worker = self.workers.get(action.process)
                arm = worker.recorder.who() if worker is not None else None
                raise WorkerFailedError(f"worker failed ({said})", "", arm)
            return Outcome(0.0, found)
        except OSError as error:  # no room for its files, or no process more
            reason = f"worker failed (it cannot be started: {error.strerror})"
            return Outcome(0.0, {}, Death(reason))
        except WorkerFailedError as error:
            worker = self.workers.pop(action.process, None)
            if worker is not None:
                worker.close()
            return Outcome(0.0, {}, Death(error.reason, error.stderr, self.blamed(action, error)))

    def asked(self, action: Action) -> dict[str, Any]:
        """Return the record that a worker gives; starts it and ends it."""
        if action.do in ("start", "cold"):
            self.workers[action.process] = worker = Worker(
                self.places[action.side], self.patience(action)
            )
            worker.start()
            if action.do == "start":
                return {}
        worker = self.workers[action.process]
        self.used = worker.cpu_seconds
        if action.do == "close":
            self.workers.pop(action.process).close()
            return {}
        found = worker.ask(self.command(action), self.patience(action))
        if action.do == "cold":
            self.workers.pop(action.process).close()
        return found

    def patience(self, action: Action) -> float:
        """Return after how many silent seconds a worker is taken to hang: less near the end."""
        patience = self.patience_for(action)
        imports = action.side in self.heavy and action.do in ("load", "cold")
        return max(patience, HEAVY_SILENCE) if imports else patience

    def patience_for(self, action: Action) -> float:
        """Return the same, whatever is imported."""
        schedule = self.schedule
        longest = self.longest.get(kind_of(action))
        if longest is not None:
            return min(self.silence, max(LEAST_USUAL, USUAL * longest))
        if schedule.options.blocks is not None or schedule.options.cold_samples is not None:
            return self.silence
        left = schedule.end - schedule.state.spent.wall - (self.clock() - self.mark)
        return min(self.silence, max(LAST_SILENCE, left + LAST_SILENCE / 2))

    def command(self, action: Action) -> dict[str, Any]:
        """Return an action as what a worker is told."""
        where = {"workload": action.workload, "backend": action.backend}
        if action.do == "cold":
            entrant, style = self.real(action.arm)
            return {
                "do": "cold",
                "entrant": entrant,
                "style": style,
                **where,
                "outside": self.outside,
            }
        command: dict[str, Any] = {"do": "session", "action": action.do}
        if action.do == "load":
            arms = [arm.split("/") for arm in self.loaded(action)]
            return command | {"arms": arms, "outside": self.outside}
        command |= where
        if action.do == "block":
            return command | {"kind": action.kind, "rounds": action.rounds, "seed": action.seed}
        indices = [self.loaded(action).index(arm) for arm in action.arm.split()]
        if action.do == "prepare":
            return command | {"kind": action.kind, "arms": indices}
        return command | {"arm": indices[0]}

    def real(self, arm: str) -> tuple[str, str]:
        """Return the entrant and style whose code an arm runs."""
        from bench.cells import BASELINE, CONTROL

        entrant, style = arm.split("/")
        return BASELINE if (entrant, style) == CONTROL else (entrant, style)

    def blamed(self, action: Action, error: WorkerFailedError) -> str:
        """Return the arm whose turn it was when a worker died; empty if it was nobody's."""
        if action.do == "cold":
            return action.arm
        if error.arm is None or action.do == "start":
            return ""
        arms = self.loaded(action)
        return arms[error.arm] if error.arm < len(arms) else ""

    def loaded(self, action: Action) -> list[str]:
        """Return the arms of an action's worker, by their indices."""
        return self.arms.get(action.process, [])

    def own_seconds(self, action: Action) -> float:
        """Return the processor seconds that the last action's worker used for it."""
        worker = self.workers.get(action.process)
        return worker.cpu_seconds - self.used if worker is not None else 0.0


def kind_of(action: Action) -> tuple[str, str, str, str]:
    """Return what actions have in common that take about as long."""
    return action.do, action.workload, action.kind, action.side


def busy_seconds() -> tuple[float, float]:
    """Return the processor seconds of this machine so far: stolen from it, and used on it."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return getattr(times, "steal", 0.0), used


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the journal holds it."""
    record = outcome._asdict()
    return record | {"death": outcome.death and outcome.death._asdict()}
