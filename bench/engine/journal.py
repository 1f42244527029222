"""The journal: every sample is on the disk before the next one is taken.

JSON lines. The first says which run it is, each further one what was done and what came of it. A
run that was cut off goes on from it: what the schedule asks for again is read instead of measured.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

VERSION = 4
FOLDER = Path(".bakeoff")
SUFFIX = ".journal"
SAFE = "what was measured before is in the journal: go on with --resume"


class DiskError(BakeoffError):
    """What was measured cannot be written down."""


@dataclass
class Journal:
    """An open journal; lines are appended and reach the disk at once."""

    path: Path
    header: dict[str, Any]
    records: list[dict[str, Any]]
    """What it held when it was opened."""

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> Journal:
        """Start a new journal; raise BakeoffError if it cannot be written, or is there already."""
        journal = cls(path, {"version": VERSION, **header}, [])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        except OSError as error:
            raise DiskError(f"cannot write the journal {path}: {error.strerror}") from error
        journal.write(journal.header)
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read a journal to go on with. Half a line at its end is cut off: it was never finished.

        Raises:
            BakeoffError: it cannot be read, is damaged before its end, or is of another version.
        """
        try:
            data = read_regular(path, MOST_JSON)
        except OSError as error:
            raise BakeoffError(f"cannot read the journal {path}: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]
        lines: list[dict[str, Any]] = []
        for line in whole.splitlines():
            try:
                lines.append(msgspec.json.decode(line, type=dict[str, Any]))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BakeoffError(
                    f"line {len(lines) + 1} of the journal {path} is damaged ({error}): delete it "
                    "and what follows to keep what is before, or start anew"
                ) from error
        if not lines or "version" not in lines[0]:
            raise BakeoffError(
                f"{path} is no journal of a run: its first line does not say so; "
                "name another one, or start anew without --resume"
            )
        if lines[0]["version"] != VERSION:
            raise BakeoffError(
                f"the journal {path} is of version {lines[0]['version']!r}, this program reads "
                f"{VERSION}: resume it with the program that began it, or start anew"
            )
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        return cls(path, lines[0], lines[1:])

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, whole or not at all as far as the disk allows.

        Raises:
            DiskError: there is no room for it; what was written before is safe.
        """
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(disk_words(error, str(self.path))) from error

    def remove(self) -> None:
        """Delete it, when all that it holds is in a run file."""
        self.path.unlink(missing_ok=True)


def disk_words(error: OSError, path: str) -> str:
    """Say what went wrong when `path` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} cannot be written; make room"
    return f"cannot write {path}: {error.strerror}"


def journals(kind: str, folder: Path = FOLDER) -> list[Path]:
    """Return the journals of a kind of measurement that were begun, the newest first."""
    begun = [path for path in folder.glob(f"*-{kind}{SUFFIX}") if path.stat().st_size]
    return sorted(begun, key=lambda path: path.stat().st_mtime, reverse=True)
