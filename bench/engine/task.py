"""Tasks: which cells to measure, on which sides; a side is an environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.process import Place
    from bench.offer import Offer
    from bench.options import Options
    from bench.runfile import EnvironmentInfo, FileKind


@dataclass(frozen=True)
class Side:
    """An environment: the place of its workers, and its contents."""

    place: Place
    offer: Offer
    info: EnvironmentInfo
    heavy: bool = False
    """Whether its libraries may take minutes to import."""


@dataclass(frozen=True)
class Task:
    """Cells to measure in some environments, and which of these take turns."""

    kind: FileKind
    arguments: tuple[str, ...]
    """The command line after the program's name, to repeat it by."""
    needed: Mapping[str, Mapping[Cell, frozenset[str]]]
    """environment → cell → metrics; baselines are added."""
    sides: Mapping[str, Side]
    """environment → side."""
    options: Options
    groups: Sequence[tuple[str, ...]] = ()
    """Environments whose workers take turns; each for itself if none."""
    base: str = ""
    """Environment that others are compared with; empty where arms are compared with the
    baseline."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Name → file of an entrant that is not the project's."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Requested style that cannot take part → why."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Entrant → a remark."""
    metrics: Sequence[str] = ()
    """Metrics that were asked for by name, all if none: where all rows are corrected together, no
    other is compared."""
    all_together: bool = False
    """Whether verdicts are corrected for all rows together, since they give one answer."""
