"""The published table of costs: what each style adds to a call, by the arrays of a model.

The law is a line: a fixed part, and a part for each array. `results/cost/law.py` fits it to a run.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from bench.cells import BASELINE, Arm
from bench.estimates import Estimate
from bench.metrics import HOST

PUBLISHED = Path(__file__).parent / "host-cost.json"


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds added to a call: fixed + of_array * arrays."""

    fixed: float
    of_array: float
    """Seconds of one array."""
    covariance: tuple[float, float, float]
    """Variance of `fixed`, covariance of the two, and variance of `of_array`."""
    workers: int
    t: float
    """Student's quantile of a 95 % interval from so many workers."""
    misfit: float
    """Largest distance of a size's mean from the line, as a fraction of the line there."""


class StyleCost(msgspec.Struct, frozen=True, kw_only=True):
    """The law of one style: seconds that it adds to plain JAX's call."""

    entrant: str
    style: str
    law: Law

    @property
    def arm(self) -> Arm:
        """Its entrant and style."""
        return Arm(self.entrant, self.style)

    @property
    def per_array(self) -> Estimate:
        """What it adds for each array."""
        return self.at(1, fixed=0.0)

    def at(self, arrays: int, *, fixed: float = 1.0) -> Estimate:
        """Return what it adds to a call with so many parameter arrays.

        Args:
            arrays: Of the model.
            fixed: How often the fixed part counts; 0 for that of the arrays alone.
        """
        law, (first, both, second) = self.law, self.law.covariance
        error = math.sqrt(
            max(0.0, fixed**2 * first + 2 * fixed * arrays * both + arrays**2 * second)
        )
        value = fixed * law.fixed + arrays * law.of_array
        return Estimate(
            cell=self.arm.at("depth", "cpu"),
            against=str(BASELINE),
            metric=HOST,
            unit="s",
            form="added",
            value=value,
            low=value - law.t * error,
            high=value + law.t * error,
            standard_error=error,
            df=law.workers - 2.0,
            workers=law.workers,
        )


class CostTable(msgspec.Struct, frozen=True, kw_only=True):
    """The laws of all styles on one machine, and what its file has."""

    machine: str
    versions: dict[str, str]
    when: str
    """Year to second, UTC."""
    run: str
    """Name of the run file that the laws were fitted to."""
    arrays: tuple[int, int]
    """Fewest and most that were measured."""
    styles: tuple[StyleCost, ...]

    @property
    def by_style(self) -> dict[str, StyleCost]:
        """Costs by `entrant/style`."""
        return {str(style.arm): style for style in self.styles}


def published() -> CostTable:
    """Return the published table."""
    return msgspec.json.decode(PUBLISHED.read_bytes(), type=CostTable)
