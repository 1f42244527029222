"""From two sides that took turns to ratios with their doubt: pairs of processes are the unit."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.estimates import Group, table
from bench.stats.ratios import paired_sides

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Cell
    from bench.samples import Samples, State
    from bench.stats.ratios import Estimate


def paired(base: State, new: State, cells: Iterable[Cell]) -> dict[tuple[Cell, str], Estimate]:
    """Return each cell's ratio, new to base, of each metric that both sides have in turns.

    Intervals are corrected for all cells of a metric at a workload.
    """
    groups: dict[Group, dict[Cell, tuple[list[Samples], list[Samples]]]] = defaultdict(dict)
    for cell in cells:
        theirs, ours = base.cells.get(cell), new.cells.get(cell)
        if ours is None or theirs is None or ours.failure or theirs.failure:
            continue
        for metric in [name for name in ours.blocks if name in theirs.blocks]:
            groups[Group.of(metric, cell)][cell] = theirs.blocks[metric], ours.blocks[metric]
    out: dict[tuple[Cell, str], Estimate] = {}
    for group, found in groups.items():
        columns: Any = {(c, side): found[c][side] for side in (0, 1) for c in found}
        whole = table(columns)
        before, after = np.split(whole.logs, 2, axis=1)
        ratios = paired_sides(before, after, whole.worker)
        out |= {(c, group.metric): e for c, e in zip(found, ratios, strict=True) if e is not None}
    return out


def of_pairs(base: State, new: State, cell: Cell, metric: str) -> Estimate | None:
    """Return one cell's ratio of one metric."""
    return paired(base, new, [cell]).get((cell, metric))


def log_ratios(base: Sequence[Samples], new: Sequence[Samples]) -> Iterator[tuple[int, float]]:
    """Yield, for each block that both sides have, its pair and the log-ratio of new to base."""
    columns: Any = {"base": base, "new": new}
    whole = table(columns)
    ratios = whole.logs[:, 1] - whole.logs[:, 0]
    known = ~np.isnan(ratios)
    yield from zip(whole.worker[known].tolist(), ratios[known].tolist(), strict=True)
