"""Does what a plan asks for: holds the workers, the clock and the journal."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import psutil

from bench.cells import BASELINE, CONTROL
from bench.engine.actions import Action, Busy, Death, Outcome
from bench.engine.answers import AnswerError, typed
from bench.engine.processes import Place, Worker, WorkerFailedError
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from bench.engine.actions import Lanes, Options
    from bench.engine.journal import Journal
    from bench.engine.state import Spent

LEAST_SILENCE, MOST_SILENCE = 30.0, 300.0
"""Seconds after which a worker is taken to hang: a third of the budget, within these."""
HEAVY_SILENCE = 180.0
"""At least so long while a heavy library is imported."""
LAST_SILENCE = 20.0
"""The same, where the budget is nearly spent."""
USUAL, LEAST_USUAL = 10, 10.0
"""Once something of its kind has been done: so many times as long, and so many seconds at least."""
MOST_LANES = 256
COMPILED = "bakeoff-compiled-"
"""How folders of compiled programs are called, before the process that they belong to."""
LEFT_SECONDS = 24 * 3600.0
"""After which the folder of a process that is gone is deleted."""
CUT = Death("the run was cut off", cut=True)
BEGIN = ("start", "cold")
"""What begins a process."""


def new_cache() -> Path:
    """Return a new folder for compiled programs; those of runs that were killed are deleted.

    Raises:
        BakeoffError: there is no place for it.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{COMPILED}*-*"):
        with suppress(OSError, ValueError):
            process = int(left.name.removeprefix(COMPILED).partition("-")[0])
            old = time.time() - left.stat().st_mtime > LEFT_SECONDS
            if old and not psutil.pid_exists(process):
                shutil.rmtree(left, ignore_errors=True)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{COMPILED}{os.getpid()}-"))
    except OSError as error:
        raise BakeoffError(
            f"no folder for compiled programs can be made in {place}: {error.strerror}; make room "
            "there, or set TMPDIR to another place"
        ) from error


class Plan(Protocol):
    """What says what is done when."""

    options: Options
    spent: Spent
    end: float
    """Seconds of the budget after which nothing begins."""

    def actions(self) -> Lanes:
        """Yield what is to begin; expects the outcome of what ends next."""


class Done(NamedTuple):
    """What a thread saw: no clock of the run, which the main thread keeps."""

    answer: Any
    death: Death | None
    took: float
    busy: Busy | None


@dataclass
class Driver:
    """One run from its first action to its last, or to where it is cut off."""

    plan: Plan
    journal: Journal | None = None
    outside: dict[str, str] = field(default_factory=dict)
    """Files of entrants that are not the project's, by name."""
    places: Mapping[str, Place] = field(default_factory=lambda: {"": Place()})
    """Where workers run, by side."""
    told: Callable[[Action, Spent], None] = lambda _action, _spent: None
    """Told before each action; shows how far the run is."""
    clock: Callable[[], float] = time.monotonic
    heavy: Collection[str] = ()
    """Sides whose libraries may take long to import."""

    def __post_init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.arms: dict[int, tuple[str, ...]] = {}
        """What each worker has loaded, by index."""
        self.longest: dict[tuple[str, str, str, str], float] = {}
        """Seconds that what was done at a workload, of one kind of turns, took at most."""
        self.silence = min(MOST_SILENCE, max(LEAST_SILENCE, self.plan.options.budget / 3))
        self.running: dict[int, tuple[Action, Future[Done]]] = {}
        self.ended_seconds = 0.0
        """Processor seconds of workers that have ended."""
        self.records = list(self.journal.records) if self.journal is not None else []
        self.replayed = 0
        self.closing = threading.Event()

    def run(self) -> None:
        """Do everything that the plan asks for; what was found is in its sides, at any time.

        Raises:
            BakeoffError: the journal is another run's, or cannot be written.
        """
        self.zero = self.clock() - self.plan.spent.wall
        self.cache = new_cache()
        pool = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="lane")
        try:
            lanes = self.plan.actions()
            with suppress(StopIteration):
                begin = next(lanes)
                while True:
                    begin = lanes.send(self.next(begin, pool))
        finally:
            self.close(pool)
            shutil.rmtree(self.cache, ignore_errors=True)

    def close(self, pool: ThreadPoolExecutor) -> None:
        """End all workers, those that a lane is starting at this moment too."""
        self.closing.set()
        for worker in list(self.workers.values()):
            worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in list(self.workers.values()):
            worker.close()
        self.workers.clear()

    def next(self, begin: tuple[Action, ...], pool: ThreadPoolExecutor) -> Outcome:
        """Begin some actions, and return the outcome of the one that ends next."""
        for action in begin:
            if action.do == "load":
                self.arms[action.worker] = action.arms
            self.pending[action.worker] = action
        if self.replayed < len(self.records):
            return self.recorded(self.records[self.replayed])
        for action in list(self.pending.values()):
            if action.worker not in self.running:
                self.told(action, self.plan.spent)
                self.running[action.worker] = action, pool.submit(self.perform, action)
        futures = [future for _, future in self.running.values()]
        wait(futures, return_when=FIRST_COMPLETED)
        worker = min(w for w, (_, future) in self.running.items() if future.done())
        action, future = self.running.pop(worker)
        done = future.result()
        return self.taken(action, done)

    pending: dict[int, Action] = field(default_factory=dict, init=False)
    """Actions that were asked for and have no outcome yet."""

    def taken(self, action: Action, done: Done) -> Outcome:
        """Return an outcome, which is on the disk by then."""
        del self.pending[action.worker]
        outcome = Outcome(
            action.worker, done.took, self.clock() - self.zero, done.answer, done.death, done.busy
        )
        self.noted(action, outcome)
        if self.journal is not None:
            self.journal.write(
                {
                    "action": msgspec.to_builtins(action),
                    "outcome": msgspec.to_builtins(outcome),
                }
            )
        return outcome

    def noted(self, action: Action, outcome: Outcome) -> None:
        """Remember how long things take."""
        if outcome.death is None:
            key = kind_of(action)
            self.longest[key] = max(outcome.took, self.longest.get(key, 0.0))

    def recorded(self, record: dict[str, Any]) -> Outcome:
        """Return a journalled outcome, which has to be of an action that was asked for."""
        self.replayed += 1
        assert self.journal is not None
        try:
            said = msgspec.convert(record["action"], Action)
            raw = dict(record["outcome"])
            answer = raw.pop("answer", None)
            outcome = msgspec.convert(raw, Outcome)
            asked = self.pending.get(said.worker)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise self.damaged() from error
        if said != asked:
            raise BakeoffError(
                f"the journal {self.journal.path} does not fit this run: it holds {said} where "
                f"{asked} was to be done; it was written by another version or with other "
                "options: start anew without --resume"
            )
        if outcome.death is None:
            try:
                answer = typed(said, answer, self.arms.get(said.worker))
            except AnswerError as error:
                raise self.damaged() from error
            outcome = msgspec.structs.replace(outcome, answer=answer)
        del self.pending[said.worker]
        self.noted(said, outcome)
        self.zero = self.clock() - outcome.at
        return outcome

    def damaged(self) -> BakeoffError:
        """Return what to raise at a record that cannot be."""
        assert self.journal is not None
        return BakeoffError(
            f"record {self.replayed} of the journal {self.journal.path} is damaged: "
            "delete its line and what follows to keep what is before, or start anew"
        )

    # what happens in a lane's thread

    def perform(self, action: Action) -> Done:
        """Let a worker do something, and see how long it takes."""
        start, before = time.perf_counter(), busy_seconds()
        used = self.processor_seconds()
        answer, death = self.answered(action)
        took = time.perf_counter() - start
        busy = None
        if action.do == "block":
            stolen, others = (a - b for a, b in zip(busy_seconds(), before, strict=True))
            busy = Busy(took, stolen, max(0.0, others - (self.processor_seconds() - used)))
        return Done(answer, death, took, busy)

    def answered(self, action: Action) -> tuple[Any, Death | None]:
        """Return the typed answer of a worker, or how it died."""
        if action.do not in BEGIN and action.worker not in self.workers:
            return None, CUT
        try:
            record = self.asked(action)
            return typed(action, record, self.arms.get(action.worker)), None
        except AnswerError as error:
            worker = self.workers.get(action.worker)
            index = worker.recorder.who() if worker is not None else None
            failed = WorkerFailedError(
                f"worker failed (it answered `{action.do}`: {error})", "", index
            )
        except OSError as error:  # no room for its files, or no process more
            failed = WorkerFailedError(
                f"worker failed (it cannot be started: {error.strerror})", "", None
            )
        except WorkerFailedError as error:
            failed = error
        worker = self.workers.pop(action.worker, None)
        if worker is not None:
            self.end(worker)
        return None, Death(failed.reason, failed.stderr, self.blamed(action, failed))

    def asked(self, action: Action) -> Any:
        """Return the record that a worker gives; starts it and ends it."""
        patience = self.patience(action)
        if action.do in BEGIN:
            if self.closing.is_set():
                raise WorkerFailedError("the run has ended", "", None)
            worker = Worker(self.places[action.side], patience, action.cores)
            self.workers[action.worker] = worker
            worker.start()
            if action.do == "start":
                return None
        worker = self.workers[action.worker]
        if action.do == "close":
            self.end(self.workers.pop(action.worker))
            return None
        record = worker.ask(self.command(action), patience)
        if action.do == "cold":
            self.end(self.workers.pop(action.worker))
        return record

    def command(self, action: Action) -> dict[str, Any]:
        """Return an action as what a worker is told."""
        where = {"workload": action.workload, "backend": action.backend}
        if action.do == "cold":
            entrant, style = action.arms[0].split("/")
            if (entrant, style) == CONTROL:
                entrant, style = BASELINE
            own = {"entrant": entrant, "style": style}
            return {"do": "cold", **own, **where, "outside": self.outside}
        command: dict[str, Any] = {"do": action.do}
        if action.do == "load":
            cache = self.cache / (action.side or "everybody").replace("/", "-")
            return command | {
                "arms": [arm.split("/") for arm in action.arms],
                "outside": self.outside,
                "cache": str(cache),
                "seed": action.seed,
                "check_programs": action.check,
            }
        command |= where
        if action.do in ("block", "prepare"):
            command |= {"kind": action.kind, "arms": list(action.arms)}
            return command | (
                {"rounds": action.rounds, "seed": action.seed} if action.do == "block" else {}
            )
        command["arm"] = action.arms[0]
        return command | ({"losses": list(action.losses) or None} if action.do == "open" else {})

    def patience(self, action: Action) -> float:
        """Return after how many silent seconds a worker is taken to hang: less near the end."""
        patience = self.usual_patience(action)
        imports = action.side in self.heavy and action.do in ("load", "cold")
        return max(patience, HEAVY_SILENCE) if imports else patience

    def usual_patience(self, action: Action) -> float:
        """Return the same, whatever is imported."""
        longest = self.longest.get(kind_of(action))
        if longest is not None:
            return min(self.silence, max(LEAST_USUAL, USUAL * longest))
        if self.plan.options.fixed:
            return self.silence
        left = self.plan.end - (self.clock() - self.zero)
        return min(self.silence, max(LAST_SILENCE, left + LAST_SILENCE / 2))

    def blamed(self, action: Action, error: WorkerFailedError) -> str:
        """Return the arm whose turn it was when a worker died; empty if it was nobody's."""
        if action.do == "cold":
            return action.arms[0]
        arms = self.arms.get(action.worker, ())
        if error.arm is None or action.do == "start" or error.arm >= len(arms):
            return ""
        return arms[error.arm]

    def processor_seconds(self) -> float:
        """Return the processor seconds of all workers that live, and of this process."""
        living = sum(worker.cpu_now() for worker in list(self.workers.values()))
        return time.process_time() + self.ended_seconds + living

    def end(self, worker: Worker) -> None:
        """End a worker, and keep count of what it used."""
        self.ended_seconds += worker.cpu_now()
        worker.close()


def kind_of(action: Action) -> tuple[str, str, str, str]:
    """Return what actions have in common that take about as long."""
    return action.do, action.workload, action.kind, action.side


def busy_seconds() -> tuple[float, float]:
    """Return the processor seconds of this machine so far: stolen from it, and used on it."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return getattr(times, "steal", 0.0), used
