"""Where an entrant is judged."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.measure.process import Place

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


def judging(place: Place, root: Path | None = None) -> Place:
    """Return the place in which the judge runs instead of a worker, on the CPU."""
    variables = {**place.variables, "JAX_PLATFORMS": "cpu"}
    root = root or place.root
    return replace(place, command=(interpreter(place), "-m", JUDGE), variables=variables, root=root)


def interpreter(place: Place) -> str:
    """Return the interpreter of a place."""
    return place.command[0] if place.command else sys.executable
