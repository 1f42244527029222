"""A byte in shared memory that says whose turn it is: what is left to read when a worker dies.

A record on a pipe would cost microseconds between two timed calls; a store into a mapped page
costs some ten nanoseconds, and outlives the process that made it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Self

NOBODY = 255


class Recorder:
    """The parent's end: makes the page, and reads it."""

    def __init__(self) -> None:
        self.descriptor, name = tempfile.mkstemp(prefix="bakeoff-turn-")
        self.path = Path(name)
        os.write(self.descriptor, bytes([NOBODY]))

    def taken(self) -> None:
        """Drop the file's name: the worker has mapped it, and nothing is left behind by a crash."""
        self.path.unlink(missing_ok=True)

    def who(self) -> int | None:
        """Return the index of the arm whose turn it is, or None."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        [index] = os.read(self.descriptor, 1)
        return None if index == NOBODY else index

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self.descriptor = self.descriptor, -1  # two threads may end a worker
        if descriptor >= 0:
            os.close(descriptor)
        self.path.unlink(missing_ok=True)


class TurnMarker:
    """The worker's end: `turn.at(i)` before arm `i`, less than 255, does anything."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 1)

    def at(self, index: int = NOBODY) -> None:
        """Say whose turn it is; nobody's unless an arm is given."""
        self.page[0] = index
