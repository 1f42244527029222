"""The journal on the disk: cut, damaged, missing, and on a full disk; and the machine's lock."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from bench.cells import Cell
from bench.engine.journal import VERSION, DiskError, Journal, disk_words, journals
from bench.engine.machine import LOCK, Watch, machine_lock, require_memory
from bench.runfile.writer import whole_file
from common.errors import BakeoffError
from tests.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORDS: list[dict[str, Any]] = [{"n": 1}, {"n": 2, "values": [0.1, 1e-9]}, {"n": 3, "words": "ä"}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a journal of three records."""
    journal = Journal.create(tmp_path / "deep" / "run.journal", {"before": 1.5})
    for record in RECORDS:
        journal.write(record)
    return journal.path


def test_it_gives_back_what_was_written(path: Path) -> None:
    journal = Journal.open(path)
    assert journal.header == {"version": VERSION, "before": 1.5}
    assert journal.records == RECORDS
    journal.write({"n": 4})
    assert Journal.open(path).records == [*RECORDS, {"n": 4}]
    journal.remove()
    assert not path.exists()
    journal.remove()


def test_cut_at_every_byte(path: Path) -> None:
    """Half a line is dropped, and what is written next follows a whole line."""
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for size in range(first, len(data) + 1):
        path.write_bytes(data[:size])
        journal = Journal.open(path)
        whole = data[:size].count(b"\n") - 1
        assert journal.records == RECORDS[:whole]
        assert path.read_bytes() == b"".join(data.splitlines(keepends=True)[: whole + 1])
        journal.write({"n": 9})
        assert Journal.open(path).records == [*RECORDS[:whole], {"n": 9}]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is no journal of a run: its first line does not say so"),
        (lambda data: data[:7], "is no journal of a run"),
        (lambda data: b'{"benchmarks": []}\n', "is no journal of a run"),
        (lambda data: data.split(b"\n", 1)[1], "is no journal of a run"),
        (
            lambda data: data.replace(b'"version":%d' % VERSION, b'"version":99'),
            f"is of version 99, this program reads {VERSION}: resume it with the program that",
        ),
        (lambda data: data.replace(b'"n":2', b'"n":'), "line 3 of the journal"),
        (lambda data: data.replace(b'{"n":1}', b"7"), "line 2 of the journal"),
        (lambda data: data.replace(b"{", b"\xff"), "line 1 of the journal"),
        (lambda data: data + b"\0" * 40 + b"\n", "line 5 of the journal"),
    ],
)
def test_a_journal_that_is_none(path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(BakeoffError) as caught:
        Journal.open(path)
    text = str(caught.value)
    assert message in text
    assert str(path) in text
    assert "\n" not in text
    assert path.read_bytes() == before


def test_no_journal_and_the_newest_of_a_kind(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nowhere", "No such file"), (tmp_path, "is a directory")):
        with pytest.raises(BakeoffError, match=rf"cannot read the journal .*: {why}"):
            Journal.open(path)
        assert journals("run", path) == []
    for age, name in ((300, "b-run"), (100, "a-run"), (200, "c-run"), (50, "d-ab")):
        journal = tmp_path / f"{name}.journal"
        journal.write_text("{}")
        os.utime(journal, (1e9 - age, 1e9 - age))
    (tmp_path / "other-run.json").touch()
    (tmp_path / "never-begun-run.journal").touch()
    assert [path.stem for path in journals("run", tmp_path)] == ["a-run", "c-run", "b-run"]
    assert [path.stem for path in journals("ab", tmp_path)] == ["d-ab"]


def test_nothing_is_overwritten_and_nowhere_to_write(path: Path) -> None:
    before = path.read_bytes()
    for place, why in ((path, "File exists"), (path / "below" / "a.journal", "Not a directory")):
        with pytest.raises(DiskError, match=rf"cannot write the journal .*: {why}"):
            Journal.create(place, {})
    assert path.read_bytes() == before


def full(descriptor: int) -> None:
    """Fail as `os.fsync` does where there is no room, with the last bytes lost."""
    with suppress(OSError):  # it is open for reading
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1)
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a record is dropped later."""
    journal = Journal.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=rf"^the disk is full: {path} cannot.*--resume$"):
            journal.write({"n": 4})
    assert Journal.open(path).records == RECORDS
    other = disk_words(OSError(errno.EIO, "Input/output error"), "run.json")
    assert other.startswith("cannot write run.json: Input/output error; ")


def test_a_file_that_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    with whole_file(path) as partial:
        partial.write_text("{}")
        assert not path.exists()
        assert partial.parent == tmp_path, "so that it can be renamed"
    monkeypatch.setattr(os, "fsync", full)
    message = rf"^output {path} cannot be written: No space left on device$"
    with pytest.raises(BakeoffError, match=message), whole_file(path, "output ") as partial:
        partial.write_text("other")
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
    assert path.read_text() == "{}"


# The machine.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, one of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


KILLED = """
import os
from bench.engine.machine import machine_lock
lock = machine_lock()
os.kill(os.getpid(), 9)
"""


def test_a_second_run_is_refused_but_not_after_one_that_was_killed(folder: Path) -> None:
    here = os.environ | {"TMPDIR": str(folder)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=here, check=False)
    assert killed.returncode == -9
    first, owner = machine_lock(), (folder / LOCK).with_suffix(".owner")
    assert owner.read_text() == str(os.getpid())
    for text, process in (("17", " (process 17)"), ("", ""), ("nonsense", "")):
        owner.write_text(text)
        with pytest.raises(BakeoffError, match=rf"^another run{process and r' .process 17.'} is m"):
            machine_lock()
    first.release()
    machine_lock().release()


def test_a_lock_that_cannot_be_made(folder: Path) -> None:
    (folder / LOCK).mkdir()
    with pytest.raises(BakeoffError, match=rf"cannot take the lock {folder / LOCK}: Is a dir"):
        machine_lock()


def test_the_process_that_uses_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [{1: ("cc", 5.0), 2: ("idle", 1.0)}, {1: ("cc", 95.0), 2: ("idle", 1.1), 3: ("x", 2.0)}]
    monkeypatch.setattr("bench.engine.machine.processor_seconds", lambda: seen.pop(0))
    watch = Watch()
    watch.start -= 100
    watch.machine = (watch.machine[0] - 10, watch.machine[1] - 50)
    watch.ours -= 20  # of these, our workers used so many
    cores = os.cpu_count() or 1
    usage = watch.usage()
    assert usage.busiest == "cc (0.9 cores)"
    assert usage.stolen == pytest.approx(0.1 / cores, rel=0.1)
    assert usage.others == pytest.approx(0.3 / cores, rel=0.1)


def test_arms_that_memory_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("pure_jax", style, "widex128", "cpu") for style in ("pure", "tuned")]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3e9))
    require_memory(cells[:1])
    with pytest.raises(BakeoffError, match=r"2 styles at widex128 need about 3 GB .* 3.0 GB are"):
        require_memory(cells)
    require_memory([cell._replace(backend="gpu") for cell in cells])
    require_memory([cell._replace(workload="wide") for cell in cells])
