"""Settings of a worker process: made in one place, before Python starts, and recorded."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # a compile time must not be the time of a read
    "JAX_ENABLE_X64": "false",
    "PYTHONHASHSEED": "0",  # order of sets and of some dicts: the same in all workers
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
RECORDED = ("XLA_FLAGS", "JAX_PLATFORMS", "OMP_NUM_THREADS")
ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Return the environment variables that a worker is started with."""
    # A debug mode of the caller's shell would be timed as if it were the library's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_DEBUG")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}


def conditions() -> dict[str, object]:
    """Return what the machine and the settings were: part of every run."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "worker_environment": ENVIRONMENT,
        "environment": {name: os.environ.get(name) for name in RECORDED},
        "affinity": affinity,
        "load_average": list(os.getloadavg()),
        "donation": False,
    }
