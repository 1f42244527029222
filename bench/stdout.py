"""Standard output: where it cannot be written to, that is one error with one line."""

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


class Raw(io.FileIO):
    """The bytes of standard output. A reader that has left raises BrokenPipeError, as ever."""

    def write(self, data: Buffer, /) -> int:
        """Write to the descriptor.

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
            raise OutputError(
                f"cannot write to standard output: {error.strerror}; make room there, or send it "
                "elsewhere, as with > FILE"
            ) from error


def to_nowhere(descriptor: int) -> None:
    """Have a descriptor write to no place from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def opened(descriptor: int, like: TextIO, kind: type[Raw] = Raw) -> TextIO:
    """Return a text stream that writes to a descriptor, buffered as another one is."""
    raw = kind(descriptor, "w", closefd=False)
    unbuffered = isinstance(getattr(like, "buffer", None), io.RawIOBase)
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        like.encoding,
        like.errors,
        line_buffering=os.isatty(descriptor),
        write_through=unbuffered,
    )


class Lenient(Raw):
    """Bytes of standard output that are lost, with one line on standard error, where it is full."""

    lost = False

    def write(self, data: Buffer, /) -> int:
        """Write to the descriptor, or nowhere."""
        try:
            return super().write(data)
        except OutputError as error:
            if not self.lost:
                print(f"bakeoff: {error}", file=sys.stderr, flush=True)
            self.lost = True
            return len(memoryview(data))


def lenient(like: TextIO) -> TextIO:
    """Return a stream to the same place that says once where that cannot be written to.

    What is no file, as in a test, stays as it is.
    """
    try:
        descriptor = like.fileno()
        like.flush()
    except (OSError, ValueError):
        return like
    return opened(descriptor, like, Lenient)


def is_lost(stream: TextIO) -> bool:
    """Tell whether what was written to a lenient stream did not get to its place."""
    stream.flush()
    buffer = getattr(stream, "buffer", None)
    return bool(getattr(getattr(buffer, "raw", buffer), "lost", False))


def guard() -> None:
    """Have `sys.stdout` raise OutputError; one that is closed goes nowhere."""
    if sys.stdout is None:  # `>&-`, which also lets the next file be descriptor 1
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        return
    sys.stdout.flush()
    sys.stdout = opened(sys.stdout.fileno(), sys.stdout)


def flushed() -> None:
    """Write what is still held back; raises BrokenPipeError and OutputError."""
    if sys.stdout is not None:
        sys.stdout.flush()
