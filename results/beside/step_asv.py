"""The task as asv has it; `tools.py` puts the seconds of a process in."""

import os
from functools import cache

from results.beside.task import make_step

make_once = cache(make_step)


class TimeStep:
    """Time a side's step, in two rounds of processes, as asv does."""

    repeat = (10, 100_000, float("SECONDS"))
    timeout = 300

    def setup(self) -> None:
        """Compile the step, once: asv calls this before each of its samples."""
        self.step = make_once(float(os.environ["BESIDE_WAIT"]))

    def time_step(self) -> None:
        """Call it."""
        self.step()
