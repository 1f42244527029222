"""What the system says of its processors, in `/proc` and `/sys`.

Each function takes the folder that stands for `/`, and returns None, or nothing, where the system
does not tell.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CPU = "sys/devices/system/cpu"
GROUPS = "sys/fs/cgroup"


def read(path: Path) -> str | None:
    """Return a file's text without its end of line; None where it cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text("utf-8").strip()
    return None


def governors(root: Path, cores: Iterable[int]) -> Counter[str]:
    """Return how many cores each frequency governor has."""
    texts = (read(root / CPU / f"cpu{core}/cpufreq/scaling_governor") for core in cores)
    return Counter(text for text in texts if text)


def boosts(root: Path) -> bool | None:
    """Return whether a core may go beyond its nominal frequency while it is cool enough."""
    if (text := read(root / CPU / "cpufreq/boost")) is not None:
        return text == "1"
    if (text := read(root / CPU / "intel_pstate/no_turbo")) is not None:
        return text == "0"
    return None


def shared(root: Path, cores: Iterable[int]) -> list[tuple[int, ...]]:
    """Return the groups of these logical cores that are threads of one physical core."""
    found = dict.fromkeys(
        text
        for core in cores
        if (text := read(root / CPU / f"cpu{core}/topology/thread_siblings_list"))
    )
    usable = set(cores)
    groups = (tuple(sorted(usable & set(listed(text)))) for text in found)
    return [group for group in groups if len(group) > 1]


def listed(text: str) -> list[int]:
    """Return the numbers of a list such as `0-2,5`."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def throttles(root: Path, cores: Iterable[int]) -> int | None:
    """Return how often these cores have been slowed down by heat since the start."""
    texts = [read(root / CPU / f"cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    numbers = [int(text) for text in texts if text and text.isdigit()]
    return sum(numbers) if numbers else None


def virtual(root: Path) -> bool | None:
    """Return whether this is a guest of a hypervisor."""
    text = read(root / "proc/cpuinfo")
    flags = [line for line in (text or "").splitlines() if line.startswith("flags")]
    return "hypervisor" in flags[0].split() if flags else None


def group(root: Path) -> Path:
    """Return the folder of our own control group; the root's where it is not known."""
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        number, _, path = line.split(":", 2)
        if number == "0" and (root / GROUPS / path.lstrip("/")).is_dir():
            return root / GROUPS / path.lstrip("/")
    return root / GROUPS


def quota(root: Path) -> float | None:
    """Return how many cores' time a container may use; None where it may use all."""
    text = read(group(root) / "cpu.max")
    if text is not None:
        most, _, period = text.partition(" ")
    else:
        most = read(root / GROUPS / "cpu/cpu.cfs_quota_us") or "-1"
        period = read(root / GROUPS / "cpu/cpu.cfs_period_us") or "100000"
    with suppress(ValueError):
        return int(most) / int(period) if int(most) > 0 else None
    return None  # it says max


def held_back(root: Path) -> int | None:
    """Return how often the quota has been used up, and the container has been held back."""
    for line in (read(group(root) / "cpu.stat") or "").splitlines():
        name, _, number = line.partition(" ")
        if name == "nr_throttled":
            return int(number)
    return None
