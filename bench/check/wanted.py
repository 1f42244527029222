"""What is asked of the judge: whom to judge, by which checks, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import impls
from bench.check.checks import CHECKS
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

TIME_LIMIT = 60.0
MEMORY = 8 << 30
CPU = "cpu"


@dataclass(frozen=True)
class Wanted:
    """What is asked of the judge."""

    styles: tuple[str, ...] = ()
    """Empty for all."""
    checks: tuple[str, ...] = tuple(CHECKS)
    workloads: tuple[str, ...] = ()
    """Whose sizes numbers are compared at, beside two small ones."""
    seconds: float = TIME_LIMIT
    """For each check."""
    memory: int = MEMORY
    """Bytes for a process."""
    backend: str = CPU
    root: Path = ROOT
    """Of the repository, which nothing may write into."""


@dataclass(frozen=True)
class Asked:
    """An entrant to be judged."""

    name: str
    given: str
    """As it was asked for: a name or a path."""
    path: str
    """Where the file is none of `impls/`; else empty."""


def asked(given: str) -> Asked:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    if given in impls.names() and given not in impls.OUTSIDE:
        return Asked(given, given, "")
    if not given.endswith(".py"):
        known = ", ".join(impls.names())
        raise BakeoffError(
            f"no such entrant {given!r}; give a Python file's path, or one of {known}"
        )
    name = impls.add(given)
    return Asked(name, given, str(impls.OUTSIDE.get(name, "")))
