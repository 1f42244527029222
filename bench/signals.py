"""Signals that end a process: the first is polite, the second ends it at once."""

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
"""Terminal sequence that shows the cursor again, which progress displays hide."""
END_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals of Ctrl-C, of services and CI, and of a closed terminal; Windows lacks the last."""


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
