"""What devices are worth: how a step's time goes with their number, as ratios within blocks.

Strong scaling: the same streams, shared between more devices. Weak scaling: more devices, each with
as many streams. Efficiency is the part of a device's time that is of use: 1 where n devices do n
times the work of one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import Arm
from bench.estimates import Group, beside
from bench.runfile import Scaling
from bench.runfile.section import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Cell
    from bench.samples import Found

STEP = "step"


def scaling(cells: Mapping[Cell, Found]) -> list[Scaling]:
    """Return a row for each style over devices that has a number, in the order of the cells.

    `ratio` is to the same style over one device; where there is no such style, to none. Of one
    device, it is to the style that knows of no mesh: what sharing costs where nothing is shared.
    """
    groups: dict[Group, dict[Cell, Found]] = defaultdict(dict)
    for cell, found in cells.items():
        if found.failure is None and found.blocks.get(STEP):
            groups[Group.of(STEP, cell)][cell] = found
    rows = []
    for group, arms in groups.items():
        blocks = {cell: found.blocks[STEP] for cell, found in arms.items()}
        bases = {cell: base_of(cell) for cell in arms if cell.devices}
        known = {base: beside(group, blocks, [base]) for base in dict.fromkeys(bases.values())}
        for cell, base in bases.items():
            if estimate := known[base].get(cell):
                low, high = estimate.interval
                compiling = arms[cell].values("compile")
                rows.append(
                    Scaling(
                        **cell.facts,
                        seconds=float(np.median(arms[cell].values(STEP))),
                        ratio=estimate.ratio,
                        low=number(low),
                        high=number(high),
                        compile_seconds=float(np.median(compiling)) if compiling else None,
                    )
                )
    return rows


def base_of(cell: Cell) -> Arm:
    """Return what a style over devices is compared with: itself on one, or without a mesh."""
    return Arm(cell.entrant, cell.style, devices=int(cell.devices > 1))
