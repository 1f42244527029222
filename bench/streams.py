"""Standard streams and signals of this process: messages of one line, and how it is ended."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from common.errors import LONG, mask_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
SHOW_CURSOR = b"\x1b[?25h"
"""Terminal sequence that shows the cursor again, which progress displays hide."""
END_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals of Ctrl-C, of services and CI, and of a closed terminal; Windows lacks the last."""


SIMPLER = "simpler"
"""Way to encode a text for an encoding that lacks some of its signs."""
SIMPLE_SIGNS = {"▲": "^", "▼": "v", "±": "+-", "≤": "<=", "→": "->", "–": "-", "µ": "u"}
"""Sign that an encoding may lack → what stands for it."""


def replace_signs(error: UnicodeError) -> tuple[str, int]:
    """Return signs that mean the same where an encoding lacks them, else `?`.

    A question mark before a number would mean that it is undecided.
    """
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(SIMPLE_SIGNS.get(sign, "?") for sign in signs), error.end


codecs.register_error(SIMPLER, replace_signs)


def prepare_streams() -> None:
    """Let standard output take any text, also what its encoding lacks; open closed streams.

    A closed stream (`>&-`) would let the next file take its descriptor, and with it what is printed
    there; a closed standard error would have messages printed on standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=SIMPLER)


def say(message: object) -> None:
    """Print one line on standard error, if it can be written."""
    try:
        print(f"bakeoff: {mask_secrets(one_line(message))}", file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError):
            discard_output(sys.stderr.fileno())


def has_lost_terminal() -> bool:
    """Tell whether standard output or error is a terminal that was closed since: it takes nothing.

    Such a terminal refuses even no bytes, and no file does.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            os.write(stream.fileno(), b"")
        except OSError as error:
            if error.errno == errno.EIO:
                return True
    return False


def print_text(text: str) -> None:
    """Print a text that may hold any character; a terminal obeys none but line breaks and tabs."""
    if sys.stdout.isatty():
        safe = (c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
        text = "".join(safe)
    print(text, flush=True)


def shorten_message(error: BaseException) -> str:
    """Return the message of another library's error on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONG else f"{text[:LONG]}…"


def one_line(message: object) -> str:
    """Return a message as one line, with a space for each character that is not printable."""
    return "".join(c if c.isprintable() else " " for c in replace_bytes(message))


def replace_bytes(text: object) -> str:
    """Return a text with `?` for each byte of a file's name that is not UTF-8: no JSON has one."""
    return str(text).encode(errors="replace").decode()


def clean_argument(word: object) -> str:
    """Return a word of a command line as run files keep it: readable, and without secrets."""
    return mask_secrets(replace_bytes(word))


def read_arguments() -> list[str]:
    """Return the words of this process's command line, as run files keep them."""
    return list(map(clean_argument, sys.argv[1:]))


def discard_output(descriptor: int) -> None:
    """Redirect a descriptor to the null device, for Python's own last flush too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Have the first signal to end raise KeyboardInterrupt, and a second one end the process.

    Ignored signals stay ignored, as with nohup. Workers end with this process, however that ends.
    """
    first = True

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if not first:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR)
            os._exit(INTERRUPTED)
        first = False
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in END_SIGNALS if hasattr(signal, name)]
    usual = {n: h for n in numbers if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
    for number in usual:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
