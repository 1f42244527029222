"""What programs say on standard error: one line, which does not steer a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def say(message: object) -> None:
    """Print one line on standard error, unless that is full."""
    try:
        print(f"bakeoff: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):
            to_nowhere(sys.stderr.fileno())


def one_line(message: object) -> str:
    """Return a message as one line that does not steer a terminal, whatever was given."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def to_nowhere(descriptor: int) -> None:
    """Have a descriptor write to no place from now on, Python's own last flush included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
