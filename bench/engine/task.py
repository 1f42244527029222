"""Tasks: the cells to measure, and the environments to measure them in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.offer import Offer
from common.versions import PYTHON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.process import Place
    from bench.options import Options
    from bench.runfile import EnvironmentInfo, FileKind


@dataclass(frozen=True)
class Environment:
    """A Python with packages, built: the place of its workers, and its contents."""

    place: Place
    info: EnvironmentInfo
    """Its part of a run file. Until a worker was asked, `versions` has packages built from sources
    alone, named by their commits."""
    python: str = PYTHON
    """Minor version of Python, as in `3.12`."""
    heavy: bool = False
    """Whether its libraries may take minutes to import."""
    offer: Offer = field(default_factory=Offer)
    """Contents, as a worker reports them; empty until one was asked."""


@dataclass(frozen=True)
class Task:
    """Cells to measure in some environments, and the environments that alternate."""

    kind: FileKind
    arguments: tuple[str, ...]
    """The command line after the program's name, to repeat it by."""
    needed: Mapping[str, Mapping[Cell, frozenset[str]]]
    """Name of an environment → cell → metrics; baselines are added."""
    sides: Mapping[str, Environment]
    """Name → environment."""
    options: Options
    groups: Sequence[tuple[str, ...]] = ()
    """Names of environments whose workers alternate; each runs alone if there are none."""
    base: str = ""
    """Environment that others are compared with; empty where arms are compared with the
    baseline."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Entrant or training step of a user's own → its file."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Requested style that cannot take part → why."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Entrant → a remark."""
    metrics: Sequence[str] = ()
    """Metrics requested by name, empty for all: with `all_together`, no others are compared."""
    all_together: bool = False
    """Whether intervals hold for all rows together, since the rows give one answer."""
