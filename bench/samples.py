"""Samples and proofs: what a worker returns, the run keeps, and the run file holds.

Workers import this module before imports are timed: it needs no package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.cells import Cell

type Cores = tuple[int, ...]
"""Cores that a worker keeps to; empty for all that this process may use."""


class Sample(NamedTuple):
    """One worker's number for one cell, metric and block: one row of the table.

    The worker gives the first six fields, its parent the others.
    """

    cell: Cell
    metric: str
    value: float
    """Number that is compared, in the metric's unit. Warm block: geometric mean of the fastest half
    of turns; cold process, count, or metric that is not compared: the one number."""
    calls: int = 1
    median: float | None = None
    """Median of the calls, in the same unit; None where the value does not come from calls."""
    p95: float | None = None
    """95 % quantile of the calls, in the same unit."""
    environment: str = ""
    """Environment of the worker; empty: the shared one of a run."""
    worker: int = 0
    """Number of the process; of two environments that alternate, of the pair of processes."""
    block: int = 0
    """Number of the block, shared by all its arms, and by both workers of a pair; of a cold
    process, number of the process or pair."""
    at: float = 0.0
    """Seconds since the run began, when the block ended."""
    cores: int = 0
    """Cores that the worker kept to; 0 for all."""

    @property
    def typical(self) -> float:
        """Median of the calls, as a user sees them; `value` is better to compare."""
        return self.value if self.median is None else self.median


@dataclass(kw_only=True)
class Proof:
    """Proof that a style computes what the baseline computes."""

    loss: float
    """Largest relative difference to the float64 reference's loss."""
    gradient: float
    """Largest norm of a difference of gradients, relative to the reference's."""
    trajectory: float
    """Largest difference between both losses in ten steps, in nats per character."""
    whole_step: bool = True
    """Whether a call runs only the program that was examined."""
    same_program_as_baseline: bool = False
    operations_beside_baseline: dict[str, int] = field(default_factory=dict)
    """Operation counts minus the baseline's."""
    twin: str = ""
    """Reference, as `pure_jax/transposed`, whose program it is, if that is another one than the
    baseline's; known once both are proven."""
    donates: bool | None = None
    """Whether it donates its state; None for a program that is not JAX's."""
    jax: bool | None = True
    """Whether its program is JAX's; False for an outside reference, None if unknown."""
    equal: bool = True
    """Whether it computes the same as the baseline. If False, it is a `make_step` that computes
    something else than its file's model: it is shown without a comparison."""
    state: list[float] | None = None
    """Norm of each array of the state of a user's own step after ten steps."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that an outside reference ran with."""

    @property
    def same_program(self) -> bool:
        """Whether the whole step is the baseline's program."""
        return self.whole_step and self.same_program_as_baseline
