"""This machine: its lock, the cores for workers, a folder for their programs, and use by others."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.files import lock_file
from bench.runfile import TimeSpent
from bench.streams import say
from bench.worker.settings import affinity
from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.engine.process import Worker
    from bench.samples import Cores

LOCK = "jax-bakeoff.lock"
"""Name of the lock's file."""
SHARED_FOLDER = Path("/tmp")  # noqa: S108 -- a lock's name has to be known to other processes
"""Folder of the lock, the same for all users and processes, whatever their TMPDIR is."""
LOCK_FOLDER_VARIABLE = "BAKEOFF_LOCK_FOLDER"
"""Variable by which tests, which measure nothing of worth, have a lock of their own."""
FOLDER_PREFIX = "bakeoff-"
"""Beginning of the names of temporary folders."""
OWNER = "owner.lock"
"""File in a temporary folder that is locked until its process ends."""
TICK_SECONDS = 0.01
"""Seconds in which Linux counts what a core does."""
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
"""File that lists the hardware threads that share a core, on Linux."""
TICKET = re.compile(rf"{re.escape(LOCK)}\.(\d{{1,20}})\.(\d{{1,10}})")
"""Pattern of a ticket's name, beside the lock: the nanosecond at which a run asked for the machine,
and its process id."""
WAIT_SECONDS = 0.5
"""Seconds between two looks at an earlier ticket: each takes some microseconds of another run's
time."""
LOOK_SECONDS = 0.05
"""Seconds after which a lock is tried again: another process may have looked whether it is free,
which takes microseconds."""
MOST_OF_OTHERS = 0.5
"""Fraction of the time that others used which a process needs to be named: a smaller one explains
little, and many short processes leave no name."""
MOST_BESIDE = 0.1
"""Largest fraction of the cores that others may use while something is timed in which no call tells
that alone: a start, or steps on all cores. Beside one endless loop on two cores it is 0.3 to 0.5,
and a step takes a quarter longer and more; in a quiet hour it is below 0.05."""
NOTABLE = 0.1
"""Mean number of cores that a process has to use to be named: less is not worth a sentence."""


@contextmanager
def machine_lock(*, wait: bool = False) -> Iterator[None]:
    """Hold the lock of this machine, which ends with the process.

    Runs that come later get it in their order: each has a ticket, a locked file whose name says
    when it came, from when it asks for the machine until it gives it back. The first one measures.

    Args:
        wait: Whether to wait for the runs before this one, and say so on standard error.

    Raises:
        BakeoffError: another run has it, and two would measure each other.
    """
    told = ""
    with ExitStack() as held:
        with reach_lock() as path:
            ticket = held.enter_context(take_ticket(path))
            ahead = list_tickets(path)
            del ahead[[row[-1] for row in ahead].index(ticket) :]
            while not drop_ended(ahead) or not take_lock(held, path):
                if not wait:
                    raise make_refusal(path, ahead)
                holder, doing = describe_holder(path, ahead)
                words = f"waiting for another run{holder} that {doing}"
                if words != told:
                    say(told := words)
                time.sleep(WAIT_SECONDS)
        for left in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
            with suppress(OSError), lock_file(left / OWNER):  # its run was killed
                shutil.rmtree(left)
        yield


def require_free_machine() -> None:
    """Raise BakeoffError if another run has this machine; nobody else notices this look."""
    with reach_lock() as path:
        if is_locked(path):
            tickets = list_tickets(path)
            drop_ended(tickets)
            raise make_refusal(path, tickets)


def find_lock_folder() -> Path:
    """Return the folder of this machine's locks; that of temporary files if no other takes any."""
    if given := os.environ.get(LOCK_FOLDER_VARIABLE):
        return Path(given)
    is_writable = os.access(SHARED_FOLDER, os.W_OK | os.X_OK)
    return SHARED_FOLDER if is_writable else Path(tempfile.gettempdir())


@contextmanager
def reach_lock() -> Iterator[Path]:
    """Yield the file of this machine's lock; raise BakeoffError where it cannot be used."""
    path = find_lock_folder() / LOCK
    try:
        with suppress(FileExistsError):
            make_shared_file(path)
        yield path
    except OSError as error:
        raise BakeoffError(f"cannot take the lock {path}: {error.strerror or error}") from error


def make_refusal(path: Path, ahead: Sequence[tuple[int, int, Path]]) -> BakeoffError:
    """Return the error that another run has this machine, or comes first."""
    holder, doing = describe_holder(path, ahead)
    return BakeoffError(
        f"another run{holder} {doing}, and two would measure each other: wait until it has ended, "
        "or give --wait"
    )


def make_shared_file(path: Path) -> None:
    """Make an empty file that all users may lock; raise FileExistsError if the name is taken."""
    path.touch(exist_ok=False)
    path.chmod(0o666)


@contextmanager
def take_ticket(lock: Path) -> Iterator[Path]:
    """Yield a new ticket of this process beside the machine's lock; it is locked, and then goes."""
    with ExitStack() as held:
        while True:
            ticket = lock.with_name(f"{LOCK}.{time.time_ns()}.{os.getpid()}")
            make_shared_file(ticket)
            with suppress(BlockingIOError, FileNotFoundError):
                held.enter_context(lock_file(ticket))
                if ticket.exists():  # or another run took it for a dead one's, and removed it
                    break
        try:
            yield ticket
        finally:
            ticket.unlink(missing_ok=True)


def list_tickets(lock: Path) -> list[tuple[int, int, Path]]:
    """Return the time, process id and path of each ticket, in their order."""
    found = ((TICKET.fullmatch(path.name), path) for path in lock.parent.glob(f"{LOCK}.*"))
    return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)


def drop_ended(ahead: list[tuple[int, int, Path]]) -> bool:
    """Remove the tickets before the first held one; tell whether none is left."""
    while ahead:
        path = ahead[0][-1]
        try:
            with lock_file(path):  # its run was killed
                path.unlink()
        except BlockingIOError:
            return False
        except OSError:  # it has gone, or is no ticket
            pass
        ahead.pop(0)
    return True


def take_lock(held: ExitStack, path: Path) -> bool:
    """Have a file locked until the end of a block, unless another process has it locked."""
    for _ in range(2):
        with suppress(BlockingIOError):
            held.enter_context(lock_file(path))
            return True
        time.sleep(LOOK_SECONDS)
    return False


def is_locked(path: Path) -> bool:
    """Tell whether a run has a file locked; two that only look do not see each other."""
    try:
        with lock_file(path, shared=True):
            return False
    except BlockingIOError:
        return True


def describe_holder(path: Path, ahead: Sequence[tuple[int, int, Path]]) -> tuple[str, str]:
    """Return the process of the first ticket with its command, if known, and what it does.

    Only the first words of the command, as further ones may hold secrets: those of an address.
    """
    measures = "is measuring on this machine"
    if not ahead:
        return "", measures
    _, pid, _ = ahead[0]
    command, is_stopped = list[str](), False
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        is_stopped = process.status() == psutil.STATUS_STOPPED
        command = process.cmdline()[1:]
    words = [Path(word).name for word in command if word.isprintable() and word[:1] != "-"]
    holder = f" ({', '.join(filter(None, [f'process {pid}', shorten(' '.join(words[:2]))]))})"
    waits = is_stopped and not is_locked(path)  # others take the machine when it is free
    return holder, "is stopped and first in line for this machine" if waits else measures


@contextmanager
def make_folder(purpose: str) -> Iterator[Path]:
    """Yield a new temporary folder; if this process is killed, a later run removes it.

    Raises:
        BakeoffError: there is no place for it.
    """
    prefix = f"{FOLDER_PREFIX}{purpose}-"
    with ExitStack() as held:
        try:
            made = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
            folder = Path(held.enter_context(made))
            unlocked = folder / "unlocked"
            unlocked.touch()
            held.enter_context(lock_file(unlocked))
            unlocked.rename(folder / OWNER)  # another run sees it locked only
        except OSError as error:
            raise BakeoffError(
                f"no temporary folder can be made in {tempfile.gettempdir()}: {error.strerror}; "
                "make room there, or set TMPDIR to another place"
            ) from error
        yield folder


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


class CoreUse:
    """Use of the cores of this process by others since a moment.

    Args:
        workers: Our workers that live, in each of the calls; what they have used is not others'.
    """

    def __init__(self, workers: Callable[[], Iterable[Worker]]) -> None:
        self.workers, self.cores = workers, affinity() or []
        self.start, self.before = time.monotonic(), self.read_seconds()

    def read_seconds(self) -> float:
        """Return the seconds so far in which others had one of the cores."""
        ours = sum(worker.read_own_seconds() for worker in self.workers()) + sum(os.times()[:4])
        times = psutil.cpu_times(percpu=True)
        return sum(sum_used(times[core]) for core in self.cores if core < len(times)) - ours

    def is_disturbed(self) -> bool:
        """Tell whether others have used more than `MOST_BESIDE`; False where nothing tells it.

        A run with a lock of its own measures beside other runs on purpose.
        """
        whole = (time.monotonic() - self.start) * len(self.cores)
        seconds = self.read_seconds() - self.before - TICK_SECONDS * len(self.cores)
        return seconds > MOST_BESIDE * whole > 0 and LOCK_FOLDER_VARIABLE not in os.environ


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
        others = max(0.0, used - ours) / seconds
        notable = bool(most) and cores[most] >= max(NOTABLE, MOST_OF_OTHERS * others)
        return TimeSpent(
            stolen=min(1.0, max(0.0, stolen) / whole),
            others=others * seconds / whole,
            busiest=f"{most} ({cores[most]:.1f} cores)" if notable else "",
        )


def read_machine_seconds() -> tuple[float, float]:
    """Return this machine's processor seconds so far: those stolen, and those used on it."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum_used(times)


def sum_used(times: Any) -> float:
    """Return the seconds in which a core did anything, of psutil's times of it."""
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


def read_processor_seconds() -> dict[int, tuple[str, float]]:
    """Return id → name of a process, and the processor seconds that it has used."""
    seconds = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            seconds[process.pid] = (str(process.info["name"]), times.user + times.system)
    return seconds
