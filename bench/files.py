"""Files that a user names: read within a limit, written whole or not at all.

`read_regular` never blocks, as a named pipe would, and never reads without end, as /dev/zero would.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows, where what a killed process leaves stays
    fcntl = None  # type: ignore[assignment]

from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a character device, not a regular file",
    stat.S_IFBLK: "is a block device, not a regular file",
}
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, and of a quota that is used up."""
MIB = 1 << 20
MOST_JSON = 1 << 30
"""Largest run file or journal that is read, in bytes; a day of samples has less."""


class UnfitFileError(OSError):
    """A file of a kind or size that is not read; `strerror` says which."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EINVAL, what)


class LargeFileError(UnfitFileError):
    """A regular file with more bytes than are allowed."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"has {size / MIB:,.0f} MiB; at most {most // MIB} MiB are allowed")


def require_regular(about: os.stat_result) -> None:
    """Raise UnfitFileError unless `about`, a result of `path.stat()`, is of a regular file."""
    if not stat.S_ISREG(about.st_mode):
        raise UnfitFileError(KINDS.get(stat.S_IFMT(about.st_mode), "is not a regular file"))


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file, at most `most`; a link is followed.

    Raises:
        LargeFileError: it has more bytes, or grows to more while it is read.
        UnfitFileError: it is not a regular file, or has a size of zero and is not empty, as files
            below /proc do: how much such a file holds, and whether it ends, is not known before.
        OSError: there is no such file, or it cannot be read.
    """
    require_regular(path.stat())  # opening a device can have effects
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:  # noqa: PTH123 -- a descriptor
        about = os.fstat(file.fileno())
        require_regular(about)
        if about.st_size > most:
            raise LargeFileError(about.st_size, most)
        if about.st_size == 0:
            if file.read(1) != b"":  # None where there would be something to wait for
                raise UnfitFileError("claims to be empty and is not, as files of /proc do")
            return b""
        parts, left = [], most + 1
        while left and (part := file.read(min(left, MIB))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise LargeFileError(most + 1, most)
        return b"".join(parts)


@contextmanager
def partial_file(path: Path, name: Callable[[Path, Path], object] = os.replace) -> Iterator[Path]:
    """Yield a path to write a file at; `name` moves it to `path` when all of it is on the disk.

    It is locked until then. Such files without a lock were left by killed processes; they go.
    """
    for left in path.parent.glob(".bakeoff-*.partial"):
        with suppress(OSError), lock_file(left):
            left.unlink()
    partial = path.with_name(f".bakeoff-{secrets.token_hex(8)}.partial")
    partial.touch(exist_ok=False)
    try:
        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(lock_file(partial))
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            name(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def lock_file(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a file's lock, which ends with the process; raise OSError if another one holds it.

    Several may hold it `shared`.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with path.open("r+b") as file:  # as locks of NFS need it
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write a file that appears complete or not at all; replace it if it exists."""
    with partial_file(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def require_new(path: Path, option: str) -> None:
    """Raise BakeoffError unless a new file can be written at `path`, which `option` gave."""
    given = f"{option} {shorten(path)}"
    if _exists(path, option):
        raise BakeoffError(f"{given} exists already; files are never overwritten: name a new one")
    if not path.parent.exists():
        raise BakeoffError(f"{given}: there is no folder {shorten(path.parent)}; make it first")
    _require_writable(path.parent, given)


def require_folder_to_be(folder: Path, given: str, advice: str = "name another one") -> None:
    """Raise BakeoffError unless `folder` takes new files, or can be made with its parents.

    Nothing is made. The message names what was `given`, and ends in an advice.
    """
    nearest = folder
    while not _exists(nearest, given):
        nearest = nearest.parent
    _require_writable(nearest, f"{given} {shorten(folder)}", advice)


def _exists(path: Path, option: str) -> bool:
    try:
        path.lstat()  # of a link itself, since a link would be replaced
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        problem = f"{option} {shorten(path)}: {error.strerror}; name another one"
        raise BakeoffError(problem) from error
    return True


def _require_writable(folder: Path, given: str, advice: str = "name another one") -> None:
    """Make a temporary file: permissions do not bind root, and say nothing about /proc."""
    problem = f"{shorten(folder)} is not a folder"
    if folder.is_dir():
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            problem = f"the folder {shorten(folder)} takes no new files ({error.strerror})"
        else:
            return
    raise BakeoffError(f"{given}: {problem}; {advice}")
