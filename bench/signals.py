"""Being ended: politely once, at once the second time."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
SHOW_CURSOR = b"\x1b[?25h"
"""To a terminal: what shows progress hides the cursor."""
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, what services and CI send, and a terminal that was closed; Windows lacks the last."""


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Have each signal that ends a process raise KeyboardInterrupt, and a second one end it.

    What is ignored stays ignored, as with nohup. Workers end with this process, however that ends.
    """
    first = True

    def ended(_number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if not first:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), SHOW_CURSOR)
            os._exit(INTERRUPTED)
        first = False
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    usual = {n: h for n in numbers if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
    for number in usual:
        signal.signal(number, ended)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
