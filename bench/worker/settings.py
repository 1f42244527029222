"""Settings of a worker process: variables and cores, set before Python starts, and their guard.

No entrant may change these, nor JAX's settings or the priority. Nor may an entrant leave anything
running: that would slow down whatever is timed next.

Nothing of jax is imported here: a cold process imports this module before it times that import.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENVIRONMENT = {
    # Called `highest` from jax 0.4.31 on: float32 also where TF32 is the default
    "JAX_DEFAULT_MATMUL_PRECISION": "float32",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # a compile time must not be the time of a read
    "JAX_ENABLE_X64": "false",
    "PYTHONHASHSEED": "0",  # order of sets and of some dicts: the same in all workers
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # A worker and cold processes share a GPU: none may take three quarters of it at once
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
USER_SETTINGS = ("JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64")
"""Variables that the workers of a user's own step have as the user sets them."""
DEBUG_PREFIXES = (
    *("JAX_CHECK", "JAX_DEBUG", "JAX_DISABLE_JIT", "JAX_ENABLE_CHECKS", "JAX_LOG_COMPILES"),
    "PYTHONDONTWRITEBYTECODE",  # without bytecode, an import takes twice as long
    *("PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONOPTIMIZE", "PYTHONPROFILEIMPORTTIME"),
    *("PYTHONPERFSUPPORT", "PYTHONTRACEMALLOC", "PYTHONVERBOSE"),
)
"""Prefixes of variables that workers do not inherit: their cost would be timed as a library's."""
RECORDED_VARIABLES = re.compile(
    "JAX_(CPU_ENABLE_ASYNC_DISPATCH|CUDA_VISIBLE_DEVICES|DEFAULT_(DEVICE|MATMUL_PRECISION|PRNG_IMPL)"
    "|DISABLE_MOST_OPTIMIZATIONS|ENABLE_(COMPILATION_CACHE|CUSTOM_PRNG|PGLE|X64)"
    "|EXEC_TIME_OPTIMIZATION_EFFORT|INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS|MEMORY_FITTING_LEVEL"
    "|NUM_CPU_DEVICES|NUMPY_(DTYPE|RANK)_PROMOTION|OPTIMIZATION_LEVEL|PLATFORMS|PLATFORM_NAME"
    "|ROCM_VISIBLE_DEVICES|THREEFRY_PARTITIONABLE|TRACEBACK_(FILTERING|IN_LOCATIONS_LIMIT)"
    "|USE_(DIRECT_LINEARIZE|SHARDY_PARTITIONER|SIMPLIFIED_JAXPR_CONSTANTS))"
    r"|XLA_(FLAGS|PYTHON_CLIENT_\w+)|(MALLOC|OMP)_\w+|LD_PRELOAD|NPROC|PJRT_NPROC"
    r"|(GOMP|KMP|MKL|OPENBLAS)_\w+|TORCH(DYNAMO|INDUCTOR|_COMPILE)_\w+"  # of NumPy and PyTorch
    "|PYTHON(HASHSEED|_JIT|_GIL)"
)
"""Variables that every run records: they change results. Others may hold anything, also secrets."""
DATUM = "mean of the fastest half of turns, each its fastest call"
"""Statistic of an arm's calls in a block; runs with different ones cannot be compared."""
KEPT_VARIABLES = re.compile(
    "GIT_(SSH|SSL|HTTP|PROXY|ASKPASS|TERMINAL|EXEC_PATH|CEILING|DISCOVERY"
    "|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY|VALUE))"
)
"""Variables of git that say how repositories are reached. All others are hidden: in a
hook, they name the repository, and even the index, of the commit that is being made."""
CORES = "BAKEOFF_CORES"
"""Name of the variable that tells a worker its cores."""
ROOT = Path(__file__).resolve().parents[2]
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


def hide_repository(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without those that name a repository of git."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("GIT_") or KEPT_VARIABLES.match(name)
    }


def environment(root: Path = ROOT, *, own: bool = True) -> dict[str, str]:
    """Return the environment variables that a worker is started with.

    Args:
        root: Folder of the code that the worker runs.
        own: If true, the worker runs in this program's environment; others see nothing of it.
    """
    left_out = DEBUG_PREFIXES if own else (*DEBUG_PREFIXES, "PYTHONHOME", "VIRTUAL_ENV")
    inherited = hide_repository(os.environ)
    kept = {name: value for name, value in inherited.items() if not name.startswith(left_out)}
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH") if own else None])]
    return kept | ENVIRONMENT | threads() | {"PYTHONPATH": os.pathsep.join(paths)}


def restore_user_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables with `USER_SETTINGS` as the user has them, for a user's own step."""
    settings = {name: os.environ[name] for name in USER_SETTINGS if name in os.environ}
    return {name: v for name, v in variables.items() if name not in USER_SETTINGS} | settings


def affinity() -> list[int] | None:
    """Return the cores that this process may run on; None where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def has_one_core() -> bool:
    """Tell whether this process keeps to one core."""
    return len(affinity() or ()) == 1


def threads(cores: Sequence[int] | None = None) -> dict[str, str]:
    """Return variables that give a worker these cores, and XLA a thread for each of them.

    None stands for all cores of this process. Without pinning, there are no variables.
    """
    ours = affinity()
    if ours is None:
        return {}
    cores = ours if cores is None else cores
    number = str(len(cores))  # what XLA:CPU sizes its pools by
    return {CORES: ",".join(map(str, cores)), "NPROC": number, "PJRT_NPROC": number}


def conditions() -> dict[str, Any]:
    """Return the conditions that workers run under, a part of every result."""
    seen = {
        name: mask_secrets(value)
        for name, value in environment().items()
        if RECORDED_VARIABLES.fullmatch(name)
    }
    return {
        "environment": dict(sorted(seen.items())),
        "affinity": affinity(),
        "garbage_collector": "frozen after imports, run before each block, off while it is timed",
        "datum": DATUM,
        "threads": "XLA has one for each core of the affinity mask, which workers set (NPROC)",
    }


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
