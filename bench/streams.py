"""Messages on standard error, one line each, and texts from outside on standard output."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def say(message: object) -> None:
    """Print one line on standard error, if it can be written."""
    try:
        print(f"bakeoff: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):
            discard_output(sys.stderr.fileno())


def print_text(text: str) -> None:
    """Print a text that may hold any character; a terminal obeys none but line breaks and tabs."""
    if sys.stdout.isatty():
        safe = (c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
        text = "".join(safe)
    print(text, flush=True)


def one_line(message: object) -> str:
    """Return a message as one line, with a space for each character that is not printable."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def discard_output(descriptor: int) -> None:
    """Redirect a descriptor to the null device, for Python's own last flush too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
