"""Intervals by which styles are compared with each other, and groups of ties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.report import wording
from bench.stats.ratios import corrected
from bench.stats.verdicts import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.report.wording import Facts
    from bench.stats.ratios import Estimate

type Intervals = dict[str, tuple[float, float, float]]
"""Ratio, lower and upper end by style's name."""


def intervals(cells: Iterable[Facts], metric: str) -> Intervals:
    """Return the intervals of a metric in some cells, the baseline's too."""
    out: Intervals = {}
    for cell in cells:
        found = wording.measured(cell, metric)
        if found is None:
            continue
        if wording.is_baseline(cell):
            out[wording.name(cell)] = (1.0, 1.0, 1.0)
        elif found.get("ratio") is not None and found.get("low") is not None:
            high = found.get("high")
            low, high = found["low"], math.inf if high is None else high
            if found.get("settled_by") == PROGRAM:  # what the proof allows, and timing too
                bound = found["bound"]
                low, high = max(low, 1 - bound), min(high, 1 + bound)
            out[wording.name(cell)] = (min(max(found["ratio"], low), high), low, high)
    return out


def estimate_of(found: Facts) -> Estimate | None:
    """Return the estimate that a metric's ratio in a file is, if its doubt is known.

    Its interval is a single comparison's.
    """
    if found.get("ratio") is None or found.get("standard_error") is None:
        return None
    error, df = found["standard_error"], found.get("df") or 1.0
    blocks, workers = found.get("blocks") or 1, found.get("processes") or 1
    return corrected(math.log(found["ratio"]), error, df, blocks, workers)


def groups(
    section: Facts, metric: str, workload: str, backend: str, found: Intervals
) -> list[list[str]]:
    """Return styles from fast to slow, in groups of which any two are tied.

    They are in the run file, where the test between any two arms was made; an older file has none,
    and there intervals have to overlap.
    """
    for ties in section.get("ties") or []:
        if (ties["metric"], ties["workload"], ties["backend"]) == (metric, workload, backend):
            named = [[name_of(arm) for arm in group] for group in ties["groups"]]
            kept = [[name for name in group if name in found] for group in named]
            return [group for group in kept if group]
    return overlapping(found)


def name_of(arm: str) -> str:
    """Return the name of `entrant/style`."""
    entrant, _, style = arm.partition("/")
    return wording.name({"entrant": entrant, "style": style})


def overlapping(found: Mapping[str, tuple[float, float, float]]) -> list[list[str]]:
    """Return names from fast to slow, in groups whose intervals all overlap."""
    out: list[list[str]] = []
    for name in sorted(found, key=lambda name: found[name][0]):
        _, low, high = found[name]
        group = [found[member] for member in out[-1]] if out else []
        if group and all(low <= end[2] and high >= end[1] for end in group):
            out[-1].append(name)
        else:
            out.append([name])
    return out
