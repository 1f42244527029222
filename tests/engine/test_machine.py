"""The lock of the machine, and the signals that end a process."""

import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from bench.engine.machine import LOCK, machine_lock
from tests.commands import ROOT, refusal

KILLED = """
import os
from bench.engine.machine import machine_lock
lock = machine_lock()
os.kill(os.getpid(), 9)
"""


def test_a_second_run_is_refused_but_not_after_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    here = os.environ | {"TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=here, check=False)
    assert killed.returncode == -9
    first, owner = machine_lock().lock, (tmp_path / LOCK).with_suffix(".owner")
    machine_lock().lock.release()  # of one process, a command and what it measures both take it
    first.release()
    first = filelock.FileLock(tmp_path / LOCK)
    first.acquire()
    assert refusal(machine_lock).startswith(f"another run (process {os.getpid()}) is measuring")
    first.release()
    (tmp_path / "mine").write_text("mine")
    for put in (
        lambda: owner.write_text("nonsense"),
        lambda: os.mkfifo(owner),
        lambda: owner.symlink_to(tmp_path / "mine"),
    ):
        first.acquire()
        owner.unlink(missing_ok=True)
        put()
        assert refusal(machine_lock).startswith("another run is measuring")
        first.release()
        machine_lock().lock.release()
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_run_waits_for_another_one_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = filelock.FileLock(tmp_path / LOCK)
    other.acquire()
    told: list[str] = []

    def goes_on(text: str) -> None:
        told.append(text)
        other.release()  # the other run ends once this one waits

    monkeypatch.setattr("bench.engine.machine.say", goes_on)
    machine_lock(wait=True).lock.release()
    assert told == ["waiting for another run that is measuring on this machine"]


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


def test_the_second_signal_ends_at_once() -> None:
    script = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(script, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "politely\n")
