"""Looks at this machine: for a few seconds at what it does while nothing is asked of it."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench.doctor import machine
from bench.environments.uv import uv_path
from bench.worker.gpus import PROGRAM, Gpu, gpus
from bench.worker.settings import affinity
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

LOOP = 20_000
"""Additions of a loop whose time is taken over and over: about a millisecond."""
TOOLS = ("uv", "git", "c++", PROGRAM)
EXTRAS = {"ray": "ray", "parquet": "pyarrow", "histogram": "pygal"}
"""The module that each extra of this project brings."""


@dataclass(frozen=True)
class Seen:
    """What a machine is, and what it did while it was looked at."""

    system: str
    python: str
    processor: str
    cores: int
    """Of the machine."""
    usable: tuple[int, ...]
    """Those that this process may run on."""
    memory: int
    """Bytes."""
    free: int
    """Of them, what could be had."""
    load: float
    """Processes that ran or waited, the last minute's mean, when it was first looked at."""
    stolen: float
    """Share of the processor time that the hypervisor gave to other guests."""
    others: float
    """Share that other processes used."""
    loop: Float[np.ndarray, " times"]
    """Seconds of a loop that always does the same."""
    governors: Mapping[str, int]
    boosts: bool | None
    shared: Sequence[tuple[int, ...]]
    throttled: int | None
    """Times that heat has slowed cores down while they were looked at."""
    virtual: bool | None
    quota: float | None
    held_back: int | None
    """Times that the quota was used up while it was looked at."""
    battery: bool
    """It runs from one."""
    tools: Mapping[str, str | None]
    """Where the programs are that parts of this project use."""
    extras: Mapping[str, bool]
    gpus: Sequence[Gpu] | None = None
    jax: Mapping[str, Any] = field(default_factory=dict)
    """What a worker says of backends, devices and versions; empty if it failed."""
    failure: str = ""
    """Why it did."""


def own_uv() -> str | None:
    """Return the uv that builds environments, or None where there is none."""
    with suppress(BakeoffError):
        return uv_path()
    return None


def look(seconds: float, root: Path = Path("/")) -> Seen:
    """Look at this machine for some seconds, and ask a worker what jax finds.

    Args:
        seconds: That the machine is looked at.
        root: The folder that stands for `/`.
    """
    usable = affinity() or list(range(os.cpu_count() or 1))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    before = heat, back = machine.throttles(root, usable), machine.held_back(root)
    stolen, others, loop = watched(seconds)
    after = machine.throttles(root, usable), machine.held_back(root)
    heat, back = (
        None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)
    )
    memory = psutil.virtual_memory()
    battery = getattr(psutil, "sensors_battery", lambda: None)()
    jax, failure = asked()
    return Seen(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        processor=processor(root),
        cores=os.cpu_count() or 1,
        usable=tuple(usable),
        memory=memory.total,
        free=memory.available,
        load=load,
        stolen=stolen,
        others=others,
        loop=loop,
        governors=Counter(machine.governors(root, usable)),
        boosts=machine.boosts(root),
        shared=machine.shared(root, usable),
        throttled=heat,
        virtual=machine.virtual(root),
        quota=machine.quota(root),
        held_back=back,
        battery=battery is not None and not battery.power_plugged,
        tools={name: shutil.which(name) for name in TOOLS} | {"uv": own_uv()},
        extras={name: bool(importlib.util.find_spec(module)) for name, module in EXTRAS.items()},
        gpus=gpus(),
        jax=jax,
        failure=failure,
    )


def watched(seconds: float) -> tuple[float, float, Float[np.ndarray, " times"]]:
    """Return the shares of processor time that went elsewhere, and the times of a loop.

    The loop runs on one core all the time; what it used itself is nobody else's.
    """
    clock, took = time.perf_counter, list[float]()
    before, own = psutil.cpu_times(), time.process_time()
    start = clock()
    while not took or clock() - start < seconds:
        begun = clock()
        sum(range(LOOP))
        took.append(clock() - begun)
    wall, own = clock() - start, time.process_time() - own
    after = psutil.cpu_times()

    def spent(*names: str) -> float:
        return sum(getattr(after, name, 0.0) - getattr(before, name, 0.0) for name in names)

    whole = wall * (os.cpu_count() or 1)
    used = spent("user", "nice", "system", "irq", "softirq") - own
    return spent("steal") / whole, max(0.0, used) / whole, np.array(took)


def asked() -> tuple[dict[str, Any], str]:
    """Return what a worker says of its backends, and why it could not."""
    from bench.engine.processes import WorkerFailedError, ask_once

    command = {"do": "describe", "entrants": ["pure_jax"], "outside": {}}
    try:
        return ask_once(command), ""
    except WorkerFailedError as error:
        return {}, ": ".join([error.reason, *error.stderr.splitlines()[-1:]])


def processor(root: Path) -> str:
    """Return the processor's name."""
    for line in (machine.read(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or sys.platform
