"""Where an entrant is judged."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.check.wanted import CPU
from bench.engine.processes import Place
from common.devices import Device

if TYPE_CHECKING:
    from pathlib import Path

JUDGE = "bench.check.judge"


def place_of(name: str) -> Place:
    """Return where an entrant runs: its own environment, built if need be, or this one.

    Raises:
        BakeoffError: its environment cannot be built; why.
    """
    if not impls.declared(name).own_environment:
        return Place()
    from bench.environments.own import Homes

    return Homes(notify=lambda line: print(line, file=sys.stderr)).built(name).place


def judging(place: Place, root: Path | None = None, backend: str = CPU) -> Place:
    """Return the place in which the judge runs instead of a worker, on one backend."""
    variables = {**place.variables, **only(backend)}
    root = root or place.root
    return replace(place, command=(interpreter(place), "-m", JUDGE), variables=variables, root=root)


def only(backend: str) -> dict[str, str]:
    """Return the variables that give a process this backend, and the CPU where it needs one."""
    name = Device.of(backend).backend
    return {"JAX_PLATFORMS": name if name == CPU else f"{name},{CPU}"}


def interpreter(place: Place) -> str:
    """Return the interpreter of a place."""
    return place.command[0] if place.command else sys.executable
