"""Errors for wrong use: the text of each is its whole message, on one line."""

import errno
import re
from collections.abc import Iterable
from pathlib import Path

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, and of a quota that is used up."""
LONG = 200
"""Longest path, vocabulary or message of another library that is shown whole, in characters."""


class BakeoffError(Exception):
    """A mistake in what was given; the message says what was given, what is allowed, what to do."""

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(mask_secrets(message))


class InterruptedRunError(BakeoffError):
    """A run that Ctrl-C ended; its results are kept, and the message says how to go on."""

    exit_status = 130


def mask_secrets(text: str) -> str:
    """Return a text with stars in place of passwords and tokens in URLs.

    The user of an ssh address is no secret; that of any other may be a token. A password may have
    been written with characters that no URL has, and a token may be a value of the query.
    """
    text = re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1:***@", text)
    text = re.sub(r"(://[^/\s:@]+):(?!\*|\d+(/|\b))[^@\n]{1,200}@", r"\1:***@", text)
    text = re.sub(r"(?<!ssh)://[^/\s]*@", "://***@", text)
    text = re.sub(
        r"([?&;#](?:pat|sig|auth|[^=&;\s]*(?:token|key|secret|passw|credential|signature)[^=&;\s]*))"
        r"=[^&\s`'\"]+",
        r"\1=***",
        text,
        flags=re.IGNORECASE,
    )
    return re.sub(r"(git\+\S*?#)[^\s`'\",]+", r"\1***", text)


def unknown(kind: str, given: str, known: Iterable[str]) -> BakeoffError:
    """Return the error for a name that is not one of `known`, e.g. an entrant or a style."""
    return BakeoffError(f"unknown {kind} {given!r}; known: {', '.join(known)}; choose one of them")


def shorten_message(error: BaseException) -> str:
    """Return the message of another library's error on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def shorten(name: object) -> str:
    """Return a path or text for a message: its beginning and end if it is long."""
    text = str(name)
    return text if len(text) <= LONG else f"{text[:60]}…{text[-20:]}"


def require_utf8(path: Path, given: str) -> None:
    """Raise BakeoffError unless a file's path is UTF-8: neither JAX nor JSON takes another."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        problem = f"its path {shorten(ascii(str(path)))} is not UTF-8"
        raise BakeoffError(f"{given}: {problem}; rename the file or its folder") from None


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
    import tempfile  # here, since it would add to the import time that is measured

    problem = f"{shorten(folder)} is not a folder"
    if folder.is_dir():
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            problem = f"the folder {shorten(folder)} takes no new files ({error.strerror})"
        else:
            return
    raise BakeoffError(f"{given}: {problem}; {advice}")
