"""This machine: its lock, the cores for workers, a folder for their programs, and use by others."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import psutil

from bench.runfile import TimeSpent
from bench.streams import say
from bench.worker.settings import affinity
from common.errors import BakeoffError
from common.files import atomic_write, read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.samples import Cores

LONGEST_PID = 20
"""Longest process id that is read, in characters."""
LOCK = "jax-bakeoff.lock"
"""Name of the lock's file, in the folder for temporary files."""
CACHE_PREFIX = "bakeoff-compiled-"
"""Beginning of the names of folders for compiled programs, which lie beside the lock."""
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""File that lists the hardware threads that share a core, on Linux."""
WAIT_SECONDS = 0.5
"""Seconds between two looks at another run's lock: each takes some microseconds of its time."""
NOTABLE = 0.1
"""Mean number of cores that a process has to use to be named: less is not worth a sentence."""


def machine_lock(*, wait: bool = False) -> filelock.AcquireReturnProxy:
    """Take the lock of this machine, which a `with` or the end of the process gives back.

    A process may take it several times, and then gives it back as often.

    Args:
        wait: Whether to wait until another run gives it back, and say so on standard error.

    Raises:
        BakeoffError: another run has it, and two would measure each other.
    """
    path = Path(tempfile.gettempdir()) / LOCK
    # The next run may be another user's
    lock = filelock.FileLock(path, timeout=0, mode=0o666, is_singleton=True)
    owner = path.with_suffix(".owner")
    try:
        try:
            taken = lock.acquire()
        except filelock.Timeout as error:
            process = ""
            with suppress(OSError, ValueError):
                process = f" (process {int(read_regular(owner, LONGEST_PID))})"
            if not wait:
                raise BakeoffError(
                    f"another run{process} is measuring on this machine, and two would measure "
                    "each other: wait until it has ended, or give --wait"
                ) from error
            say(f"waiting for another run{process} that is measuring on this machine")
            taken = lock.acquire(timeout=-1, poll_interval=WAIT_SECONDS)
    except OSError as error:
        raise BakeoffError(f"cannot take the lock {path}: {error.strerror}") from error
    with suppress(OSError):
        atomic_write(owner, str(os.getpid()))  # over a link that anybody may have put there
    if lock.lock_counter == 1:  # nobody measures here, so these are of runs that were killed
        for left in path.parent.glob(f"{CACHE_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
    return taken


def make_cache() -> Path:
    """Return a new folder for compiled programs; raise BakeoffError if there is no place for it."""
    try:
        return Path(tempfile.mkdtemp(prefix=CACHE_PREFIX))
    except OSError as error:
        raise BakeoffError(
            f"no folder for compiled programs can be made in {tempfile.gettempdir()}: "
            f"{error.strerror}; make room there, or set TMPDIR to another place"
        ) from error


def list_lanes() -> list[Cores]:
    """Return a core for each worker that may run at the same time as others.

    On two or three cores, there are two: two pinned workers are steadier than one alone, since a
    virtual CPU that never halts is never woken up. On more, half of the cores, with one hardware
    thread each, which leaves room for other processes. Where the system cannot pin a process, there
    is one lane without cores.
    """
    cores = affinity()
    if not cores:
        return [()]
    chosen = cores[:2] if len(cores) <= 3 else pick_threads(cores)[: len(cores) // 2]
    return [(core,) for core in chosen]


def pick_threads(cores: Sequence[int]) -> list[int]:
    """Return one hardware thread of each core; all threads where the system does not tell."""
    threads: dict[str, int] = {}
    for core in cores:
        try:
            siblings = Path(SIBLINGS.format(core)).read_text("ascii").strip()
        except OSError:
            siblings = str(core)
        threads.setdefault(siblings, core)
    return list(threads.values())


class Watch:
    """Use of this machine between the beginning and the end of a run."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.before = read_processor_seconds()
        self.machine, self.ours = read_machine_seconds(), sum(os.times()[:4])

    def usage(self) -> TimeSpent:
        """Return the use by others since the beginning, once our children have ended."""
        seconds = max(1e-9, time.monotonic() - self.start)
        whole, ours = seconds * (os.cpu_count() or 1), sum(os.times()[:4]) - self.ours
        stolen, used = (a - b for a, b in zip(read_machine_seconds(), self.machine, strict=True))
        pids = {psutil.Process().pid}
        with suppress(psutil.Error):
            pids |= {child.pid for child in psutil.Process().children(recursive=True)}
        cores: dict[str, float] = defaultdict(float)
        for pid, (name, now) in read_processor_seconds().items():
            if pid not in pids:
                cores[name] += (now - self.before.get(pid, (name, 0.0))[1]) / seconds
        most = max(cores, key=cores.__getitem__, default="")
        notable = bool(most) and cores[most] >= NOTABLE
        return TimeSpent(
            stolen=min(1.0, max(0.0, stolen) / whole),
            others=max(0.0, used - ours) / whole,
            busiest=f"{most} ({cores[most]:.1f} cores)" if notable else "",
        )


def read_machine_seconds() -> tuple[float, float]:
    """Return this machine's processor seconds so far: those stolen, and those used on it."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return getattr(times, "steal", 0.0), used


def read_processor_seconds() -> dict[int, tuple[str, float]]:
    """Return id → name of a process, and the processor seconds that it has used."""
    seconds = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            seconds[process.pid] = (str(process.info["name"]), times.user + times.system)
    return seconds
