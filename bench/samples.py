"""What was found: blocks and cold samples, by cell, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from bench.cells import BASELINE, CONTROL, Cell

type Cores = tuple[int, ...]
"""The cores that a worker keeps to; empty for all that this process may use."""

BASELINE_ARM, CONTROL_ARM = "/".join(BASELINE), "/".join(CONTROL)
MIN_VISITS = 3
"""Workers that measure a step before anything else gets time: with fewer, what a process adds to
an arm is a guess."""
MIN_COLD = 5
"""Cold samples of a cell, or none: two gave intervals such as 1 (0 to 9)."""
STARVED = "not measured within the budget"


class Turn(NamedTuple):
    """Something warm to measure: a kind of turn at a workload."""

    workload: str
    kind: str


class Block(msgspec.Struct, frozen=True):
    """What one worker measured in one go: rounds of several arms over one set of fresh buffers."""

    number: int
    """The same for blocks of two sides that took turns."""
    process: int
    """Number of the worker; of sides that took turns, of their pair."""
    side: str
    workload: str
    backend: str
    kind: str
    cores: Cores
    at: float
    """Seconds of the run's budget that were spent when it ended."""
    rounds: int
    seconds: dict[str, dict[str, list[float]]]
    """By metric and arm, in the order they were taken."""
    cpu_seconds: dict[str, float] = {}
    """By arm: processor seconds per second of wall time."""


class Samples(NamedTuple):
    """One arm's part of a block, or the one sample of a cold process."""

    process: int
    number: int
    at: float
    values: list[float]
    """In the metric's unit, in the order they were taken."""
    rounds: int = 1
    cores: Cores = ()


@dataclass
class Found:
    """What was found in a cell."""

    blocks: dict[str, list[Samples]] = field(default_factory=dict)
    """By metric: views of the blocks that the arm takes part in."""
    proof: dict[str, Any] | None = None
    losses: tuple[float, ...] = ()
    """Of ten steps, in its proof."""
    exact: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why there is no number: the cell is not equal, or its worker died twice in a row."""
    stderr: str = ""
    """What its worker said last, if it failed."""

    def values(self, metric: str) -> list[float]:
        """Return all samples of a metric."""
        return [value for samples in self.blocks.get(metric, []) for value in samples.values]


class OtherProcess(NamedTuple):
    """A process that is not ours."""

    name: str
    cores: float
    """That it kept busy, on the average."""


class Elsewhere(NamedTuple):
    """Where a machine's processor time went beside the run, as parts of all of it."""

    stolen: float = 0.0
    """The hypervisor gave it to other guests."""
    others: float = 0.0
    """Other processes used it."""
    busiest: OtherProcess | None = None
    """The one that used most, where that is worth a sentence."""


@dataclass
class Spent:
    """Where the time went, in seconds."""

    wall: float = 0.0
    sampling: float = 0.0
    """Blocks, trainings, and in cold processes what was timed; where several workers are at work,
    each counts for its share."""
    processes: int = 0
    elsewhere: Elsewhere = field(default_factory=Elsewhere)


@dataclass
class State:
    """All of one side, or of a run."""

    cells: dict[Cell, Found]
    missing: dict[tuple[Cell, str], str] = field(default_factory=dict)
    """Why a metric was not measured in a cell."""
    blocks: list[Block] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    """What each side and backend got."""
    notes: list[str] = field(default_factory=list)
    """What went wrong on the way, in sentences."""
    spent: Spent = field(default_factory=Spent)
