"""Intervals by which styles are tied: as wide as the number of comparisons asks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.report import wording
from bench.stats.nested import Estimate
from bench.summary import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.report.wording import Facts

type Intervals = dict[str, tuple[float, float, float]]
"""Ratio, lower and upper end by style's name."""


def confidence(section: Facts) -> float:
    """Return that of one interval, such that all of a run's hold with the usual one (Bonferroni).

    So a style that is put apart is as good as called different.
    """
    return 1 - (1 - CONFIDENCE) / max(1, section.get("comparisons") or 1)


def estimate_of(found: Facts) -> Estimate | None:
    """Return the estimate that a metric's ratio is, if its doubt is known."""
    if found.get("ratio") is None or found.get("standard_error") is None:
        return None
    error, df = found["standard_error"], found.get("df") or 1.0
    blocks, processes = found.get("blocks") or 1, found.get("processes") or 1
    return Estimate(math.log(found["ratio"]), error, df, blocks, processes)


def intervals(section: Facts, cells: Iterable[Facts], metric: str) -> Intervals:
    """Return the intervals of a metric in some cells, the baseline's too."""
    level, out = confidence(section), {}
    for cell in cells:
        found = wording.measured(cell, metric)
        if found is None:
            continue
        if wording.is_baseline(cell):
            out[wording.name(cell)] = (1.0, 1.0, 1.0)
        elif (estimate := estimate_of(found)) is not None:
            out[wording.name(cell)] = (estimate.ratio, *estimate.interval(level))
        elif found.get("ratio") is not None and found.get("low") is not None:
            high = found.get("high")
            ends = found["low"], math.inf if high is None else high
            out[wording.name(cell)] = (found["ratio"], *ends)
    return out
