"""Samples with the place where each was taken: the one table from which everything is estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bench.cells import Cell

type Cores = tuple[int, ...]
"""The cores that a worker keeps to; empty for all that this process may use."""


class Sample(NamedTuple):
    """What one worker measured of one cell, metric and block: one row of the table of data."""

    environment: str
    """Empty for the shared one of a run."""
    cell: Cell
    metric: str
    worker: int
    """Number of the process; of environments that take turns, of their pair of processes."""
    block: int
    """The same number for all arms of a block, and for the blocks of a pair that took turns; of a
    cold process, of the process or pair."""
    at: float
    """Seconds since the run began, when the block ended."""
    cores: int
    """Cores that the worker kept to; 0 for all."""
    value: float
    """As in `bench.worker.protocol.WorkerSample`, like the rest."""
    calls: int = 1
    median: float | None = None
    p95: float | None = None

    @property
    def typical(self) -> float:
        """The median of the calls: what a user sees, where `value` is what compares best."""
        return self.value if self.median is None else self.median
