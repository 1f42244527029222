"""The driver: carries out a plan's actions; holds the workers, the clock and the journal."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bench.engine.actions import (
    Action,
    Outcome,
    parse_answer,
)
from bench.engine.machine import CoreUse, make_folder
from bench.engine.process import Worker, WorkerFailedError, find_descendants, link
from bench.streams import say
from bench.worker.__main__ import adopt_orphans
from bench.worker.settings import end_processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.engine.journal import Journal
    from bench.engine.plan import Plan
    from bench.engine.task import Task
    from bench.runfile import TimeSpent
    from bench.worker.protocol import Command

GRACE_SECONDS = 10.0
"""Seconds that a worker may go on computing when the budget is spent, beyond the longest action of
its kind so far: what began in time is worth that much."""
MOST_LANES = 256
"""Maximum number of threads, one for each lane: no machine has as many lanes."""


@dataclass
class Driver:
    """One run from its first action to its last, or to where it is cut off."""

    plan: Plan
    journal: Journal
    task: Task
    on_progress: Callable[[Action, TimeSpent], None] = lambda _action, _spent: None
    """Called before each action; shows how far the run is."""

    def __post_init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.arms: dict[int, tuple[str, ...]] = {}
        """Worker → the arms that it has loaded, in their order."""
        self.longest: dict[tuple[str, str, str, str], float] = {}
        """Key of an action (`make_duration_key`) → the longest seconds of such actions so far."""
        self.running: dict[Future[Outcome], Action] = {}
        self.closing = threading.Event()

    def run(self) -> None:
        """Carry out the plan; its results are in the plan at any time.

        Raises:
            BakeoffError: the journal cannot be written.
        """
        self.zero = time.monotonic() - self.plan.state.spent.wall_seconds
        self.plan.requests.notify = say
        with make_folder("compiled") as self.cache:
            adopt_orphans()  # what a worker that died has left in a session of its own
            self.processes_before = find_descendants(os.getpid())
            pool = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="lane")
            try:
                lanes = self.plan.actions()
                with suppress(StopIteration):
                    begin = next(lanes)
                    while True:
                        outcome = self.take_outcome(begin, pool)
                        try:
                            begin = lanes.send(outcome)
                        finally:
                            self.journal.write_news(self.plan.state)
            finally:
                self.close(pool)

    def close(self, pool: ThreadPoolExecutor) -> None:
        """End all workers, those that a lane is starting at this moment too."""
        self.closing.set()
        for worker in list(self.workers.values()):
            worker.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for worker in list(self.workers.values()):
            worker.close()
        self.workers.clear()

    def take_outcome(self, begin: tuple[Action, ...], pool: ThreadPoolExecutor) -> Outcome:
        """Begin some actions, and return the outcome of the one that ends next."""
        for action in begin:
            if action.do == "load":
                self.arms[action.worker] = tuple(action.arms)
            self.on_progress(action, self.plan.state.spent)
            self.running[pool.submit(self.perform, action)] = action
        done = next(iter(wait(self.running, return_when=FIRST_COMPLETED).done))
        action, outcome = self.running.pop(done), done.result()
        if outcome.death is None:
            key = make_duration_key(action)
            self.longest[key] = max(outcome.took, self.longest.get(key, 0.0))
        return outcome

    # what happens in a lane's thread

    def perform(self, action: Action) -> Outcome:
        """Let workers do an action; return their answers or how one died, and how long it took."""
        start, answers, death = time.monotonic(), list[Any](), None
        # A call on one core tells by itself whether that was free
        is_judged = action.do == "cold" or (action.do == "block" and not action.cores)
        use = CoreUse(lambda: tuple(self.workers.values())) if is_judged else None
        try:
            answers = self.get_answers(action)
        except (WorkerFailedError, OSError) as error:
            if isinstance(error, OSError):  # no room for its files, or no process more
                words = f"worker failed (it cannot be started: {error.strerror})"
                error = WorkerFailedError(words, "", None)
            error.number = error.number or action.worker
            self.end(action)
            error.blamed = self.find_arm(error.number, error.arm)
            death = error
        end = time.monotonic()
        if death is not None:
            death.is_late = death.is_hung and end - self.zero > self.plan.state.end
        is_disturbed = use is not None and use.is_disturbed()
        return Outcome(action.worker, end - start, end - self.zero, answers, death, is_disturbed)

    def get_answers(self, action: Action) -> list[Any]:
        """Return the answer of each of an action's workers; start and end workers where due."""
        limit, answers = self.choose_limit(action), [None]
        if action.do in ("load", "cold"):
            if self.closing.is_set():
                raise WorkerFailedError("the run has ended", "", None)
            worker = Worker(self.task.sides[action.environment].interpreter, action.cores)
            self.workers[action.worker] = worker
            worker.start(limit)
        if action.partner:
            answers = self.ask_partners(action, limit)
        elif action.command is not None:
            answers = [self.ask_worker(action, action.worker, limit)]
        if action.do in ("cold", "close"):
            self.end(action)
        return answers

    def ask_partners(self, action: Action, limit: float) -> list[Any]:
        """Return the answers of two workers that alternate."""
        link(*(self.workers[number] for number in action.workers))
        with ThreadPoolExecutor(len(action.workers)) as pool:
            answers = {
                number: pool.submit(self.ask_worker, action, number, limit, side)
                for side, number in enumerate(action.workers)
            }
        errors = {number: answer.exception() for number, answer in answers.items()}
        failures = {n: error for n, error in errors.items() if isinstance(error, WorkerFailedError)}
        if failures:  # whoever waited for the other one is not to blame
            number = min(failures, key=lambda n: (failures[n].lost_token, failures[n].arm is None))
            failures[number].number = number
            raise failures[number]
        return [answer.result() for answer in answers.values()]

    def ask_worker(self, action: Action, number: int, limit: float, side: int | None = None) -> Any:
        """Ask a worker for an action, and return its answer, checked.

        Of two workers that alternate, `side` is 0 or 1: who is asked.
        """
        worker = self.workers[number]
        partner = None if side is None else self.workers[action.workers[1 - side]]
        command = self.complete_command(action, side, limit)
        record = worker.ask(command, limit, partner)
        try:
            return parse_answer(action, record)
        except ValueError as error:
            raise worker.make_failure(f"it answered `{action.do}`: {error}") from error

    def complete_command(self, action: Action, side: int | None, patience: float) -> Command:
        """Return an action's command with what depends on the run, as far as it has such fields."""
        command = action.command
        assert command is not None
        about = {
            "cache": str(self.cache / self.name_compiler(action.environment)),
            "outside": dict(self.task.outside),
            "donate": self.plan.options.donate,
            "place": side,
            "patience": patience,
        }
        known = {field.name for field in fields(command)}
        return replace(command, **{name: about[name] for name in about if name in known})

    def name_compiler(self, environment: str) -> str:
        """Return a name for the compiler of an environment.

        Sides with the same name share compiled programs, so that each is compiled once.
        """
        versions = self.task.sides[environment].offer.versions
        names = (versions.get(name, environment) for name in ("jax", "jaxlib"))
        return "-".join(names).replace("/", "-")

    def choose_limit(self, action: Action) -> float:
        """Return the seconds after which an action has hung, although its worker computes.

        They end with the budget and the longest action of its kind so far.
        """
        left = self.plan.state.end - (time.monotonic() - self.zero)
        left = min(max(0.0, left), self.plan.options.budget)  # a given number of blocks has no end
        return left + self.longest.get(make_duration_key(action), 0.0) + GRACE_SECONDS

    def find_arm(self, worker: int, index: int | None) -> str:
        """Return the arm that was at work when a worker died; empty if none was."""
        arms = self.arms.get(worker, ())
        return arms[index] if index is not None and index < len(arms) else ""

    def end(self, action: Action) -> None:
        """End an action's workers, if they live, and processes that workers have left behind."""
        for number in action.workers:
            if worker := self.workers.get(number):
                worker.close()  # before it goes: until then, what it has used is counted here
                del self.workers[number]
        for pid in find_descendants(os.getpid()) - self.processes_before:
            with suppress(OSError):  # ours have our session
                if os.getsid(pid) != os.getsid(0):
                    end_processes([pid])


def make_duration_key(action: Action) -> tuple[str, str, str, str]:
    """Return a key that actions of about the same duration share."""
    return action.do, action.workload, action.kind, action.environment
