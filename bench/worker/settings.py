"""Environment of a worker process: variables and cores, set before Python starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
RECORDED_PREFIXES = (
    *("JAX_", "XLA_", "OMP_", "MALLOC_", "LD_PRELOAD", "NPROC", "PJRT_NPROC"),
    *("GOMP_", "KMP_", "MKL_", "OPENBLAS_", "TORCH"),  # of PyTorch's and NumPy's threads
    *("PYTHONHASHSEED", "PYTHON_JIT", "PYTHON_GIL"),
)
"""Prefixes of the variables that every run records."""
DATUM = "mean of the fastest half of turns, each its fastest call"
"""Statistic of an arm's calls in a block; runs with different ones cannot be compared."""
CORES = "BAKEOFF_CORES"
"""Name of the variable that tells a worker its cores."""
ROOT = Path(__file__).resolve().parents[2]


def environment(root: Path = ROOT, *, own: bool = True) -> dict[str, str]:
    """Return the environment variables that a worker is started with.

    Args:
        root: Folder of the code that the worker runs.
        own: If true, the worker runs in this program's environment; others see nothing of it.
    """
    left_out = DEBUG_PREFIXES if own else (*DEBUG_PREFIXES, "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
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
        name: value for name, value in environment().items() if name.startswith(RECORDED_PREFIXES)
    }
    return {
        "environment": dict(sorted(seen.items())),
        "affinity": affinity(),
        "garbage_collector": "frozen after imports, run before each block, off while it is timed",
        "datum": DATUM,
        "threads": "XLA has one for each core of the affinity mask, which workers set (NPROC)",
    }
