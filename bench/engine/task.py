"""What is to be measured: sides, which are environments, and the task that names their cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.process import Place
    from bench.environments.offers import Offer
    from bench.options import Options
    from bench.runfile import EnvironmentInfo, FileKind


@dataclass(frozen=True)
class Side:
    """An environment: where its workers run, and what it has."""

    place: Place
    offer: Offer
    info: EnvironmentInfo
    heavy: bool = False
    """Whether its libraries may take minutes to import."""


@dataclass(frozen=True)
class Task:
    """What is to be measured: cells of environments, and which of these take turns."""

    kind: FileKind
    arguments: tuple[str, ...]
    """The command line after the program's name, to repeat it by."""
    needed: Mapping[str, Mapping[Cell, frozenset[str]]]
    """By environment: metrics, by cell; baselines are added."""
    sides: Mapping[str, Side]
    """By environment."""
    options: Options
    groups: Sequence[tuple[str, ...]] = ()
    """Environments whose workers take turns; each for itself if none."""
    base: str = ""
    """Environment that others are compared with; empty where arms are, with the baseline."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Files of entrants that are not the project's, by name."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Styles that were asked for and cannot take part, and why."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks on entrants, by name."""
    metrics: Sequence[str] = ()
    """Those that were asked for by name: where all rows are corrected together, nothing else is
    compared; all if none."""
    all_together: bool = False
    """Whether verdicts are corrected for all rows together, as one answer is given by them."""
