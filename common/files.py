"""Files that a user names: read without waiting and within a limit, and written under a short name.

`read_regular` never blocks, as a named pipe would, and never reads without end, as /dev/zero would.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a character device, not a regular file",
    stat.S_IFBLK: "is a block device, not a regular file",
}
MIB = 1 << 20
MOST_JSON = 1 << 30
"""Bytes of a run file, a journal or a plan: a day of samples has less."""
STEM_BYTES = 200
"""Of a file's name in the names of its temporary files; file systems allow 255 bytes in all."""


class UnfitFileError(OSError):
    """A file that is not read, whatever its permissions; `strerror` says what it is."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EINVAL, what)


class LargeFileError(UnfitFileError):
    """A regular file with more bytes than are allowed."""


def require_regular(path: Path) -> None:
    """Raise UnfitFileError if `path` is no regular file, and OSError if there is none."""
    _check(path.stat())


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: Of the file; a link is followed.
        most: Bytes that are read at most, also of a file that grows meanwhile.

    Raises:
        LargeFileError: it has more bytes.
        UnfitFileError: it is no regular file, or says that it is empty and is not, as files below
            /proc do: how much such a file holds, and whether it ends, cannot be known before.
        OSError: there is no such file, or it cannot be read.
    """
    _check(path.stat())  # opening a device can have effects of its own
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:  # noqa: PTH123 -- a descriptor
        about = os.fstat(file.fileno())
        _check(about)
        if about.st_size > most:
            raise _large(about.st_size, most)
        if about.st_size == 0:
            if file.read(1) != b"":  # None where there would be something to wait for
                raise UnfitFileError("claims to be empty and is not, as files of /proc do")
            return b""
        parts, left = [], most + 1
        while left and (part := file.read(min(left, MIB))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise _large(most + 1, most)
        return b"".join(parts)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield where to write a file, which gets its name when all of it is on the disk."""
    partial = path.with_name(f".{stem(path)}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write a file that appears complete or not at all; replace it if it exists."""
    with partial_file(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def stem(path: Path) -> str:
    """Return a file's name, or its beginning, for a temporary file whose name is not too long."""
    return os.fsencode(path.name)[:STEM_BYTES].decode("utf-8", "ignore")


def _check(about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = KINDS.get(stat.S_IFMT(about.st_mode), "is not a regular file")
        raise UnfitFileError(kind)


def _large(size: int, most: int) -> LargeFileError:
    return LargeFileError(f"has {size / MIB:,.0f} MiB; at most {most // MIB} MiB are allowed")
