"""What is on the disk: the journal, the run file that appears whole, and the lock of a machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.engine.journal import VERSION, DiskError, Journal, disk_words, newest
from bench.engine.machine import LOCK, only_one
from bench.runfile.atomic_write import whole_file
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
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
            lambda data: data.replace(b'"version":2', b'"version":99'),
            "is of version 99, this program reads 2: resume it with the program that began it",
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


def test_no_journal_and_the_newest(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "nowhere", "No such file"), (tmp_path, "is a directory")):
        with pytest.raises(BakeoffError, match=rf"cannot read the journal .*: {why}"):
            Journal.open(path)
        with pytest.raises(BakeoffError, match="there is nothing to resume: no journal in"):
            newest(path)
    for age, name in ((300, "b"), (100, "a"), (200, "c")):
        journal = tmp_path / f"{name}.journal"
        journal.write_text("{}")
        os.utime(journal, (1e9 - age, 1e9 - age))
    (tmp_path / "other.json").touch()
    (tmp_path / "never-begun.journal").touch()
    assert newest(tmp_path) == tmp_path / "a.journal"


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
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    assert path.read_text() == "{}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, one of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


KILLED = """
import os
from bench.engine.machine import only_one
lock = only_one()
os.kill(os.getpid(), 9)
"""


def test_a_second_run_is_refused_but_not_after_one_that_was_killed(folder: Path) -> None:
    here = os.environ | {"TMPDIR": str(folder)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=here, check=False)
    assert killed.returncode == -9
    first, owner = only_one(), (folder / LOCK).with_suffix(".owner")
    assert owner.read_text() == str(os.getpid())
    for text, process in (("17", " (process 17)"), ("", ""), ("nonsense", "")):
        owner.write_text(text)
        with pytest.raises(BakeoffError, match="is measuring on this machine") as caught:
            only_one()
        assert str(caught.value).startswith(f"another run{process} is measuring")
    first.release()


def test_a_lock_that_cannot_be_made(folder: Path) -> None:
    (folder / LOCK).mkdir()
    with pytest.raises(BakeoffError, match=rf"cannot take the lock {folder / LOCK}: Is a dir"):
        only_one()
