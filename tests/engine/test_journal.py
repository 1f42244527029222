"""The journal on the disk, damaged or another one; the lock of the machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from bench.cells import BASELINE
from bench.engine.journal import Journal, Part, find_journals
from bench.engine.machine import LOCK, machine_lock
from bench.runfile import CellResult, TimeSpent
from common.errors import BakeoffError
from tests.commands import ROOT, refusal

CELL = BASELINE.make_cell("toy", "cpu")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a journal of a first line and three more."""
    journal = Journal.create(tmp_path / "deep" / "run.journal", Part(setup={"code": "c0de"}))
    for number, text in enumerate(("one", "two", "ä"), 1):
        row = CellResult(cell=CELL, program=text)
        spent = TimeSpent(wall_seconds=number)
        journal.write(Part(cells=[row], warnings=[text], spent=spent))
    return journal.path


def test_all_lines_together_are_known(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"half a line")
    known = Journal.open(path).known
    assert (known.setup, known.spent.wall_seconds) == ({"code": "c0de"}, 3.0)
    assert (known.warnings, [row.program for row in known.cells]) == (["one", "two", "ä"], ["ä"])
    assert path.read_bytes().endswith(b"}\n"), "half a line was never finished"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is no journal of a run: its first line does not say so"),
        (lambda data: b"{}\n", "is no journal of a run"),
        (lambda data: b'{"version":3}\n', "line 1 of the journal"),
        (lambda data: data.replace(b'["two"]', b'[two"]'), "line 3 of the journal"),
        (lambda data: data + b"\0" * 40 + b"\n", "line 5 of the journal"),
    ],
)
def test_a_journal_that_is_none(path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    refused = refusal(Journal.open, path)
    assert message in refused
    assert str(path) in refused
    assert path.read_bytes() == before


def test_the_newest_of_a_kind_comes_first(tmp_path: Path) -> None:
    for age, name in ((300, "b-run"), (100, "a-run"), (200, "c-run"), (50, "d-ab")):
        journal = tmp_path / f"{name}.journal"
        journal.write_text("{}")
        os.utime(journal, (1e9 - age, 1e9 - age))
    (tmp_path / "never-begun-run.journal").touch()
    assert [path.stem for path in find_journals("run", tmp_path)] == ["a-run", "c-run", "b-run"]
    assert [path.stem for path in find_journals("ab", tmp_path)] == ["d-ab"]
    assert find_journals("run", tmp_path / "nowhere") == []


# The machine.


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
    with pytest.raises(BakeoffError, match=rf"^another run \(process {os.getpid()}\) is measuring"):
        machine_lock()
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
        with pytest.raises(BakeoffError, match=r"^another run is measuring"):
            machine_lock()
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
