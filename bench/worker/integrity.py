"""Guard of the state that no entrant may change: JAX's settings and variables, cores, priority.

Nor may an entrant leave anything running: that would slow down whatever is timed next.

Nothing of jax is imported here: a cold process imports this module before it times that import.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.worker.settings import affinity

if TYPE_CHECKING:
    from collections.abc import Iterable

VARIABLES = ("JAX_", "NPROC", "PJRT_", "XLA_")
"""Prefixes of the environment variables that XLA and JAX read."""
AFFINITY, PRIORITY = SCHEDULING = "the affinity", "the priority"
"""Names of the guarded values that are not settings."""
CHILDREN, THREADS = Path("/proc/thread-self/children"), Path("/proc/self/task")
"""Linux's list of a thread's children, and its folder with one entry for each thread of a process;
both are read in some microseconds."""
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "compile_worker")
"""Parts of command lines of libraries' helper processes, which compute nothing by themselves."""
ENDING_SECONDS = 1.0
"""Longest wait for killed processes to end, in seconds."""
GLANCE_SECONDS = 0.05
"""Seconds of sleep in which a glance measures the processor time of the other threads."""
GLANCES = 10
"""Number of glances after which a thread that still computes is taken to go on for ever: OpenMP's
threads spin for up to 0.2 s after their work."""
IDLE_GLANCES = 3
"""Number of idle glances in a row after which nothing computes: where six processes wanted two
cores, 4 % of the glances at a thread that computed were idle."""
BUSY = 0.2
"""CPU fraction of a glance from which on a thread computes. Idle threads use none; where others
want the cores, one that computes gets only a part."""


class Surroundings:
    """Snapshot of a process's settings, threads and children."""

    def __init__(self) -> None:
        self.values = read_guarded_values()
        self.threads, self.children = list_threads(), list_children()
        self.spoiled = False
        """If true, something runs on that cannot be ended: later times are wrong."""

    def changes(self, *, of_settings: bool = True) -> str:
        """Return in words what has changed since the snapshot; empty if nothing.

        Changes are undone where possible, so that the other arms of the process are measured under
        the intended conditions. Settings and variables may be left out: a user's own file sets
        those for its step.
        """
        changes, now = [], read_guarded_values()
        for name in self.values | now if of_settings else SCHEDULING:
            known = name in self.values or name.startswith(VARIABLES)  # else jax was imported since
            value, other = self.values.get(name), now.get(name)
            if not known or (type(value), value) == (type(other), other):
                continue
            try:
                restore_value(name, value)
            except Exception:  # a setting that can be set once; a lower nice value
                self.values[name] = other  # one arm is named for it, and none that comes after
            changes.append(f"changed {name} from {value!r} to {other!r}")
        return "; ".join(filter(None, [*changes, self.find_leftovers()]))

    def find_leftovers(self) -> str:
        """End new processes; return in words what was left running, empty if nothing."""
        new = list_children() - self.children
        self.children |= new
        if new and (names := end_processes(new)):
            return f"left running: {', '.join(names)}"
        known, self.threads = self.threads, list_threads()
        if self.threads <= known or not is_computing():
            return ""
        self.spoiled = True
        return "left a thread that computes"


def list_threads() -> set[str]:
    """Return the ids of this process's threads; elsewhere than on Linux, of Python's alone."""
    with suppress(OSError):
        return {path.name for path in THREADS.iterdir()}
    return {str(thread.ident) for thread in threading.enumerate()}


def list_children() -> set[int]:
    """Return the ids of this thread's children; elsewhere than on Linux, of this process's."""
    with suppress(OSError):
        return {*map(int, CHILDREN.read_bytes().split())}
    import psutil

    return {child.pid for child in psutil.Process().children()}


def end_processes(pids: Iterable[int]) -> list[str]:
    """End processes and their descendants except `HELPERS`; return the names of those ended."""
    import psutil  # a cold process does not pay for it

    running = dict[int, psutil.Process]()
    names: list[str] = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            running |= {p.pid: p for p in (process, *process.children(recursive=True))}
    for process in running.values():
        with suppress(psutil.Error):
            helps = any(helper in " ".join(process.cmdline()) for helper in HELPERS)
            if not helps and process.status() != psutil.STATUS_ZOMBIE:
                name = f"{process.name()} ({process.pid})"
                process.kill()
                names.append(name)
    psutil.wait_procs(running.values(), timeout=ENDING_SECONDS if names else 0)
    return names


def is_computing() -> bool:
    """Tell whether this process goes on using a core while this thread waits."""
    idle = 0
    for _ in range(GLANCES):
        before = time.process_time()
        time.sleep(GLANCE_SECONDS)
        idle = idle + 1 if time.process_time() - before < BUSY * GLANCE_SECONDS else 0
        if idle == IDLE_GLANCES:
            return False
    return True


def read_guarded_values() -> dict[str, Any]:
    """Return the guarded values by name, as this thread sees them.

    They are JAX's settings (none before jax is imported), the variables that JAX and XLA read, the
    cores (unknown on macOS) and the nice value.
    """
    config = sys.modules["jax"].config if "jax" in sys.modules else None
    settings = {name: getattr(config, name, None) for name in config.values} if config else {}
    variables = {name: v for name, v in os.environ.items() if name.startswith(VARIABLES)}
    cores = affinity()
    scheduling: dict[str, Any] = {} if cores is None else {AFFINITY: cores}
    scheduling[PRIORITY] = os.getpriority(os.PRIO_PROCESS, 0)
    return settings | variables | scheduling


def restore_value(name: str, value: Any) -> None:
    """Set the guarded value of this name."""
    if name == AFFINITY:
        os.sched_setaffinity(0, value)
    elif name == PRIORITY:
        os.setpriority(os.PRIO_PROCESS, 0, value)
    elif not name.startswith(VARIABLES):
        sys.modules["jax"].config.update(name, value)
    elif value is None:
        del os.environ[name]
    else:
        os.environ[name] = value
