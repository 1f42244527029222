"""Changes along a project's own runs: ratios that differ by more than runs of the same code do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE
from bench.compare.between_run_variance import BETWEEN, Variation
from bench.compare.line import Change
from bench.metrics import METRICS, TINY, Kind
from bench.stats.changes import Observations, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int

    from bench.compare.line import Series
    from bench.compare.summaries import Key

ALPHA = 0.05
"""Odds of any false change among all series that are looked at together."""
MOST_ERROR = 1.0
"""Standard error of a log-ratio that says anything."""


def find_changes(series: Sequence[Series]) -> list[Change]:
    """Return where a ratio to the baseline differs between neighbouring runs, or groups of runs.

    Summaries keep no proof, so arms with the baseline's own program, which vary less from run to
    run, are taken to vary as the others do. Exact metrics need no test.
    """
    usable = [
        (each, known(each))
        for each in series
        if not each.key.exact and each.compared and each.key.metric in METRICS
    ]
    points = [at(each, have) for each, have in usable]
    out = []
    for (each, have), found in zip(usable, steps(points, ALPHA), strict=True):
        for step in found:
            before, after = have[[step.before, step.after]].tolist()
            ratio, low, high = map(math.exp, (step.log_ratio, step.low, step.high))
            out.append(Change(each.key, before, after, ratio, low, high, step.p, step.width))
    return out


def variation(key: Key) -> Variation:
    """Return how a series varies from run to run, as far as its name says it."""
    if key.metric == "peak_rss":
        return Variation.MEMORY
    if METRICS[key.metric].kind is Kind.COLD:
        return Variation.COLD
    if key.workload in TINY:
        return Variation.HOST
    return Variation.OTHER if key.style == BASELINE[1] else Variation.SEVERAL


def known(series: Series) -> Int[np.ndarray, " known"]:
    """Return the points that have a ratio and its doubt."""
    with np.errstate(invalid="ignore"):
        have = (series.ratio > 0) & (series.standard_error < MOST_ERROR) & (series.df > 0)
    return np.flatnonzero(have & np.isfinite(series.ratio))


def at(series: Series, have: Int[np.ndarray, " known"]) -> Observations:
    """Return those points, with the variance between runs beyond that within them."""
    wobble = BETWEEN[variation(series.key)]
    return Observations(
        np.log(series.ratio[have]),
        series.standard_error[have] ** 2,
        series.df[have],
        np.full(have.size, wobble.sd**2),
        wobble.df,
    )
