"""The lock of the machine and its queue, and the signals that end a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.engine.machine import (
    LOCK,
    LOCK_FOLDER_VARIABLE,
    OWNER,
    CoreUse,
    machine_lock,
    reach_lock,
    require_free_machine,
)
from bench.files import lock_file
from bench.runfile.reader import read
from common.errors import BakeoffError
from tests.commands import ROOT, command, how, refusal
from tests.test_bench import Lab

QUEUED = """
import sys, time
from pathlib import Path
from bench.engine.machine import machine_lock
name, wait = sys.argv[1:]
with machine_lock(wait=wait == "wait"):
    with open("log", "a") as log:
        print(name, file=log, flush=True)
    while not Path(f"end-{name}").exists():
        time.sleep(0.02)
"""
"""A run named by its first argument: it says when it has the machine, and ends when it is told."""


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)
    return value


class Queue:
    """Runs in a folder with a lock of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder / "tmp"
        self.runs: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, wait: str = "wait") -> subprocess.Popen[str]:
        """Start a run, and return when it has the machine or waits for it."""
        (self.folder / "queued.py").write_text(QUEUED)
        command, given = [sys.executable, "queued.py", name, wait], how(self.folder)
        with (self.folder / f"err-{name}").open("w") as err:
            run = self.runs[name] = subprocess.Popen(command, **given, stderr=err)
        until(lambda: self.told(name) or name in self.log or run.poll() is not None)
        return run

    @property
    def log(self) -> list[str]:
        """Names of runs that have had the machine, in their order."""
        path = self.folder / "log"
        return path.read_text().split() if path.exists() else []

    def told(self, name: str) -> str:
        return (self.folder / f"err-{name}").read_text()

    def has(self, name: str) -> bool:
        """Tell whether a run got the machine last."""
        return self.log[-1] == name

    def knows(self, name: str, other: str) -> bool:
        """Tell whether a run has said that another one has the machine."""
        return self.holder(other) in self.told(name)

    def end(self, name: str) -> None:
        (self.folder / f"end-{name}").touch()
        assert self.runs.pop(name).wait(60) == 0

    def holder(self, name: str) -> str:
        """Return the words for a run that has the machine."""
        return f"another run (process {self.runs[name].pid}, queued.py {name})"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    made = Queue(tmp_path)
    made.temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(made.temporary))
    monkeypatch.setenv("BAKEOFF_LOCK_FOLDER", str(made.temporary))
    yield made
    for run in made.runs.values():
        run.kill()
        run.wait()


def test_a_second_run_is_refused_but_not_after_one_that_was_killed(queue: Queue) -> None:
    first = queue.start("first", "now")
    assert refusal(require_free_machine).startswith(queue.holder("first"))
    (left := queue.temporary / "bakeoff-compiled-left").mkdir()
    (left / OWNER).touch()
    first.kill()
    first.wait()
    require_free_machine()
    with machine_lock():
        pass
    assert [path.name for path in queue.temporary.iterdir()] == [LOCK], "it tidies up"


def test_runs_that_wait_get_the_machine_in_the_order_in_which_they_came(queue: Queue) -> None:
    """One of them is killed, and one that does not wait passes none of them."""
    names = ["a", "b", "killed", "c", "d"]
    for name in names:
        queue.start(name)
    assert queue.log == ["a"]
    waits = f"bakeoff: waiting for {queue.holder('a')}"
    assert [waits in queue.told(name) for name in names] == [False, True, True, True, True]
    killed = queue.runs.pop("killed")
    killed.kill()
    killed.wait()
    assert queue.start("rude", "now").wait(60) == 1
    for name, later in (("a", "b"), ("b", "c"), ("c", "d")):
        queue.end(name)
        until(partial(queue.has, later))
        if later != "d":  # which is told who has the machine now
            until(partial(queue.knows, "d", later))
    assert len(queue.told("d").splitlines()) == 3, "each holder once"
    queue.end("d")
    assert queue.log == ["a", "b", "c", "d"]
    assert [path.name for path in queue.temporary.iterdir()] == [LOCK]


def test_a_run_with_other_temporary_files_is_seen(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    queue.start("first", "now")
    (other := tmp_path / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(other))
    assert refusal(require_free_machine).startswith(queue.holder("first"))
    monkeypatch.delenv("BAKEOFF_LOCK_FOLDER")
    for shared, folder in ((queue.temporary, queue.temporary), (tmp_path / "none", other)):
        monkeypatch.setattr("bench.engine.machine.SHARED_FOLDER", shared)
        with reach_lock() as path:
            assert path == folder / LOCK


def test_a_killed_commands_stack_goes_and_a_waiting_ones_stays(queue: Queue) -> None:
    def start_stack() -> tuple[subprocess.Popen[str], Path]:
        before = {*find_stacks()}
        line = command("cost", "--arrays=2", "--model=haiku", "--wait")
        run = subprocess.Popen(line, **how(queue.folder), stderr=subprocess.DEVNULL)
        queue.runs[str(run.pid)] = run
        return run, until(lambda: [p.parent for p in find_stacks() if p not in before])[0]

    def find_stacks() -> list[Path]:
        return [*queue.temporary.glob("bakeoff-stack-*/*.py")]

    queue.start("a")
    queue.start("b")
    killed, left = start_stack()
    waiting, kept = start_stack()
    killed.kill()
    killed.wait()
    queue.end("a")
    until(partial(queue.has, "b"))
    assert not left.exists()
    assert find_stacks() == [kept / "haiku_2.py"]
    waiting.kill()
    waiting.wait()
    queue.end("b")
    with machine_lock():
        pass
    assert [path.name for path in queue.temporary.iterdir()] == [LOCK]


def test_who_only_looks_is_no_run(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several look at the same time, as in two shells: none is refused, nor is who measures."""
    look = "from bench.engine.machine import require_free_machine as look"
    command = [sys.executable, "-c", f"{look}\nfor _ in range(5_000): look()"]
    lookers = [subprocess.Popen(command, **how(queue.folder)) for _ in range(3)]
    assert [looker.wait(60) for looker in lookers] == [0, 0, 0]
    with ExitStack() as held:
        held.enter_context(lock_file(queue.temporary / LOCK, shared=True))
        require_free_machine()
        monkeypatch.setattr("time.sleep", lambda _: held.close())
        with machine_lock():
            pass


def test_a_stopped_run_that_waits_is_not_said_to_measure(queue: Queue) -> None:
    queue.start("a")
    stopped = queue.start("stopped")
    os.kill(stopped.pid, signal.SIGSTOP)
    queue.end("a")
    queue.start("late")
    first = "is stopped and first in line for this machine"
    assert f"waiting for {queue.holder('stopped')} that {first}" in queue.told("late")
    with pytest.raises(BakeoffError, match=first), machine_lock():
        pass
    os.kill(stopped.pid, signal.SIGCONT)
    until(lambda: queue.has("stopped"))
    queue.end("stopped")
    until(lambda: queue.has("late"))


def test_what_anybody_may_have_put_there_does_no_harm(queue: Queue) -> None:
    mine = queue.folder / "mine"
    mine.write_text("mine")
    names = [f"{LOCK}.{number}.1" for number in range(5)]
    puts: list[Callable[[Path], object]] = [
        lambda path: path.write_text("nonsense"),
        lambda path: path.symlink_to(mine),
        lambda path: path.symlink_to(queue.folder / "nowhere"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ]
    for put, name in zip(puts, names, strict=True):
        put(queue.temporary / name)
    (queue.temporary / f"{LOCK}.{'9' * 30}.1").touch()
    (queue.temporary / f"{LOCK}.owner").touch()
    with machine_lock(wait=True):
        pass
    (queue.temporary / LOCK).unlink()
    (queue.temporary / LOCK).symlink_to(mine)
    with machine_lock():
        pass
    assert mine.read_text() == "mine"
    assert not (queue.folder / "nowhere").exists()
    with lock_file(mine):  # by an older version of this project, which has no ticket
        words = "another run is measuring on this machine, and two would measure each other"
        assert refusal(require_free_machine).startswith(words)


def test_two_real_runs_take_turns_and_waiting_is_no_budget(tmp_path: Path) -> None:
    lab, logs = Lab(tmp_path), [tmp_path / "first.txt", tmp_path / "second.txt"]

    def start(log: Path) -> subprocess.Popen[str]:
        usual = ("--entrant=pure_jax", "--metric=host_cost", "--budget=15", "--wait")
        command = lab.command(*usual, f"--benchmark-json={log.with_suffix('.json')}")
        with log.open("w") as out:
            return subprocess.Popen(command, **lab.how, stdout=out, stderr=subprocess.STDOUT)

    first = start(logs[0])
    until(lambda: [*(tmp_path / "tmp").glob("bakeoff-compiled-*")])
    os.kill(first.pid, signal.SIGSTOP)  # it has the machine for as long as the test wants
    second = start(logs[1])
    until(lambda: "waiting for another run" in logs[1].read_text())
    time.sleep(3)
    os.kill(first.pid, signal.SIGCONT)
    assert (first.wait(300), second.wait(300)) == (0, 0), logs[1].read_text()
    _, _, told = logs[1].read_text().partition("waiting for another run ")
    assert told.startswith(f"(process {first.pid}, pytest bench) that is measuring on this machine")
    assert "\n0 of 15 s: starting a worker" in told, "the clock began when it had the machine"
    assert all(read(log.with_suffix(".json")).samples for log in logs)


SIGNALS = """
import signal
from bench.streams import interrupt_on_signals
with interrupt_on_signals():
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        print("politely", flush=True)
        signal.raise_signal(signal.SIGHUP)
    print("never")
"""


@dataclass
class Spending:
    """A worker of which it is known what it has used."""

    seconds: float = 0.0

    def read_own_seconds(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("used", "ours", "is_disturbed"), [(2.0, 2.0, False), (2.1, 2.0, False), (2.6, 2.0, True)]
)
def test_what_others_use_meanwhile_is_seen(
    used: float, ours: float, is_disturbed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cores for two seconds, of which some were used, by us in part."""
    worker, clock, spent = Spending(), [100.0], [0.0]
    monkeypatch.delenv(LOCK_FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("bench.engine.machine.affinity", lambda: [1, 2])
    monkeypatch.setattr("bench.engine.machine.os.times", lambda: [0.0] * 5)
    monkeypatch.setattr("bench.engine.machine.time.monotonic", lambda: clock[0])

    def list_times(**_: bool) -> list[Any]:
        other = SimpleNamespace(user=9e9 * spent[0])
        return [other, *[SimpleNamespace(user=spent[0] / 2, system=0.0, idle=5.0)] * 2]

    monkeypatch.setattr("bench.engine.machine.psutil.cpu_times", list_times)
    use = CoreUse(lambda: [worker])  # type: ignore[list-item]
    clock[0], worker.seconds, spent[0] = 102.0, ours, used
    assert use.is_disturbed() == is_disturbed
    monkeypatch.setenv(LOCK_FOLDER_VARIABLE, "anywhere")
    assert not use.is_disturbed(), "with a lock of its own, it measures beside others on purpose"


def test_the_second_signal_ends_at_once() -> None:
    script = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(script, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "politely\n")
