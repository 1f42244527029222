"""What this environment offers: entrants and their styles, devices, versions."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import impls
from bench.worker.arms import last_line
from bench.worker.gpus import gpus
from common.errors import BakeoffError
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping


NO_KEYWORD = "its factory has no keyword `donate`"
NOT_JAX = "it is not JAX's"
"""Why a style cannot donate its state."""


def describe(entrants: list[str], outside: dict[str, str]) -> dict[str, Any]:
    """Say what this environment offers; of all entrants, or of those named."""
    for path in outside.values():
        impls.add(path)
    found: dict[str, Any] = {
        name: {} for name in ("styles", "problems", "missing", "alone", "if_named", "keeping")
    }
    libraries, foreign = [], []
    for name in entrants or impls.usual():
        try:
            entrant, declared = impls.load(name), impls.declared(name)
        except BakeoffError as error:
            found["problems"][name] = str(error)
            continue
        except Exception:
            found["problems"][name] = f"import failed: {last_line()}"
            continue
        libraries.append(entrant.distribution)
        found["styles"][name] = list(entrant.styles)
        if entrant.missing:
            found["missing"][name] = dict(entrant.missing)
        if not declared.jax:
            foreign.append(name)
        if name not in impls.OUTSIDE:  # one from outside may always donate: its program tells
            why = NO_KEYWORD if declared.jax else NOT_JAX
            keeping = [style for style in entrant.styles if not entrant.can_donate(style)]
            found["keeping"][name] = dict.fromkeys(keeping, why)
        for what in ("alone", "if_named"):
            if own := [style for style in getattr(declared, what) if style in entrant.styles]:
                found[what][name] = own
    devices = offered_devices()
    return found | {
        "foreign": foreign,
        "backends": list(devices),
        "devices": devices,
        "details": {backend: details(backend) for backend in devices},
        "versions": versions(libraries),
        "uncached": uncached(),
    }


def uncached() -> int:
    """Return of how many imported modules Python keeps no bytecode, for it cannot write any."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    cached = [spec.cached for spec in specs if spec is not None and spec.cached]
    return sum(not Path(path).exists() for path in cached)


def offered_devices() -> dict[str, str]:
    """Return the kind of the first device of each backend that there is."""
    devices = {}
    for backend in dict.fromkeys(("cpu", "gpu", "tpu", *platforms())):
        with suppress(RuntimeError):
            devices[backend] = str(jax.devices(backend)[0].device_kind)
    return devices


def platforms() -> list[str]:
    """Return what jax calls the backends that it has; none where an old release does not say."""
    with suppress(Exception):
        from jax.extend.backend import backends

        return [client.devices()[0].platform for client in backends().values()]
    return []


def details(backend: str) -> dict[str, Any]:
    """Return what a backend is and what is set for it.

    Returns:
        How many devices it has, the memory of one in bytes, its driver's words, and settings that
        say how its programs are made and run.
    """
    found, driver = jax.devices(backend), ""
    memory: dict[str, Any] = {}
    with suppress(Exception):  # an old release, or a driver that does not tell
        memory = found[0].memory_stats() or {}
        driver = " ".join(str(found[0].client.platform_version).split())
    return {
        "count": len(found),
        "memory": memory.get("bytes_limit"),
        "driver": "" if driver in ("<unknown>", backend) else driver,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
        "memory_statistics": bool(memory),
        **({} if backend == "cpu" else of_accelerator()),
        **({"cards": [asdict(card) for card in gpus() or ()]} if backend == "gpu" else {}),
    }


def of_accelerator(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return how memory is taken, and kernels are chosen, on what is no CPU."""
    level = re.search(r"--xla_gpu_autotune_level=(\d+)", environment.get("XLA_FLAGS", ""))
    return {
        "preallocation": environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true"),
        "autotuning": f"level {level[1]}" if level else "XLA's own level, anew in each process",
    }
