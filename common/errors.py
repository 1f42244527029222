"""Errors for wrong use: the text of each is its whole message, on one line."""

import re
from collections.abc import Iterable
from pathlib import Path

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
