"""What is on the disk: the journal, the run file that appears whole, and the lock of a machine."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.engine.journal import VERSION, DiskError, Journal, disk_words, newest
from bench.engine.lock import LOCK, only_one
from bench.report.whole import Whole, written
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def test_each_record_is_on_the_disk_before_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(path.read_bytes().splitlines())))
    journal = Journal.open(path)
    for n in range(4, 7):
        journal.write({"n": n})
    assert synced == [5, 6, 7]


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
            lambda data: data.replace(b'"version": 2', b'"version": 99'),
            "is of version 99, this program reads 2: resume it with the program that began it",
        ),
        (lambda data: data.replace(b'"n": 2', b'"n": '), "line 3 of the journal"),
        (lambda data: data.replace(b'{"n": 1}', b"7"), "line 2 of the journal"),
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


def test_no_journal(tmp_path: Path) -> None:
    with pytest.raises(BakeoffError, match=r"cannot read the journal .*: No such file"):
        Journal.open(tmp_path / "nowhere")
    with pytest.raises(BakeoffError, match=r"cannot read the journal .*: is a directory"):
        Journal.open(tmp_path)
    with pytest.raises(BakeoffError, match="there is nothing to resume: no journal in"):
        newest(tmp_path)
    with pytest.raises(BakeoffError, match="there is nothing to resume"):
        newest(tmp_path / "nowhere")


def test_the_newest(tmp_path: Path) -> None:
    for age, name in ((300, "b"), (100, "a"), (200, "c")):
        journal = tmp_path / f"{name}.journal"
        journal.write_text("{}")
        os.utime(journal, (1e9 - age, 1e9 - age))
    (tmp_path / "other.json").touch()
    (tmp_path / "never-begun.journal").touch()
    assert newest(tmp_path) == tmp_path / "a.journal"


def test_nothing_is_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(DiskError, match=r"cannot write the journal .*: File exists"):
        Journal.create(path, {})
    assert path.read_bytes() == before


def test_nowhere_to_write_one(path: Path) -> None:
    with pytest.raises(DiskError, match=r"cannot write the journal .*: Not a directory"):
        Journal.create(path / "below" / "a.journal", {})


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal on `/dev/full`, where each write fails as on a disk without room."""
    before = path.read_bytes()
    journal = Journal.open(path)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "path", Path("/dev/full"))
        with pytest.raises(DiskError) as caught:
            journal.write({"n": 4})
    assert str(caught.value).startswith("the disk is full: /dev/full cannot be written; ")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert Journal.open(path).records == RECORDS


def test_half_a_record_on_a_full_disk_is_dropped_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(path)

    def full(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 5)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match="the disk is full"):
            journal.write({"n": 4})
    assert Journal.open(path).records == RECORDS


def test_words_for_a_disk() -> None:
    full = disk_words(OSError(errno.ENOSPC, "No space"), "run.json")
    assert full.startswith("the disk is full: run.json cannot be written; ")
    assert "--resume" in full
    other = disk_words(OSError(errno.EIO, "Input/output error"), "run.json")
    assert other.startswith("cannot write run.json: Input/output error; ")


def test_a_file_that_appears_whole(tmp_path: Path) -> None:
    path = Whole(tmp_path / "run.json")
    path.check()
    assert list(tmp_path.iterdir()) == []
    with open(path, "w") as file:  # noqa: PTH123 -- as pytest-benchmark may
        file.write("{")
        file.flush()
        assert not written(path)
        file.write("}")
    assert not written(path)
    path.finish()
    assert written(path)
    assert str(path) == str(tmp_path / "run.json")
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "{}"


def test_a_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = Whole(tmp_path / "run.json")
    with path.open("w") as file:
        file.write("{")
    assert [each.name for each in tmp_path.iterdir()] == [path.partial.name]
    path.discard()
    path.finish()
    assert list(tmp_path.iterdir()) == []
    path.discard()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Whole("run.json")
    path.check()
    path.write_text("{}")
    path.finish()
    assert (tmp_path / "run.json").read_text() == "{}"


@pytest.mark.parametrize("below", ["/proc", "file"])
def test_nowhere_to_write_a_file(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = Whole(tmp_path / below / "run.json")
    with pytest.raises(BakeoffError) as caught:
        path.check()
    assert str(caught.value).startswith(f"--benchmark-json {path}: cannot write there (")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, one of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


HOLDER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from bench.engine.lock import only_one
lock = only_one()
print("it is mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Return another process that has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "it is mine\n"
        yield process
        process.kill()


def test_a_second_run_is_refused(holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BakeoffError) as caught:
        only_one()
    assert str(caught.value) == (
        f"another run (process {holder.pid}) is measuring on this machine, and two would measure "
        "each other: wait until it has ended"
    )


def test_the_lock_of_a_run_that_was_killed_is_free(holder: subprocess.Popen[str]) -> None:
    holder.kill()  # SIGKILL
    holder.wait()
    only_one().release()


@pytest.mark.parametrize("owner", [None, "", "nonsense"])
def test_a_lock_whose_owner_is_not_known(
    owner: str | None, holder: subprocess.Popen[str], folder: Path
) -> None:
    path = (folder / LOCK).with_suffix(".owner")
    path.unlink() if owner is None else path.write_text(owner)
    with pytest.raises(BakeoffError, match="another run is measuring on this machine"):
        only_one()


def test_a_lock_that_cannot_be_made(folder: Path) -> None:
    (folder / LOCK).mkdir()
    with pytest.raises(BakeoffError, match=rf"cannot take the lock {folder / LOCK}: Is a dir"):
        only_one()


def test_a_lock_is_given_back(folder: Path) -> None:
    for _ in range(2):
        lock = only_one()
        assert (folder / LOCK).with_suffix(".owner").read_text() == str(os.getpid())
        lock.release()
