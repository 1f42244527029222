"""Forecast of the difference that a budget can detect, from the variation in its first seconds."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import REFERENCE
from bench.estimates import ALPHA, POWER, group_by_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.samples import Sample

P95_SDS = 1.645
"""Standard deviations of a normal variable between its median and its 95 % quantile."""
EXCESS = 1.1
"""Factor by which intervals are wider than those of so many independent blocks: workers vary, too,
and a standard error is not known exactly."""


def estimate_variation(samples: Sequence[Sample]) -> float:
    """Return how much single calls vary: the standard deviation of their logarithm.

    It is estimated from the median and the 95 % quantile of each block's calls, so that a rare long
    call does not count; then the median over blocks and arms is taken.
    """
    ratios = [s.p95 / s.median for s in samples if s.p95 and s.median]
    return math.log(statistics.median(ratios)) / P95_SDS if ratios else 0.0


def forecast_difference(samples: Sequence[Sample], times: float, *, base: str = "") -> float:
    """Return the difference that about four runs of five find with more samples like these.

    Args:
        samples: Samples of steps of one workload.
        times: Factor by which their number will grow.
        base: Environment that others are compared with; empty if arms are, with the references.

    Returns:
        A fraction; infinite where too little is known, as where nothing varies.
    """
    from scipy import special  # takes a third of a second to import

    by_block = group_by_key(
        (s.block, ((s.environment, s.cell), math.log(s.value))) for s in samples
    )
    tables = [dict(rows) for rows in by_block.values()]
    if base:
        tables = [
            {key: log - logs[base, key[1]] for key, log in logs.items() if key[0] != base}
            for logs in tables
            if all((base, cell) in logs for _, cell in logs)
        ]
    keys = [key for key in (tables[0] if tables else ()) if all(key in logs for logs in tables)]
    members = [key for key in keys if key[1].arm not in REFERENCE] or keys[:-1]
    references = len(keys) - len(members)
    if len(tables) < 2 or not members or not (base or references):
        return math.inf
    rest = np.array([[logs[key] for key in keys] for logs in tables])
    free = (len(tables) - 1) * (len(keys) if base else len(keys) - 1)
    rest -= rest.mean(0)
    if not base:  # the effect that all arms of a block share is no arm's noise
        rest -= rest.mean(1, keepdims=True)
    spread = math.sqrt((rest**2).sum() / free)
    of_two = spread if base else spread * math.sqrt(1 + 1 / references)
    needed = float(special.ndtri(1 - ALPHA / 2 / len(members)) + special.ndtri(POWER))
    return EXCESS * needed * of_two / math.sqrt(max(1.0, times * len(tables))) or math.inf
