"""What follows from what was seen: pure functions, and what to do in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.doctor.finding import Area, Finding, Level
from bench.watch import LOAD, OTHERS, STEAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.doctor.look import Seen
    from bench.worker.gpus import Gpu

NOISE = 0.05
"""Of the loop's time: by so much more in one of twenty, a machine is noisy."""
LEAST_FREE = 2 << 30
"""Bytes; a worker with all libraries and a compiler at work needs about so much."""
HOT = 83.0
"""Degrees Celsius at which common GPUs begin to slow down."""
IN_USE = 0.05
"""Of a GPU's time or memory: then it is not ours alone."""
STEADY = ("performance", "userspace")
"""Governors that do not change a core's frequency by its load."""


def findings(seen: Seen) -> Iterator[Finding]:
    """Yield all that is to be said, what is here first."""
    yield from offers(seen)
    yield from missing(seen)
    yield from timing(seen)
    for number, gpu in enumerate(seen.gpus or ()):
        yield from of_gpu(number, gpu)


def offers(seen: Seen) -> Iterator[Finding]:
    """Say what is here."""
    area = Area.OFFERS
    yield Finding(area, "system", f"{seen.system}, Python {seen.python}")
    cores = f"{len(seen.usable)} of {seen.cores} cores" if partly(seen) else f"{seen.cores} cores"
    yield Finding(area, "processor", f"{seen.processor}, {cores}")
    little = seen.free < LEAST_FREE
    yield Finding(
        area,
        "memory",
        f"{size(seen.memory)}, {size(seen.free)} free",
        Level.WARNING if little else Level.OK,
        "Close what uses it: a worker that swaps is timed with it." if little else "",
    )
    if seen.failure:
        yield Finding(
            area,
            "jax",
            seen.failure,
            Level.WARNING,
            "Nothing can be measured; `python -c 'import jax; print(jax.devices())'` says more.",
        )
        return
    versions = seen.jax["versions"]
    yield Finding(area, "jax", f"{versions['jax']}, jaxlib {versions['jaxlib']}")
    for backend, kind in seen.jax["devices"].items():
        about = seen.jax.get("details", {}).get(backend, {})
        words = [f"{about['count']} × {kind}" if about.get("count", 1) > 1 else kind]
        words += [size(about["memory"])] if about.get("memory") else []
        words += [f"driver: {about['driver']}"] if about.get("driver") else []
        yield Finding(area, f"backend {backend}", ", ".join(words))


def missing(seen: Seen) -> Iterator[Finding]:
    """Say what is not here, and what for it would be needed."""
    area, note = Area.MISSING, Level.NOTE
    if seen.gpus and not seen.failure and "gpu" not in seen.jax["devices"]:
        yield Finding(
            area,
            "jax on the GPU",
            f"{seen.gpus[0].name}, and jax has no backend for it",
            Level.WARNING,
            "pip install --editable '.[cuda13]', or [cuda12] with a driver before 580.",
        )
    if seen.tools["uv"] is None:
        advice = "pip install uv: other releases and entrants' own environments are built by it."
        yield Finding(area, "uv", "not installed", note, advice)
    if seen.tools["git"] is None:
        advice = "Install it: `bakeoff ab` and `bisect` take commits of this project from it."
        yield Finding(area, "git", "not on the PATH", note, advice)
    if seen.tools["c++"] is None:
        advice = "Install one if PyTorch's style `compile` is to be measured."
        yield Finding(area, "a C++ compiler", "not on the PATH", note, advice)
    for extra, there in seen.extras.items():
        if not there:
            advice = f"pip install --editable '.[{extra}]', if it is wanted."
            yield Finding(area, f"extra {extra}", "not installed", note, advice)


def timing(seen: Seen) -> Iterator[Finding]:
    """Say what makes timings unreliable; each thing that was looked at has its line."""
    yield from alone(seen)
    yield from frequency(seen)
    yield from cores(seen)
    area = Area.TIMING
    median, most = np.percentile(seen.loop, (50, 95))
    noise = most / median - 1
    noisy = noise > NOISE
    yield Finding(
        area,
        "a loop that does the same",
        f"{noise:.1%} longer than its median in one of twenty",
        Level.WARNING if noisy else Level.OK,
        "Take more blocks, or a longer --budget: ratios hold, intervals are wider."
        if noisy
        else "",
    )


def alone(seen: Seen) -> Iterator[Finding]:
    """Say whether somebody else uses the machine."""
    area = Area.TIMING
    crowded = seen.load / seen.cores > LOAD
    yield Finding(
        area,
        "load",
        f"{seen.load:.1f} on {seen.cores} cores, the last minute's mean",
        Level.WARNING if crowded else Level.OK,
        "Wait until it has gone down, or stop what runs." if crowded else "",
    )
    busy = seen.others > OTHERS
    yield Finding(
        area,
        "other processes",
        f"{seen.others:.0%} of the processor time",
        Level.WARNING if busy else Level.OK,
        "Stop what else runs; `top` says what it is." if busy else "",
    )
    robbed = seen.stolen > STEAL
    yield Finding(
        area,
        "other guests",
        f"{seen.stolen:.1%} of the processor time taken by the hypervisor",
        Level.WARNING if robbed else Level.OK,
        "Measure at another hour, or on a dedicated machine: nothing in here helps."
        if robbed
        else "",
    )
    if seen.virtual:
        yield Finding(
            area,
            "virtual machine",
            "a guest, whose cores may be threads of others'",
            Level.NOTE,
            "Compare within one run only: seconds of two hours differ.",
        )


def frequency(seen: Seen) -> Iterator[Finding]:
    """Say what changes the speed of the cores."""
    area = Area.TIMING
    if not seen.governors and seen.boosts is None:
        yield Finding(area, "frequency", "the system does not tell", Level.NOTE)
    if seen.governors:
        changing = [name for name in seen.governors if name not in STEADY]
        yield Finding(
            area,
            "frequency governor",
            ", ".join(f"{name} on {n} cores" for name, n in seen.governors.items()),
            Level.WARNING if changing else Level.OK,
            "sudo cpupower frequency-set -g performance" if changing else "",
        )
    if seen.boosts is not None:
        yield Finding(
            area,
            "boost",
            "on: the speed depends on heat, and on how many cores work" if seen.boosts else "off",
            Level.NOTE if seen.boosts else Level.OK,
            "Turn it off for seconds that repeat; ratios of one run do not need it."
            if seen.boosts
            else "",
        )
    if seen.throttled:
        yield Finding(
            area,
            "heat",
            f"cores were slowed down {seen.throttled} times while this was looked at",
            Level.WARNING,
            "Let it cool, or lower the frequency: it changes its speed in the middle of a run.",
        )
    if seen.battery:
        yield Finding(area, "power", "from a battery", Level.WARNING, "Plug it in.")


def cores(seen: Seen) -> Iterator[Finding]:
    """Say what cores do to each other."""
    area = Area.TIMING
    if seen.shared:
        groups = ", ".join("+".join(map(str, group)) for group in seen.shared)
        one_each = ",".join(str(group[0]) for group in seen.shared)
        yield Finding(
            area,
            "two threads on a core",
            f"these share one: {groups}",
            Level.NOTE,
            f"taskset -c {one_each} pytest bench … keeps to one thread of each.",
        )
    if seen.quota is not None:
        short = seen.quota < len(seen.usable)
        yield Finding(
            area,
            "quota of this container",
            f"{seen.quota:g} cores' time"
            + (f", used up {seen.held_back} times just now" if seen.held_back else ""),
            Level.WARNING if short or seen.held_back else Level.OK,
            "Give it whole cores (docker run --cpuset-cpus): what goes beyond a quota is stopped "
            "for the rest of a tenth of a second."
            if short or seen.held_back
            else "",
        )


def of_gpu(number: int, gpu: Gpu) -> Iterator[Finding]:
    """Say what is to be known of a GPU."""
    name = f"GPU {number}"
    yield Finding(Area.OFFERS, name, f"{gpu.name}, {size(gpu.memory)}, driver {gpu.driver}")
    area, warning = Area.TIMING, Level.WARNING
    if gpu.busy > IN_USE or gpu.used > IN_USE * gpu.memory:
        yield Finding(
            area,
            f"{name} in use",
            f"busy {gpu.busy:.0%} of the time, {size(gpu.used)} of its memory taken",
            warning,
            "nvidia-smi says by whom: wait for them, or set CUDA_VISIBLE_DEVICES to another one.",
        )
    if gpu.slowed or (gpu.temperature or 0) >= HOT:
        heat = "" if gpu.temperature is None else f", {gpu.temperature:.0f} °C"
        yield Finding(area, f"{name} slowed", f"slowed down{heat}", warning, "Let it cool.")
    if gpu.divided:
        yield Finding(
            area,
            f"{name} divided",
            "a part of it, by MIG, whose neighbours share its memory's bandwidth and its power",
            Level.NOTE,
            "Say so beside the numbers.",
        )
    if not gpu.persistent:
        yield Finding(
            area,
            f"{name} driver",
            "unloaded while nobody uses it, so that the first process waits for it",
            Level.NOTE,
            "sudo nvidia-smi -pm 1, if import times matter.",
        )


def partly(seen: Seen) -> bool:
    """Return whether this process may not use all cores."""
    return len(seen.usable) != seen.cores


def size(count: float) -> str:
    """Return a number of bytes as people write it."""
    return f"{count / (1 << 30):.1f} GiB"
