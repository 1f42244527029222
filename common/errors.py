"""The one exception for what a user got wrong: its text is the whole message, on one line."""

from collections.abc import Iterable


class BakeoffError(Exception):
    """A mistake in what was given; the message says what was given, what is allowed, what to do."""

    exit_status = 2


def unknown(kind: str, given: str, known: Iterable[str]) -> BakeoffError:
    """Return the error for a name that is not one of `known`, e.g. an entrant or a style."""
    return BakeoffError(f"unknown {kind} {given!r}; known: {', '.join(known)}; choose one of them")
