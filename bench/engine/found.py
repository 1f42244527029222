"""What a run has found so far: samples by cell and metric, proofs, failures, the time it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench.cells import Cell


class Block(NamedTuple):
    """Samples of one arm in one block, or the sample of one cold process."""

    process: int
    number: int
    """Of the block, the same for all arms that were interleaved in it."""
    at: float
    """Seconds of the run's budget that were spent when it ended."""
    values: list[float]
    """In the metric's unit, in the order they were taken."""
    rounds: int = 1
    """In which they were taken, as many in each."""


@dataclass
class Found:
    """What was found in a cell."""

    blocks: dict[str, list[Block]] = field(default_factory=dict)
    """By metric."""
    proof: dict[str, Any] | None = None
    exact: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why there is no number: the cell is not equal, or its worker failed."""
    stderr: str = ""
    """What its worker said last, if it failed."""

    def values(self, metric: str) -> list[float]:
        """Return all samples of a metric."""
        return [value for block in self.blocks.get(metric, []) for value in block.values]


@dataclass
class Spent:
    """Where the time went, in seconds."""

    wall: float = 0.0
    sampling: float = 0.0
    """Blocks, trainings, and in cold processes what was timed."""
    processes: int = 0
    busy: list[tuple[float, float, float]] = field(default_factory=list)
    """For each block: its wall seconds, processor seconds stolen, and used by others."""


@dataclass
class State:
    """All of it."""

    cells: dict[Cell, Found]
    spent: Spent = field(default_factory=Spent)
    notes: list[str] = field(default_factory=list)
    """What went otherwise than planned, in words."""
    missing: dict[tuple[Cell, str], str] = field(default_factory=dict)
    """Why a cell has nothing for a metric, though it could have."""
    plan: dict[str, Any] = field(default_factory=dict)
    """What the schedule decided."""
