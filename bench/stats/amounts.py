"""Amounts: medians of samples, and differences of known ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.estimates import Estimate, group_by_key
from bench.metrics import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cells import Cell
    from bench.metrics import Metric
    from bench.samples import Sample


def estimate_amount(
    environment: str, cell: Cell, metric: Metric, samples: Sequence[Sample]
) -> Estimate:
    """Return the median of a cell's samples; its interval is that of the mean over workers.

    The interval is Student's over the workers' mean logarithms; None with fewer than two workers,
    and of exact metrics.
    """
    import numpy as np  # with SciPy, it takes a third of a second to import
    from scipy import special

    by_worker = group_by_key((sample.worker, sample.typical) for sample in samples)
    values = [sample.typical for sample in samples]
    median, df = float(np.median(values)), 0.0
    low = high = error = None
    if metric.varies and len(by_worker) > 1 and min(values) > 0:
        means = [float(np.mean(np.log(several))) for several in by_worker.values()]
        df = len(means) - 1.0
        spread = float(np.std(means, ddof=1)) / math.sqrt(len(means))
        half = float(special.stdtrit(df, 0.975)) * spread
        low, high, error = median * math.exp(-half), median * math.exp(half), median * spread
    return Estimate(
        cell=cell,
        environment=environment,
        metric=metric.name,
        unit=metric.unit,
        form="amount",
        value=median,
        low=low,
        high=high,
        standard_error=error,
        df=df,
        workers=len(by_worker),
        blocks=len({sample.block for sample in samples}),
    )


def subtract_amount(amount: Estimate, reference: Estimate) -> Estimate:
    """Return how much an exact amount is above a reference."""
    return replace(amount, form="added", value=amount.value - reference.value)


def make_zero_cost(baseline: Cell) -> Estimate:
    """Return the baseline's host cost relative to itself, which is exactly zero."""
    return Estimate(cell=baseline, metric=HOST, form="added", value=0.0, low=0.0, high=0.0)
