"""Probes of a machine: each looks at one subject, and yields findings with advice.

`look` watches the machine for some seconds; then each of `PROBES` reads that record, or the files
of the system below a folder that stands for `/`. A file that does not exist yields no finding.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

import impls
from bench.doctor.finding import Area, Level, MachineFinding
from bench.engine.machine import machine_seconds
from bench.engine.processes import WorkerFailedError, ask_once
from bench.environments.builder import failure
from bench.runfile.warnings import LOAD, OTHERS, STEAL
from bench.worker.gpus import Gpu, gpus
from bench.worker.settings import affinity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float

LOOP = 20_000
"""Additions of a loop that is timed repeatedly: about a millisecond."""
NOISE = 0.05
"""Above the loop's median, as a part of it: if one of twenty is slower, the machine is noisy."""
LEAST_FREE = 2 << 30
"""Bytes that a worker with all libraries needs while it compiles."""
HOT = 83.0
"""Degrees Celsius at which common GPUs begin to slow down."""
IN_USE = 0.05
"""Part of a GPU's time or memory from which on another process uses it."""
STEADY = ("performance", "userspace")
"""Governors that do not change a core's frequency with its load."""
CPU = "sys/devices/system/cpu"
QUOTA = "sys/fs/cgroup/cpu.max"
"""Of this container's control group (version 2)."""
PROGRAMS = {
    "git": "Install it: `bakeoff ab` and `bisect` take revisions of this project from it.",
    "c++": "Install a C++ compiler to measure PyTorch's style `compile`.",
}
"""Those that parts of this project use, and how to get them."""
EXTRAS = {"ray": "ray", "parquet": "pyarrow", "histogram": "pygal"}
"""Of this project, each with a module that it installs."""


@dataclass(frozen=True)
class Machine:
    """A machine, and its activity while it was watched."""

    root: Path
    """The folder that stands for `/`."""
    count: int
    """Cores of the machine."""
    usable: tuple[int, ...]
    """Cores that this process may run on."""
    memory: int
    """Bytes."""
    free: int
    """Of them, available."""
    load: float
    """Processes that ran or waited, the last minute's mean."""
    stolen: float
    """Part of the processor time that the hypervisor gave to other guests."""
    others: float
    """Part of it that other processes used."""
    loop: Float[np.ndarray, " times"]
    """Seconds of a loop that always does the same."""
    throttled: int = 0
    """Times that heat slowed cores down."""
    on_battery: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    """Programs and extras that are not installed, and how to get them."""
    gpus: Sequence[Gpu] = ()
    jax: Mapping[str, Any] = field(default_factory=dict)
    """A worker's description of backends, devices and versions; empty if it failed."""
    failure: str = ""
    """Why it did."""


def look(seconds: float) -> Machine:
    """Watch this machine for so many seconds, and ask a worker what jax finds."""
    root = Path("/")
    usable = tuple(affinity() or range(os.cpu_count() or 1))
    before = throttles(root, usable)
    stolen, others, loop = watched(seconds)
    battery, memory = psutil.sensors_battery(), psutil.virtual_memory()
    missing = {name: advice for name, advice in PROGRAMS.items() if not shutil.which(name)}
    missing |= {
        f"extra {name}": f"pip install --editable '.[{name}]', if you need it."
        for name, module in EXTRAS.items()
        if not importlib.util.find_spec(module)
    }
    jax, failed = {}, ""
    try:
        jax = ask_once({"do": "describe", "entrants": [impls.BASELINE], "outside": {}})
    except WorkerFailedError as error:
        failed = failure(error)
    return Machine(
        root=root,
        count=os.cpu_count() or 1,
        usable=usable,
        memory=memory.total,
        free=memory.available,
        load=os.getloadavg()[0],
        stolen=stolen,
        others=others,
        loop=loop,
        throttled=throttles(root, usable) - before,
        on_battery=battery is not None and not battery.power_plugged,
        missing=missing,
        gpus=gpus() or (),
        jax=jax,
        failure=failed,
    )


def watched(seconds: float) -> tuple[float, float, Float[np.ndarray, " times"]]:
    """Return the parts of processor time that went elsewhere, and the times of a loop.

    The loop runs on one core all the time; its own time is not counted as that of others.
    """
    clock, took = time.perf_counter, list[float]()
    before, own = machine_seconds(), time.process_time()
    start = clock()
    while not took or clock() - start < seconds:
        begun = clock()
        sum(range(LOOP))
        took.append(clock() - begun)
    wall, own = clock() - start, time.process_time() - own
    stolen, used = (now - then for now, then in zip(machine_seconds(), before, strict=True))
    whole = wall * (os.cpu_count() or 1)
    return stolen / whole, max(0.0, used - own) / whole, np.array(took)


def findings(machine: Machine) -> Iterator[MachineFinding]:
    """Yield the findings of all probes."""
    for probe in PROBES:
        yield from probe(machine)


def hardware(machine: Machine) -> Iterator[MachineFinding]:
    """Yield the system, the processor and the memory."""
    python = platform.python_version()
    yield offered("system", f"{platform.system()} {platform.machine()}, Python {python}")
    cores = f"{machine.count} cores"
    if len(machine.usable) != machine.count:
        cores = f"{len(machine.usable)} of {cores}"
    name = of_cpuinfo(machine.root, "model name") or platform.processor() or platform.machine()
    yield offered("processor", f"{name}, {cores}")
    yield MachineFinding(
        Area.OFFERS,
        "memory",
        f"{gib(machine.memory)}, {gib(machine.free)} free",
        *warning(machine.free < LEAST_FREE, "Close other programs: a worker that swaps is slow."),
    )


def backends(machine: Machine) -> Iterator[MachineFinding]:
    """Yield the versions of jax, its backends, and a GPU that it cannot use."""
    if machine.failure:
        advice = "Nothing can be measured; `python -c 'import jax; print(jax.devices())'` says why."
        yield MachineFinding(Area.OFFERS, "jax", machine.failure, Level.WARNING, advice)
        return
    versions, devices = machine.jax["versions"], machine.jax["devices"]
    yield offered("jax", f"{versions['jax']}, jaxlib {versions['jaxlib']}")
    for backend, kind in devices.items():
        about = machine.jax["details"].get(backend, {})
        words = [f"{about['count']} × {kind}" if about.get("count", 1) > 1 else kind]
        words += [gib(about["memory"])] if about.get("memory") else []
        words += [f"driver: {about['driver']}"] if about.get("driver") else []
        yield offered(f"backend {backend}", ", ".join(words))
    if machine.gpus and "gpu" not in devices:
        seen = f"{machine.gpus[0].name}, for which jax has no backend"
        advice = "pip install --editable '.[cuda13]', or [cuda12] with a driver before 580."
        yield MachineFinding(Area.MISSING, "jax on the GPU", seen, Level.WARNING, advice)


def programs(machine: Machine) -> Iterator[MachineFinding]:
    """Yield the programs and extras that are not installed."""
    for name, advice in machine.missing.items():
        yield MachineFinding(Area.MISSING, name, "not installed", Level.NOTE, advice)


def activity(machine: Machine) -> Iterator[MachineFinding]:
    """Yield what other processes and other guests did."""
    yield timed(
        "load",
        f"{machine.load:.1f} on {machine.count} cores, the last minute's mean",
        *warning(machine.load / machine.count > LOAD, "Wait, or stop other programs."),
    )
    yield timed(
        "other processes",
        f"{machine.others:.0%} of the processor time",
        *warning(machine.others > OTHERS, "Stop other programs; `top` lists them."),
    )
    advice = "Measure at another time, or on a dedicated machine."
    yield timed(
        "other guests",
        f"{machine.stolen:.1%} of the processor time taken by the hypervisor",
        *warning(machine.stolen > STEAL, advice),
    )
    median, most = np.percentile(machine.loop, (50, 95))
    noise = most / median - 1
    advice = "Take more blocks, or a longer --budget: intervals are wider here."
    seen = f"one run in twenty takes {noise:.1%} longer than the median, or more"
    yield timed("a constant loop", seen, *warning(noise > NOISE, advice))


def frequency(machine: Machine) -> Iterator[MachineFinding]:
    """Yield what changes the speed of the cores."""
    root = machine.root
    files = (f"{CPU}/cpu{core}/cpufreq/scaling_governor" for core in machine.usable)
    governors = Counter(text for file in files if (text := read(root / file)))
    if governors:
        seen = ", ".join(f"{name} on {n} cores" for name, n in governors.items())
        changing = bool(governors.keys() - set(STEADY))
        advice = "sudo cpupower frequency-set -g performance"
        yield timed("frequency governor", seen, *warning(changing, advice))
    turbo = {"0": "1", "1": "0"}.get(read(root / CPU / "intel_pstate/no_turbo"))
    boost = read(root / CPU / "cpufreq/boost") or turbo
    if boost == "1":
        seen = "on: the frequency depends on heat and on the number of busy cores"
        advice = "Turn it off to compare seconds between runs; ratios of one run do not need it."
        yield timed("boost", seen, Level.NOTE, advice)
    elif boost:
        yield timed("boost", "off")
    if not (governors or boost):
        yield timed("frequency", "not known on this system", Level.NOTE)
    if machine.throttled:
        seen = f"cores were slowed down {machine.throttled} times while they were watched"
        yield timed("heat", seen, Level.WARNING, "Let it cool, or lower the frequency.")
    if machine.on_battery:
        yield timed("power", "from a battery", Level.WARNING, "Plug it in.")


def sharing(machine: Machine) -> Iterator[MachineFinding]:
    """Yield what cores share: a core between two threads, a machine between guests, a quota."""
    root, usable = machine.root, set(machine.usable)
    if "hypervisor" in of_cpuinfo(root, "flags").split():
        seen = "a guest, whose cores may be threads that are shared with other guests"
        yield timed("virtual machine", seen, Level.NOTE, "Compare within one run only.")
    files = (f"{CPU}/cpu{core}/topology/thread_siblings_list" for core in machine.usable)
    lists = dict.fromkeys(text for file in files if (text := read(root / file)))
    groups = [sorted(usable & set(listed(text))) for text in lists]
    if any(len(group) > 1 for group in groups):
        seen = ", ".join("+".join(map(str, group)) for group in groups if len(group) > 1)
        first = ",".join(str(group[0]) for group in groups if group)
        advice = f"taskset -c {first} pytest bench … uses one thread of each."
        yield timed("two threads on a core", f"these share one: {seen}", Level.NOTE, advice)
    quota, _, period = read(root / QUOTA).partition(" ")
    if quota not in ("", "max"):
        cores = int(quota) / int(period)
        advice = (
            "Give it whole cores (docker run --cpuset-cpus): a process that exceeds the quota is "
            "stopped for the rest of a tenth of a second."
        )
        short = warning(cores < len(usable), advice)
        yield timed("quota of this container", f"{cores:g} cores' time", *short)


def accelerators(machine: Machine) -> Iterator[MachineFinding]:
    """Yield the state of each GPU."""
    for number, gpu in enumerate(machine.gpus):
        name = f"GPU {number}"
        yield offered(name, f"{gpu.name}, {gib(gpu.memory)}, driver {gpu.driver}")
        if gpu.busy > IN_USE or gpu.used > IN_USE * gpu.memory:
            seen = f"busy {gpu.busy:.0%} of the time, {gib(gpu.used)} of its memory taken"
            advice = "Wait for others (nvidia-smi lists them), or set CUDA_VISIBLE_DEVICES."
            yield timed(f"{name} in use", seen, Level.WARNING, advice)
        if gpu.slowed or (gpu.temperature or 0) >= HOT:
            heat = "" if gpu.temperature is None else f", {gpu.temperature:.0f} °C"
            yield timed(f"{name} slowed", f"slowed down{heat}", Level.WARNING, "Let it cool.")
        if gpu.divided:
            seen = "a part of a GPU (MIG), which shares bandwidth and power with the other parts"
            yield timed(f"{name} divided", seen, Level.NOTE, "Say so beside the numbers.")
        if not gpu.persistent:
            seen = "unloaded while idle, so that the first process waits for it"
            advice = "sudo nvidia-smi -pm 1, if import times matter."
            yield timed(f"{name} driver", seen, Level.NOTE, advice)


PROBES = (hardware, backends, programs, activity, frequency, sharing, accelerators)


def offered(name: str, seen: str) -> MachineFinding:
    """Return a finding about something that is there."""
    return MachineFinding(Area.OFFERS, name, seen)


def timed(name: str, seen: str, level: Level = Level.OK, advice: str = "") -> MachineFinding:
    """Return a finding about the reliability of timings."""
    return MachineFinding(Area.TIMING, name, seen, level, advice)


def warning(bad: bool, advice: str) -> tuple[Level, str]:
    """Return the level and the advice of a finding that is a warning in one case."""
    return (Level.WARNING, advice) if bad else (Level.OK, "")


def read(path: Path) -> str:
    """Return the text of a file without its end of line; nothing if it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text("utf-8").strip()
    return ""


def of_cpuinfo(root: Path, key: str) -> str:
    """Return a value of the first core in /proc/cpuinfo, or an empty string."""
    found = re.search(rf"^{key}\s*:(.*)$", read(root / "proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else ""


def listed(text: str) -> Iterator[int]:
    """Yield the numbers of a list such as `0-2,5`."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def throttles(root: Path, cores: Sequence[int]) -> int:
    """Return how many times heat has slowed these cores down since the start."""
    files = (f"{CPU}/cpu{core}/thermal_throttle/core_throttle_count" for core in cores)
    return sum(int(read(root / file) or 0) for file in files)


def gib(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / (1 << 30):.1f} GiB"
