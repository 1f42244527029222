"""What programs say on their streams: an error is one line, also where output is full."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Buffer


class OutputBytes(io.FileIO):
    """The bytes of standard output. A reader that has left raises BrokenPipeError, as ever."""

    lost = False
    """Whether something could not be written."""

    def write(self, data: Buffer, /) -> int:
        """Write to the descriptor; where it is full, say so once, and write nowhere from then on.

        So what is shown is lost, and nothing else.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            to_nowhere(self.fileno())
            if not self.lost:  # where output is captured, the descriptor may come back
                say(
                    f"cannot write to standard output: {error.strerror}; make room there, or send "
                    "it elsewhere, as with > FILE"
                )
            self.lost = True
            return len(memoryview(data))


def say(message: object) -> None:
    """Print one line on standard error, unless that is full, too."""
    try:
        print(f"bakeoff: {one_line(message)}", file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):
            to_nowhere(sys.stderr.fileno())


def one_line(message: object) -> str:
    """Return a message as one line that does not steer a terminal, whatever was given."""
    return "".join(c if c.isprintable() else " " for c in str(message))


def to_nowhere(descriptor: int) -> None:
    """Have a descriptor write to no place from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def opened(descriptor: int, like: TextIO) -> TextIO:
    """Return a text stream that writes to a descriptor, flushed as another one is."""
    like.flush()
    at_once = os.isatty(descriptor) or getattr(like, "write_through", False)
    buffered = io.BufferedWriter(OutputBytes(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffered, like.encoding, like.errors, line_buffering=at_once)


def is_lost(stream: TextIO) -> bool:
    """Tell whether what was written to a stream of `opened` did not get to its place."""
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, OutputBytes) and raw.lost


def guard() -> None:
    """Have `sys.stdout` go on where it is full; one that is closed goes nowhere."""
    if sys.stdout is None:  # `>&-`, which also lets the next file be descriptor 1
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        return
    sys.stdout = opened(sys.stdout.fileno(), sys.stdout)
