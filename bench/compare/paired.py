"""From two sides that took turns to ratios with their doubt: pairs of processes are the unit."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench.estimates import Group, datum
from bench.stats.ratios import paired_sides

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.cells import Cell
    from bench.engine.state import Samples, State
    from bench.stats.ratios import Estimate

    type Data = dict[int, tuple[int, float, float]]
    """By number of a block: its pair, and the log of each side's datum."""


def paired(base: State, new: State, cells: Iterable[Cell]) -> dict[tuple[Cell, str], Estimate]:
    """Return each cell's ratio, new to base, of each metric that both sides have in turns.

    Intervals are corrected for all cells of a metric at a workload.
    """
    groups: dict[Group, dict[Cell, Data]] = defaultdict(dict)
    for cell in cells:
        ours, theirs = new.cells.get(cell), base.cells.get(cell)
        if ours is None or theirs is None or ours.failure or theirs.failure:
            continue
        for metric in [name for name in ours.blocks if name in theirs.blocks]:
            data = both(theirs.blocks[metric], ours.blocks[metric])
            if data:
                groups[Group(metric, *cell[2:])][cell] = data
    return {
        (cell, group.metric): estimate
        for group, data in groups.items()
        for cell, estimate in estimates(data).items()
    }


def of_pairs(base: State, new: State, cell: Cell, metric: str) -> Estimate | None:
    """Return one cell's ratio of one metric."""
    return paired(base, new, [cell]).get((cell, metric))


def both(base: Iterable[Samples], new: Iterable[Samples]) -> Data:
    """Return what blocks say that both sides have: the log of a low quantile of the calls."""
    theirs = {block.number: math.log(datum(block.values)) for block in base}
    return {
        block.number: (block.process, theirs[block.number], math.log(datum(block.values)))
        for block in new
        if block.number in theirs
    }


def log_ratios(base: Iterable[Samples], new: Iterable[Samples]) -> dict[int, tuple[int, float]]:
    """Return what blocks say that both sides have: pair, and log-ratio of new to base."""
    return {number: (pair, b - a) for number, (pair, a, b) in both(base, new).items()}


def estimates(data: Mapping[Cell, Data]) -> dict[Cell, Estimate]:
    """Return the ratios of cells that were measured in the same blocks, or in some of them."""
    numbers = sorted({number for each in data.values() for number in each})
    pair = {number: found[0] for each in data.values() for number, found in each.items()}
    logs = np.full((2, len(numbers), len(data)), np.nan)
    for column, each in enumerate(data.values()):
        for side in (0, 1):
            logs[side, :, column] = [
                each[number][1 + side] if number in each else np.nan for number in numbers
            ]
    pairs = np.array([pair[number] for number in numbers], int)
    found = paired_sides(logs[0], logs[1], pairs)
    return {cell: e for cell, e in zip(data, found, strict=True) if e is not None}
