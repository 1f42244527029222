"""A law of costs: a fixed part, and a part for each array of a model.

Workers are the unit, whether each has measured one size or all of them: how much the line moves
where one worker is left out is the doubt of both parts (the jackknife; Tukey 1958).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bench.estimates import Estimate

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from bench.cells import Cell

MIN_SIZES = 2
"""Sizes that are left, whichever worker is left out: a line needs two points."""


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
            df=self.workers - 2.0,
            workers=self.workers,
        )


def fit(
    sizes: Float[np.ndarray, " points"],
    costs: Float[np.ndarray, " points"],
    levels: Float[np.ndarray, " points"],
    workers: Int[np.ndarray, " points"],
) -> Law | None:
    """Fit a line by least squares; None from too few workers.

    Args:
        sizes: Numbers of arrays.
        costs: In seconds, the mean of a worker at a size.
        levels: What the noise of a cost is about proportional to, as the time of the whole call.
        workers: Number of the worker that measured it.
    """
    from scipy import special  # takes a third of a second to import

    def line(points: Bool[np.ndarray, " points"]) -> Float[np.ndarray, " 2"]:
        return np.polyfit(sizes[points], costs[points], 1, w=1 / levels[points])[::-1]

    left = [workers != worker for worker in np.unique(workers)]
    if any(np.unique(sizes[points]).size < MIN_SIZES for points in left):
        return None
    number = len(left)
    moved = np.array([line(points) for points in left])
    covariance = np.cov(moved.T) * (number - 1) ** 2 / number
    fixed, each = line(np.ones(sizes.size, bool)).tolist()
    means = {size: float(np.mean(costs[sizes == size])) for size in np.unique(sizes).tolist()}
    return Law(
        fixed=fixed,
        each=each,
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        workers=number,
        t=float(special.stdtrit(number - 2, 0.975)),
        misfit=max(abs(mean / (fixed + each * size) - 1) for size, mean in means.items()),
    )
