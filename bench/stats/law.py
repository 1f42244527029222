"""A law of costs: a fixed part, and a part for each array of a model.

Workers are the unit: each gives a line of its own through what it measured, and the lines of
workers vary. So whatever moves all sizes of a worker alike is in the doubt of both parts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float

LEAST_WORKERS = 3
LEAST_SIZES = 2


class Range(NamedTuple):
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Law(NamedTuple):
    """cost = fixed + each * size, in seconds."""

    fixed: float
    each: float
    covariance: tuple[float, float, float]
    """Of the two parts: the variance of `fixed`, their covariance, the variance of `each`."""
    workers: int
    misfit: float
    """Largest distance of a size's mean from the line, as a part of the line there."""
    t: float
    """Student's quantile of a 95 % interval from so many workers."""

    def at(self, size: float) -> Range:
        """Return the cost of a size."""
        first, both, second = self.covariance
        variance = first + 2 * size * both + size**2 * second
        return self._range(self.fixed + self.each * size, variance)

    @property
    def of_each(self) -> Range:
        """The part for each, with its interval."""
        return self._range(self.each, self.covariance[2])

    @property
    def of_fixed(self) -> Range:
        """The fixed part, with its interval."""
        return self._range(self.fixed, self.covariance[0])

    def _range(self, value: float, variance: float) -> Range:
        half = self.t * math.sqrt(max(0.0, variance))
        return Range(value, value - half, value + half)


def law(
    sizes: Float[np.ndarray, " sizes"],
    costs: Float[np.ndarray, "workers sizes"],
    level: Float[np.ndarray, " sizes"],
) -> Law | None:
    """Fit a line in each worker, by least squares; None from fewer than three workers.

    Args:
        sizes: Increasing.
        costs: In seconds; NaN where a worker has not measured a size.
        level: What the noise of a cost is about proportional to, as the time of the whole call.
    """
    lines = [
        np.polyfit(sizes[have], row[have], 1, w=1 / level[have])
        for row in costs
        if (have := ~np.isnan(row)).sum() >= LEAST_SIZES
    ]
    if len(lines) < LEAST_WORKERS:
        return None
    each, fixed = np.mean(lines, 0)
    second, both, _, first = (np.cov(np.array(lines).T) / len(lines)).ravel()
    known = ~np.isnan(costs).all(0)
    expected = fixed + each * sizes[known]
    away = np.abs(np.nanmean(costs[:, known], 0) - expected) / np.abs(expected)
    covariance = float(first), float(both), float(second)
    t = quantile(len(lines))
    return Law(float(fixed), float(each), covariance, len(lines), float(away.max()), t)


def along(x: float, sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return a cost on the lines that join those of increasing sizes; the outer ones go on.

    Raises:
        ValueError: there are fewer than two.
    """
    first = min(max(bisect_left(sizes, x), 1), len(sizes) - 1) - 1
    (low, high), (start, end) = sizes[first : first + 2], costs[first : first + 2]
    return start + (x - low) * (end - start) / (high - low)


def power_law(costs: Mapping[int, Sequence[float]]) -> Range:
    """Return the power of a size that costs grow with: the slope of their logarithms.

    Args:
        costs: By size, of independent processes.
    """
    from scipy import special, stats  # which take a second to import

    sizes, logs = np.array([(math.log(n), math.log(c)) for n, own in costs.items() for c in own]).T
    fit = stats.linregress(sizes, logs)
    half = float(special.stdtrit(len(logs) - 2, 0.975)) * float(fit.stderr)
    return Range(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def mean_of_workers(values: Sequence[float]) -> Range:
    """Return the mean of one value from each worker, with its 95 % interval."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = quantile(len(values)) * error
    return Range(mean, mean - half, mean + half)


def quantile(workers: int) -> float:
    """Return Student's quantile of a 95 % interval from so many workers."""
    from scipy import special  # which takes a third of a second to import

    return float(special.stdtrit(workers - 1, 0.975))
