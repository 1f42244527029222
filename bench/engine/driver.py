"""Does what a plan asks for: holds the workers, the clock and the journal."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import Arm
from bench.engine.actions import Action, AnswerError, Death, Outcome, typed
from bench.engine.costs import STAGES_SECONDS
from bench.engine.machine import COMPILED
from bench.engine.process import (
    HEAVY_SILENCE,
    LEAST_SILENCE,
    Worker,
    WorkerFailedError,
    descendants,
    link,
)
from bench.metrics import STAGES
from bench.worker.__main__ import adopt
from bench.worker.integrity import end_processes
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.engine.journal import Journal
    from bench.engine.plan import Plan
    from bench.engine.session import Side
    from bench.runfile import TimeSpent

MOST_SILENCE = 300.0
"""Seconds of silence after which a worker is taken to hang, at most; a third of the budget, and
`LEAST_SILENCE` at least."""
LAST_SILENCE = 20.0
"""Seconds of silence where the budget is nearly spent: compiling takes ten on a slow machine."""
USUAL, LEAST_USUAL = 10, 10.0
"""A worker may take so many times as long as the longest action of its kind so far, and so many
seconds at least: ten times is more than a busy machine adds."""
MOST_LANES = 256
"""Threads at most, one for each lane: no machine has as many lanes."""
CUT = Death("the run was cut off", cut=True)
TOKEN_SHARE = 0.8
"""Part of a worker's silence after which another one that takes turns with it ends: before it is
taken to hang itself."""
BEGIN = ("start", "cold")
"""Actions that begin a process."""


def new_cache() -> Path:
    """Return a new folder for compiled programs; raise BakeoffError if there is no place for it."""
    try:
        return Path(tempfile.mkdtemp(prefix=COMPILED))
    except OSError as error:
        raise BakeoffError(
            f"no folder for compiled programs can be made in {tempfile.gettempdir()}: "
            f"{error.strerror}; make room there, or set TMPDIR to another place"
        ) from error


@dataclass
class Driver:
    """One run from its first action to its last, or to where it is cut off."""

    plan: Plan
    journal: Journal
    sides: Mapping[str, Side]
    """By environment."""
    outside: Mapping[str, str]
    """Files of entrants that are not the project's, by name."""
    on_progress: Callable[[Action, TimeSpent], None] = lambda _action, _spent: None
    """Called before each action; shows how far the run is."""

    def __post_init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.arms: dict[int, tuple[str, ...]] = {}
        """What each worker has loaded, by index."""
        self.longest: dict[tuple[str, str, str, str], float] = {}
        """Seconds that what was done at a workload, of one kind of turns, took at most."""
        self.silence = min(MOST_SILENCE, max(LEAST_SILENCE, self.plan.options.budget / 3))
        self.pending: dict[int, Action] = {}
        """Actions that were asked for and have no outcome yet, by worker."""
        self.running: dict[int, Future[Outcome]] = {}
        self.replayed = 0
        """Records of the journal that were read instead of measured."""
        self.closing = threading.Event()

    def run(self) -> None:
        """Do everything that the plan asks for; what came of it is in the plan, at any time.

        Raises:
            BakeoffError: the journal is another run's, or cannot be written.
        """
        self.zero = time.monotonic() - self.plan.spent.wall
        self.cache = new_cache()
        adopt()  # what a worker that died has left in a session of its own
        self.before = descendants(os.getpid())
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
        if self.replayed < len(self.journal.records):
            action, outcome = self.recorded(self.journal.records[self.replayed])
            self.zero = time.monotonic() - outcome.at
        else:
            action, outcome = self.performed(pool)
        del self.pending[action.worker]
        if outcome.death is None:
            key = kind_of(action)
            self.longest[key] = max(outcome.took, self.longest.get(key, 0.0))
        return outcome

    def performed(self, pool: ThreadPoolExecutor) -> tuple[Action, Outcome]:
        """Do what is pending; return what ends first with its outcome, which is on the disk."""
        for action in self.pending.values():
            if action.worker not in self.running:
                self.on_progress(action, self.plan.spent)
                self.running[action.worker] = pool.submit(self.perform, action)
        wait(self.running.values(), return_when=FIRST_COMPLETED)
        worker = min(worker for worker, future in self.running.items() if future.done())
        action, outcome = self.pending[worker], self.running.pop(worker).result()
        outcome = msgspec.structs.replace(outcome, at=time.monotonic() - self.zero)
        self.journal.write({"action": action, "outcome": outcome})
        return action, outcome

    def recorded(self, record: dict[str, Any]) -> tuple[Action, Outcome]:
        """Return a journalled action, which has to be one that was asked for, with its outcome."""
        self.replayed += 1
        try:
            written = msgspec.convert(record["action"], Action)
            outcome = msgspec.convert(record["outcome"], Outcome)
            asked = self.pending.get(written.worker)
            if written == asked and outcome.death is None:
                outcome = msgspec.structs.replace(outcome, answer=typed(written, outcome.answer))
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise BakeoffError(
                f"record {self.replayed} of the journal {self.journal.path} is damaged: "
                "delete its line and what follows to keep what is before, or start anew"
            ) from error
        if written != asked:
            raise BakeoffError(
                f"the journal {self.journal.path} does not fit this run: it holds {written} where "
                f"{asked} was to be done; it was written by another version or with other "
                "options: start anew without --resume"
            )
        return written, outcome

    # what happens in a lane's thread

    def perform(self, action: Action) -> Outcome:
        """Let a worker do something, and see how long it takes; the run's clock is not known."""
        start = time.perf_counter()
        answer, death = self.answered(action)
        return Outcome(action.worker, time.perf_counter() - start, 0.0, answer, death)

    def answered(self, action: Action) -> tuple[Any, Death | None]:
        """Return the typed answer of a worker, or how it died."""
        if action.do not in BEGIN and not self.workers.keys() >= {*action.workers}:
            return None, CUT
        dead = action.worker
        try:
            return typed(action, self.asked(action)), None
        except AnswerError as error:
            reason, stderr = f"worker failed (it answered `{action.do}`: {error})", ""
            dead = action.workers[error.place]
            arm = self.workers[dead].recorder.who() if action.do != "cold" else None
        except OSError as error:  # no room for its files, or no process more
            reason, stderr = f"worker failed (it cannot be started: {error.strerror})", ""
            arm = None
        except WorkerFailedError as error:
            reason, stderr, arm, dead = error.reason, error.stderr, error.arm, error.number or dead
        self.end(action)
        return None, Death(reason, stderr, self.blamed(action, dead, arm), dead)

    def asked(self, action: Action) -> Any:
        """Return the record that a worker gives; starts it and ends it."""
        patience = self.patience(action)
        if action.do in BEGIN:
            if self.closing.is_set():
                raise WorkerFailedError("the run has ended", "", None)
            worker = Worker(self.sides[action.environment].place, patience, action.cores)
            self.workers[action.worker] = worker
            worker.start()
        record: Any = None
        if action.do == "block":
            record = self.asked_together(action, patience)
        elif action.do not in ("start", "close"):
            record = self.workers[action.worker].ask(self.command(action), patience)
        if action.do in ("cold", "close"):
            self.end(action)
        return record

    def asked_together(self, action: Action, patience: float) -> list[dict[str, Any]]:
        """Return what the workers of a block answer: one, or two that take turns."""
        workers = {number: self.workers[number] for number in action.workers}
        turns: dict[str, Any] = {}
        if action.partner:
            link(*workers.values())
            turns["patience"] = TOKEN_SHARE * patience
        failures: dict[int, WorkerFailedError] = {}
        with ThreadPoolExecutor(len(workers)) as pool:
            answers = {}
            for place, (number, worker) in enumerate(workers.items()):
                command = self.command(action) | turns | ({"place": place} if turns else {})
                answers[number] = pool.submit(worker.ask, command, patience)
            for number, answer in answers.items():
                if isinstance(error := answer.exception(), WorkerFailedError):
                    failures[number] = error
        if failures:  # whoever waited for the other one is not to blame
            number = min(failures, key=lambda n: (failures[n].lost_token, failures[n].arm is None))
            failures[number].number = number
            raise failures[number]
        return [answer.result() for answer in answers.values()]

    def command(self, action: Action) -> dict[str, Any]:
        """Return an action as what a worker is told."""
        arms = list(action.arms)
        files: dict[str, Any] = {"outside": dict(self.outside)}
        if self.plan.options.donate:
            files["donate"] = True
        place: dict[str, Any] = {"workload": action.workload, "backend": action.backend}
        match action.do:
            case "load":
                cache = str(self.cache / self.compiler(action.environment))
                rest = files | {"arms": arms, "cache": cache, "seed": action.seed}
                rest["check_programs"] = action.check
            case "cold":
                rest = place | files | Arm.of(arms[0]).code._asdict()
            case "block":
                rest = place | {"arms": arms, "kind": action.kind, "seed": action.seed}
                rest |= {"rounds": action.rounds, "anew": action.anew}
            case "open":
                rest = place | {"arm": arms[0], "losses": list(action.losses) or None}
            case _:
                rest = place | {"arm": arms[0]}
        return {"do": action.do} | rest

    def compiler(self, environment: str) -> str:
        """Return a name for what compiles in an environment.

        Sides of one name share compiled programs: what is the same for both is compiled once.
        """
        side = self.sides.get(environment)
        versions = side.offer.versions if side else {}
        names = (versions.get(name, environment) for name in ("jax", "jaxlib"))
        return "-".join(names).replace("/", "-")

    def patience(self, action: Action) -> float:
        """Return after how many silent seconds a worker is taken to hang: less near the end."""
        longest = self.longest.get(kind_of(action))
        if longest is not None:
            patience = min(self.silence, max(LEAST_USUAL, USUAL * longest))
        elif self.plan.options.fixed:
            patience = self.silence
        else:
            left = self.plan.end - (time.monotonic() - self.zero)
            patience = min(self.silence, max(LAST_SILENCE, left + LAST_SILENCE / 2))
        if action.do == "block" and action.kind == STAGES:
            turns = len(action.arms) * action.rounds * len(action.workers)
            patience = max(patience, USUAL * STAGES_SECONDS * turns)
        imports = action.do in ("load", "cold") and self.sides[action.environment].heavy
        return max(patience, HEAVY_SILENCE) if imports else patience

    def blamed(self, action: Action, worker: int, index: int | None) -> str:
        """Return the arm whose turn it was when a worker died; empty if it was at none's."""
        if action.do == "cold":
            return action.arms[0]
        arms = self.arms.get(worker, ())
        return arms[index] if index is not None and index < len(arms) else ""

    def end(self, action: Action) -> None:
        """End an action's workers, if they live, and what workers have left behind by now."""
        for number in action.workers:
            if worker := self.workers.pop(number, None):
                worker.close()
        if hasattr(os, "getsid"):
            for pid in descendants(os.getpid()) - self.before:
                with suppress(OSError):  # ours have our session
                    if os.getsid(pid) != os.getsid(0):
                        end_processes([pid])


def kind_of(action: Action) -> tuple[str, str, str, str]:
    """Return what actions have in common that take about as long."""
    return action.do, action.workload, action.kind, action.environment
