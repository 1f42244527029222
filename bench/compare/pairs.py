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

    type Blocks = dict[int, tuple[int, float, float]]
    """By number of a block: its pair, and the log of each side's datum."""


def paired(base: State, new: State, cells: Iterable[Cell]) -> dict[tuple[Cell, str], Estimate]:
    """Return each cell's ratio, new to base, of each metric that both sides have in turns.

    Intervals are corrected for all cells of a metric at a workload.
    """
    groups: dict[Group, dict[Cell, Blocks]] = defaultdict(dict)
    for cell in cells:
        ours, theirs = new.cells.get(cell), base.cells.get(cell)
        if ours is None or theirs is None or ours.failure or theirs.failure:
            continue
        for metric in [name for name in ours.blocks if name in theirs.blocks]:
            blocks = in_turns(theirs.blocks[metric], ours.blocks[metric])
            if blocks:
                groups[Group.of(metric, cell)][cell] = blocks
    return {
        (cell, group.metric): estimate
        for group, found in groups.items()
        for cell, estimate in estimates(found).items()
    }


def of_pairs(base: State, new: State, cell: Cell, metric: str) -> Estimate | None:
    """Return one cell's ratio of one metric."""
    return paired(base, new, [cell]).get((cell, metric))


def in_turns(base: Iterable[Samples], new: Iterable[Samples]) -> Blocks:
    """Return the blocks that both sides have: the log of a low quantile of the calls."""
    theirs = {block.number: math.log(datum(block.values)) for block in base}
    return {
        block.number: (block.process, theirs[block.number], math.log(datum(block.values)))
        for block in new
        if block.number in theirs
    }


def log_ratios(base: Iterable[Samples], new: Iterable[Samples]) -> dict[int, tuple[int, float]]:
    """Return, of each block that both sides have, its pair and the log-ratio of new to base."""
    return {number: (pair, b - a) for number, (pair, a, b) in in_turns(base, new).items()}


def estimates(found: Mapping[Cell, Blocks]) -> dict[Cell, Estimate]:
    """Return the ratios of cells that were measured in the same blocks, or in some of them."""
    pairs = {number: each[0] for blocks in found.values() for number, each in blocks.items()}
    numbers = sorted(pairs)
    nothing = (0, math.nan, math.nan)
    logs = np.array([[blocks.get(n, nothing)[1:] for blocks in found.values()] for n in numbers])
    base, new = np.moveaxis(logs, -1, 0)
    ratios = paired_sides(base, new, np.array([pairs[number] for number in numbers], int))
    return {cell: e for cell, e in zip(found, ratios, strict=True) if e is not None}
