"""Settings of a worker process: made in one place, before Python starts, and recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = {
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # float32 everywhere, also where TF32 is the default
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # a compile time must not be the time of a read
    "JAX_ENABLE_X64": "false",
    "PYTHONHASHSEED": "0",  # order of sets and of some dicts: the same in all workers
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
DEBUGGING = ("JAX_CHECK", "JAX_DEBUG", "JAX_DISABLE_JIT", "JAX_ENABLE_CHECKS", "JAX_LOG_COMPILES")
"""Beginnings of variables that are not handed on: their cost would be timed as a library's."""
RECORDED = ("JAX_", "XLA_", "OMP_", "PYTHONHASHSEED")
"""Beginnings of the variables that every run says."""
ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Return the environment variables that a worker is started with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DEBUGGING)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}


def machine(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what a process with these environment variables runs under: part of every result."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    seen = {name: value for name, value in environment.items() if name.startswith(RECORDED)}
    return {
        "environment": dict(sorted(seen.items())),
        "xla_flags": environment.get("XLA_FLAGS", ""),
        "affinity": affinity,
        "load_average": list(os.getloadavg()),
    }


def conditions() -> dict[str, Any]:
    """Return what workers run under."""
    return machine(environment()) | {
        "donation": False,
        "garbage_collector": "frozen after imports, run before each block, off while it is timed",
        "threads": "as many as XLA takes: one for each core of the affinity mask",
    }
