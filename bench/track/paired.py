"""From two sides that took turns to ratios with their doubt.

What two blocks with the same number say, one of each side, is one datum: the log-ratio of their
medians. Blocks are nested in pairs of processes as those of a run are nested in processes, and
cells share the luck of a pair as arms share that of their baseline; so this is `nested`, with a
baseline that takes the same time on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.nested import Estimate, nested
from bench.summary import Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.cells import Cell
    from bench.engine.found import Block, State

    type Data = dict[int, tuple[int, float]]
    """By number of a block: its pair, and what it says."""


def paired(base: State, new: State, cells: Iterable[Cell]) -> dict[tuple[Cell, str], Estimate]:
    """Return each cell's ratio, new to base, of each metric that both sides have in turns."""
    groups: dict[Group, dict[Cell, Data]] = defaultdict(dict)
    for cell in cells:
        ours, theirs = new.cells.get(cell), base.cells.get(cell)
        if ours is None or theirs is None or ours.failure or theirs.failure:
            continue
        for metric in [name for name in ours.blocks if name in theirs.blocks]:
            data = log_ratios(theirs.blocks[metric], ours.blocks[metric])
            if data:
                groups[Group(metric, *cell[2:])][cell] = data
    return {
        (cell, group.metric): estimate
        for group, data in groups.items()
        for cell, estimate in estimates(data).items()
    }


def of_pairs(base: State, new: State, cell: Cell, metric: str) -> Estimate | None:
    """Return a cell's ratio from the means of its pairs alone: a plain t, whatever blocks say.

    Of few pairs, with nothing to pool, no other standard error can be trusted.
    """
    theirs, ours = (side.cells[cell].blocks.get(metric, []) for side in (base, new))
    by_pair: dict[int, list[float]] = defaultdict(list)
    data = log_ratios(theirs, ours)
    for pair, value in data.values():
        by_pair[pair].append(value)
    if not by_pair:
        return None
    means = np.array([np.mean(values) for values in by_pair.values()])
    error, df = np.inf, 0.0
    if means.size > 1:
        error, df = float(means.std(ddof=1)) / np.sqrt(means.size), means.size - 1.0
    return Estimate(float(means.mean()), float(error), df, len(data), means.size)


def log_ratios(base: Iterable[Block], new: Iterable[Block]) -> Data:
    """Return what pairs of blocks say: the median over all pairs of calls, new to base.

    That is the shift estimate of Hodges and Lehmann (1963, "Estimates of location based on rank
    tests").
    """
    theirs = {block.number: np.log(block.values) for block in base}
    return {
        block.number: (
            block.process,
            float(np.median(np.log(block.values)[:, None] - theirs[block.number][None, :])),
        )
        for block in new
        if block.number in theirs
    }


def estimates(data: Mapping[Cell, Data]) -> dict[Cell, Estimate]:
    """Return the ratios of cells that were measured in the same blocks, or in some of them."""
    numbers = sorted({number for each in data.values() for number in each})
    process = {number: pair for each in data.values() for number, (pair, _) in each.items()}
    logs = np.zeros((len(numbers), len(data) + 1))  # the last one's ratio is 1: the baseline
    for column, each in enumerate(data.values()):
        logs[:, column] = [each.get(number, (0, np.nan))[1] for number in numbers]
    differences = logs[:, :, None] - logs[:, None, :]
    found = nested(differences, np.array([process[n] for n in numbers]), len(data))
    return {cell: e for cell, e in zip(data, found, strict=False) if e is not None}
