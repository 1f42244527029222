"""The one exception for what a user got wrong: its text is the whole message, on one line."""

from collections.abc import Iterable
from pathlib import Path


class BakeoffError(Exception):
    """A mistake in what was given; the message says what was given, what is allowed, what to do."""

    exit_status = 2


class LostPeerError(BakeoffError):
    """Another process has gone; this one cannot go on alone, nor say goodbye to it."""

    exit_status = 1


def unknown(kind: str, given: str, known: Iterable[str]) -> BakeoffError:
    """Return the error for a name that is not one of `known`, e.g. an entrant or a style."""
    return BakeoffError(f"unknown {kind} {given!r}; known: {', '.join(known)}; choose one of them")


def require_new(path: Path, option: str) -> None:
    """Raise BakeoffError if there is something at `path`, or nowhere to put it."""
    if path.exists():
        raise BakeoffError(
            f"{option} {path} exists already; files are never overwritten: name a new one"
        )
    if not path.parent.is_dir():
        raise BakeoffError(f"{option} {path}: there is no folder {path.parent}; make it first")
