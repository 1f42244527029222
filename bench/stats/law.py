"""A law of costs: a fixed part, and a part for each array of a model.

Workers are the unit. Each gives a straight line of its own through what it measured, and the law
is the mean of these lines: what moves all sizes of a worker alike is in the doubt of both parts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bench.estimates import Estimate

if TYPE_CHECKING:
    from jaxtyping import Float

    from bench.cells import Cell

MIN_WORKERS = 3
"""Lines with fewer of which there is no law: their spread would be a guess."""
MIN_SIZES = 2
"""Sizes that a worker's line goes through at least."""


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds added to a call: fixed + each * arrays."""

    fixed: float
    each: float
    """Seconds of one array."""
    covariance: tuple[float, float, float]
    """Variance of `fixed`, covariance of the two, and variance of `each`."""
    workers: int
    t: float
    """Student's quantile of a 95 % interval from so many workers."""
    misfit: float
    """Largest distance of a size's mean from the line, as a fraction of the line there."""

    def estimate(self, cell: Cell, metric: str, *, fixed: float = 1.0, arrays: float) -> Estimate:
        """Return fixed * `fixed` + arrays * `each` with its interval, as seconds added in a cell.

        A model of n arrays is `arrays=n`, each array by itself `fixed=0, arrays=1`.
        """
        first, both, second = self.covariance
        variance = fixed**2 * first + 2 * fixed * arrays * both + arrays**2 * second
        error = math.sqrt(max(0.0, variance))
        value = fixed * self.fixed + arrays * self.each
        return Estimate(
            cell=cell,
            against=str(cell.baseline.arm),
            metric=metric,
            unit="s",
            form="added",
            value=value,
            low=value - self.t * error,
            high=value + self.t * error,
            standard_error=error,
            df=self.workers - 1.0,
            workers=self.workers,
        )


def fit(
    sizes: Float[np.ndarray, " sizes"],
    costs: Float[np.ndarray, "workers sizes"],
    level: Float[np.ndarray, " sizes"],
) -> Law | None:
    """Fit a line in each worker, by least squares; None from fewer than `MIN_WORKERS`.

    Args:
        sizes: Increasing.
        costs: In seconds; NaN where a worker has not measured a size.
        level: What the noise of a cost is about proportional to, as the time of the whole call.
    """
    from scipy import special  # takes a third of a second to import

    lines = [
        np.polyfit(sizes[known], row[known], 1, w=1 / level[known])
        for row in costs
        if (known := ~np.isnan(row)).sum() >= MIN_SIZES
    ]
    if len(lines) < MIN_WORKERS:
        return None
    each, fixed = np.mean(lines, 0).tolist()
    second, both, _, first = (np.cov(np.array(lines).T) / len(lines)).ravel().tolist()
    measured = ~np.isnan(costs).all(0)
    line = fixed + each * sizes[measured]
    misfit = np.abs(np.nanmean(costs[:, measured], 0) - line) / np.abs(line)
    return Law(
        fixed=fixed,
        each=each,
        covariance=(first, both, second),
        workers=len(lines),
        t=float(special.stdtrit(len(lines) - 1, 0.975)),
        misfit=float(misfit.max()),
    )
