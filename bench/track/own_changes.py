"""Changes along a project's own runs: neighbours whose ratios differ by more than runs wander."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bench.measure.cells import BASELINE
from bench.measure.metrics import METRICS, TINY
from bench.measure.metrics import Kind as Sampling
from bench.stats.nested import Estimate
from bench.stats.verdict import holm
from bench.track.between import BETWEEN, Kind, difference
from bench.track.line import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.track.entries import Key
    from bench.track.line import Series

ALPHA = 0.05
"""Odds of any false change among all series that are looked at together."""


def find_changes(series: Sequence[Series]) -> list[Change]:
    """Return where a ratio to the baseline differs between neighbouring runs.

    An index keeps no proof, so what wanders less, the baseline's own program, is taken to wander as
    the others do. Exact metrics need no test.
    """
    tests: list[tuple[Series, int, Estimate]] = []
    for each in series:
        if each.key.exact or not each.compared or each.key.metric not in METRICS:
            continue
        wobble = BETWEEN[kind(each.key)]
        have = [i for i in range(each.at.size) if known(each, i)]
        for before, after in pairwise(have):
            tests.append((each, after, difference([at(each, before)], at(each, after), wobble)))
    adjusted = holm(np.array([estimate.p_value() for _, _, estimate in tests]))
    out = []
    for (each, point, estimate), p in zip(tests, adjusted.tolist(), strict=True):
        if p <= ALPHA:
            low, high = estimate.interval()
            out.append(Change(each.key, point, estimate.ratio, low, high, p))
    return out


def kind(key: Key) -> Kind:
    """Return what a series wanders like, as far as its name says it."""
    if key.metric == "peak_rss":
        return Kind.MEMORY
    if METRICS[key.metric].kind is Sampling.COLD:
        return Kind.COLD
    if key.workload in TINY:
        return Kind.HOST
    return Kind.OTHER if key.style == BASELINE[1] else Kind.SEVERAL


def known(series: Series, point: int) -> bool:
    """Tell whether a point has a ratio and its doubt."""
    values = series.ratio[point], series.standard_error[point], series.df[point]
    return all(math.isfinite(value) for value in values) and series.ratio[point] > 0


def at(series: Series, point: int) -> Estimate:
    """Return a point as an estimate."""
    return Estimate(
        math.log(series.ratio[point]),
        float(series.standard_error[point]),
        float(series.df[point]),
        0,
        0,
    )
