"""The law of added time: a fixed part, and a part for each parameter array of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from bench.cells import BASELINE
from bench.estimates import Estimate
from bench.metrics import HOST

if TYPE_CHECKING:
    from bench.cells import Cell


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
    """Largest relative deviation of one model depth's mean from the fitted line."""


def predict_added_time(law: Law, cell: Cell, arrays: int, fixed: float = 1.0) -> Estimate:
    """Return the seconds that a cell's style adds to a call with this many parameter arrays.

    The law's fixed part is taken `fixed` times.
    """
    first, both, second = law.covariance
    error = math.sqrt(max(0.0, fixed**2 * first + 2 * fixed * arrays * both + arrays**2 * second))
    value = fixed * law.fixed + arrays * law.of_array
    return Estimate(
        cell=cell,
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
