"""What programs say on their streams: an error is one line, also where output is full."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Buffer


class OutputError(BakeoffError):
    """Standard output cannot be written to, as on a disk that is full."""


class OutputBytes(io.FileIO):
    """The bytes of standard output. A reader that has left raises BrokenPipeError, as ever."""

    lenient = False
    """Whether a full disk costs one line on standard error instead of an OutputError."""
    lost = False
    """Whether something could not be written."""

    def write(self, data: Buffer, /) -> int:
        """Write to the descriptor, or nowhere.

        Raises:
            OutputError: the system refuses. What else is written then goes nowhere, so that
                nothing is said twice, nor by Python's own flush when it ends.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            to_nowhere(self.fileno())
            full = OutputError(
                f"cannot write to standard output: {error.strerror}; make room there, or send it "
                "elsewhere, as with > FILE"
            )
            if not self.lenient:
                raise full from error
            if not self.lost:  # where output is captured, the descriptor may come back
                print(f"bakeoff: {full}", file=sys.stderr, flush=True)
            self.lost = True
            return len(memoryview(data))


def one_line(message: object) -> str:
    """Return a message as one line that does not steer a terminal, whatever was given."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def to_nowhere(descriptor: int) -> None:
    """Have a descriptor write to no place from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def opened(descriptor: int, like: TextIO, *, lenient: bool = False) -> TextIO:
    """Return a text stream that writes to a descriptor, flushed as another one is."""
    like.flush()
    raw = OutputBytes(descriptor, "w", closefd=False)
    raw.lenient = lenient
    at_once = os.isatty(descriptor) or getattr(like, "write_through", False)
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, like.encoding, like.errors, line_buffering=at_once)


def is_lost(stream: TextIO) -> bool:
    """Tell whether what was written to a stream of `opened` did not get to its place."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, OutputBytes) and raw.lost


def guard() -> None:
    """Have `sys.stdout` raise OutputError; one that is closed goes nowhere."""
    if sys.stdout is None:  # `>&-`, which also lets the next file be descriptor 1
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        return
    sys.stdout = opened(sys.stdout.fileno(), sys.stdout)
