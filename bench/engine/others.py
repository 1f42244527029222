"""Which other process used this machine during a run."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

import psutil

NOTABLE = 0.1
"""Of a core: less is not worth a sentence."""


class Busy(NamedTuple):
    """A process that is not ours."""

    name: str
    cores: float
    """That it kept busy, on the average."""


class Others:
    """Looks once when a run begins, and once when it ends."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.before = processor_seconds()

    def busiest(self) -> Busy | None:
        """Return the process that used most since then; None if none used a notable part."""
        ours = {psutil.Process().pid}
        with suppress(psutil.Error):
            ours |= {child.pid for child in psutil.Process().children(recursive=True)}
        seconds = max(1e-9, time.monotonic() - self.start)
        used = {
            pid: Busy(name, (now - self.before.get(pid, (name, 0.0))[1]) / seconds)
            for pid, (name, now) in processor_seconds().items()
            if pid not in ours
        }
        most = max(used.values(), key=lambda busy: busy.cores, default=None)
        return most if most is not None and most.cores >= NOTABLE else None


def processor_seconds() -> dict[int, tuple[str, float]]:
    """Return the name of each process and the processor seconds that it has used."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            found[process.pid] = (str(process.info["name"]), times.user + times.system)
    return found
