"""Messages on standard error: one line each, without control characters."""

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


def one_line(message: object) -> str:
    """Return a message as one line, with a space for each character that is not printable."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def discard_output(descriptor: int) -> None:
    """Redirect a descriptor to the null device, for Python's own last flush too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
