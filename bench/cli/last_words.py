"""What is said where JAX's runtime ends this process, which then has no chance to say anything."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WITNESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.read() or print(sys.argv[1], file=sys.stderr)
"""
"""Reads a pipe to its end: whoever ends in an orderly way has written something into it."""


@contextmanager
def last_words(message: str) -> Iterator[None]:
    """Have a message printed if this process ends while this is open, whatever ended it."""
    witness = subprocess.Popen(  # noqa: S603 -- the text above
        [sys.executable, "-S", "-E", "-c", WITNESS, message], stdin=subprocess.PIPE
    )
    try:
        yield
    finally:
        witness.communicate(b".")
