"""Samples: the one table from which everything is estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bench.cells import Cell

type Cores = tuple[int, ...]
"""Cores that a worker keeps to; empty for all that this process may use."""


class Sample(NamedTuple):
    """One worker's number for one cell, metric and block: one row of the table."""

    environment: str
    """Environment of the worker; empty: the shared one of a run."""
    cell: Cell
    metric: str
    worker: int
    """Number of the process; of two environments that take turns, of the pair of processes."""
    block: int
    """Number of the block, shared by all its arms, and by both workers of a pair; of a cold
    process, number of the process or pair."""
    at: float
    """Seconds since the run began, when the block ended."""
    cores: int
    """Cores that the worker kept to; 0 for all."""
    value: float
    """Number that is compared, defined in `bench.worker.protocol.WorkerSample`, as the rest is."""
    calls: int = 1
    median: float | None = None
    p95: float | None = None

    @property
    def typical(self) -> float:
        """Median of the calls, as a user sees them; `value` is better to compare."""
        return self.value if self.median is None else self.median
