"""Which cores workers keep to: all of them one after the other, or one each, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.worker.settings import affinity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.samples import Cores

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def one_core_lanes(cores: Sequence[int] | None = None) -> list[Cores]:
    """Return a core for each worker that may run at the same time as others.

    Two on two cores: there, two pinned workers disturb each other less than one alone, since a
    virtual CPU that never halts is never woken up. From four on, half of them, one hardware thread
    of a core only, so that what else the machine does has somewhere to go. Where the system cannot
    pin a process, one lane that is free to move.

    Args:
        cores: Those that this program may use; asked of the system if None.
    """
    cores = affinity() if cores is None else cores
    if not cores:
        return [()]
    if len(cores) <= 3:
        return [(core,) for core in cores[:2]]
    physical = one_thread_each(cores)
    return [(core,) for core in physical[: max(2, len(cores) // 2)]]


def one_thread_each(cores: Sequence[int]) -> list[int]:
    """Return one hardware thread of each core; all of them where the system does not tell."""
    found: dict[str, int] = {}
    for core in cores:
        try:
            siblings = Path(SIBLINGS.format(core)).read_text("ascii").strip()
        except OSError:
            siblings = str(core)
        found.setdefault(siblings, core)
    return list(found.values())
