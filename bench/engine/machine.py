"""This machine: one run on it at a time, and who else used it meanwhile."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import filelock
import psutil

from common.config import WORKLOADS, ModelConfig
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.cells import Cell

LOCK = "jax-bakeoff.lock"
"""File in the folder for temporary files."""
VOCABULARY = 64
"""Characters that a text has, about."""
NOTABLE = 0.1
"""Cores that another process has to keep busy, on average, to be named: less is not worth a
sentence."""


class Usage(NamedTuple):
    """Where a machine's processor time went beside a run."""

    stolen: float = 0.0
    """Fraction of all of it that the hypervisor gave to other guests."""
    others: float = 0.0
    """Fraction that other processes used."""
    busiest: str = ""
    """The program that used most, with its cores; empty where that is not worth a sentence."""


def machine_lock() -> filelock.BaseFileLock:
    """Return the lock of this machine, taken; it is given back when the process ends.

    Raises:
        BakeoffError: another run has it, and two would measure each other.
    """
    path = Path(tempfile.gettempdir()) / LOCK
    lock = filelock.FileLock(path, timeout=0, mode=0o666)  # the next run may be another user's
    owner = path.with_suffix(".owner")
    try:
        lock.acquire()
    except filelock.Timeout as error:
        try:
            process = f" (process {int(owner.read_text())})"
        except (OSError, ValueError):
            process = ""
        raise BakeoffError(
            f"another run{process} is measuring on this machine, and two would measure each other: "
            "wait until it has ended"
        ) from error
    except OSError as error:
        raise BakeoffError(f"cannot take the lock {path}: {error.strerror}") from error
    with suppress(OSError):  # another user's; it is for a message only
        owner.write_text(str(os.getpid()))
    return lock


def require_memory(cells: Iterable[Cell]) -> None:
    """Raise BakeoffError if this machine's free memory cannot hold the arms of a workload.

    A worker has weights, two moments and gradients of each arm, and of the control, in float32.
    """
    free = psutil.virtual_memory().available
    arms = Counter(cell.workload for cell in cells if cell.backend == "cpu")
    for name, number in arms.items():
        workload = WORKLOADS[name]
        model = ModelConfig(VOCABULARY, workload.width, workload.layers)
        needed = (number + 1) * 4 * 4 * model.parameters
        if needed > free:
            raise BakeoffError(
                f"{number} styles at {name} need about {needed / 1e9:.0f} GB of memory, and "
                f"{free / 1e9:.1f} GB are free: choose fewer styles, or a smaller workload"
            )


class Watch:
    """Looks at this machine once when a run begins, and once when it ends."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.before = processor_seconds()
        self.machine, self.ours = machine_seconds(), sum(os.times()[:4])

    def usage(self) -> Usage:
        """Return what others have used since then. Our children have to have ended."""
        seconds = max(1e-9, time.monotonic() - self.start)
        whole, ours = seconds * (os.cpu_count() or 1), sum(os.times()[:4]) - self.ours
        stolen, used = (a - b for a, b in zip(machine_seconds(), self.machine, strict=True))
        pids = {psutil.Process().pid}
        with suppress(psutil.Error):
            pids |= {child.pid for child in psutil.Process().children(recursive=True)}
        cores: dict[str, float] = defaultdict(float)
        for pid, (name, now) in processor_seconds().items():
            if pid not in pids:
                cores[name] += (now - self.before.get(pid, (name, 0.0))[1]) / seconds
        most = max(cores, key=cores.__getitem__, default="")
        notable = bool(most) and cores[most] >= NOTABLE
        return Usage(
            stolen / whole,
            max(0.0, used - ours) / whole,
            f"{most} ({cores[most]:.1f} cores)" if notable else "",
        )


def machine_seconds() -> tuple[float, float]:
    """Return the processor seconds of this machine so far: stolen from it, and used on it."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return getattr(times, "steal", 0.0), used


def processor_seconds() -> dict[int, tuple[str, float]]:
    """Return the name of each process and the processor seconds that it has used, by its id."""
    seconds = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            seconds[process.pid] = (str(process.info["name"]), times.user + times.system)
    return seconds
