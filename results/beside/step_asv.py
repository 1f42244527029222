"""The task as asv has it; `tools.py` puts in the calls of a sample, and a process's seconds."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from side import WAIT  # type: ignore[import-not-found]  # what the two commits differ in

if TYPE_CHECKING:
    from collections.abc import Callable


@cache
def make_once() -> Callable[[], None]:
    """Return the compiled step; its imports take seconds, which asv's search can do without."""
    from results.beside.task import make_step

    return make_step(WAIT)


class TimeStep:
    """Time a side's step, in two rounds of processes, as asv does."""

    number = int("NUMBER")
    repeat = (10, 100_000, float("SECONDS"))
    timeout = 300

    def setup(self) -> None:
        """Compile the step, once: asv calls this before each of its samples."""
        self.step = make_once()

    def time_step(self) -> None:
        """Call it."""
        self.step()
