"""The one exception for what a user got wrong: its text is the whole message, on one line."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

NAME_BYTES = 255
"""Of a file or folder, as all common file systems have it."""
LONG = 200
"""Characters from which on a path, or another library's message, is shortened."""


class BakeoffError(Exception):
    """A mistake in what was given; the message says what was given, what is allowed, what to do."""

    exit_status = 2


class LostPeerError(BakeoffError):
    """Another process has gone; this one cannot go on alone, nor say goodbye to it."""

    exit_status = 1


class InterruptedRunError(BakeoffError):
    """Ctrl-C; what was done is kept, and the message says how to go on."""

    exit_status = 130


def unknown(kind: str, given: str, known: Iterable[str]) -> BakeoffError:
    """Return the error for a name that is not one of `known`, e.g. an entrant or a style."""
    return BakeoffError(f"unknown {kind} {given!r}; known: {', '.join(known)}; choose one of them")


def words_of(error: BaseException) -> str:
    """Return what another library's error says, on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def shortened(name: object) -> str:
    """Return a path for a message: its beginning and end where it is long."""
    text = str(name)
    return text if len(text) <= LONG else f"{text[:60]}…{text[-20:]}"


def place_error(option: str, path: Path, error: OSError) -> BakeoffError:
    """Return the error for a path that cannot be used, whatever it is; `option` takes it."""
    given = f"{option} {shortened(path)}"
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if error.errno == errno.ENAMETOOLONG and longest > NAME_BYTES:
        return BakeoffError(
            f"{given}: the name has {longest} bytes; at most {NAME_BYTES} are allowed: "
            "name a shorter one"
        )
    return BakeoffError(f"{given}: {error.strerror}; name another one")


def require_new(path: Path, option: str) -> None:
    """Raise BakeoffError if there is something at `path`, or nowhere to put it.

    Whether the folder takes new files is tried: permissions do not bind root, and do not tell of
    /proc.
    """
    try:
        path.lstat()  # of a link: it would be replaced
    except (FileNotFoundError, NotADirectoryError):
        require_folder(path, option)
    except OSError as error:
        raise place_error(option, path, error) from error
    else:
        raise BakeoffError(
            f"{option} {shortened(path)} exists already; files are never overwritten: "
            "name a new one"
        )


def require_folder(path: Path, option: str) -> None:
    """Raise BakeoffError unless the folder of `path` takes new files."""
    folder = path.parent
    if not folder.is_dir():
        problem = f"there is no folder {shortened(folder)}; make it first"
        if folder.exists():
            problem = f"{shortened(folder)} is not a folder; name another one"
        raise BakeoffError(f"{option} {shortened(path)}: {problem}")
    _require_writable(folder, f"{option} {shortened(path)}")


def require_folder_to_be(folder: Path, option: str) -> None:
    """Raise BakeoffError unless `folder` takes new files, or can be made with all that is above it.

    Nothing is made.
    """
    there, given = folder, f"{option} {shortened(folder)}"
    while True:
        try:
            there.lstat()
            break
        except (FileNotFoundError, NotADirectoryError):
            there = there.parent
        except OSError as error:
            raise place_error(option, folder, error) from error
    if not there.is_dir():
        raise BakeoffError(f"{given}: {shortened(there)} is not a folder; name another one")
    _require_writable(there, given)


def _require_writable(folder: Path, given: str) -> None:
    import tempfile  # here, since it would add to the import time that is measured

    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BakeoffError(
            f"{given}: the folder {shortened(folder)} takes no new files ({error.strerror}); "
            "name another one"
        ) from error
