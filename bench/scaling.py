"""What devices are worth: how a step's time goes with their number, as ratios within blocks.

Strong scaling: the same streams, shared between more devices. Weak scaling: more devices, each with
as many streams. Efficiency is the part of a device's time that is of use: 1 where n devices do n
times the work of one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench.estimates import Group, beside
from bench.runfile import Scaling
from bench.summary import number
from common.devices import AT, Over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.cells import Cell
    from bench.samples import Found
    from bench.stats.ratios import Estimate

STEP, COMPILE = "step", "compile"


def scaling(cells: Mapping[Cell, Found]) -> list[Scaling]:
    """Return a row for each style over devices that has a number, in the order of the cells.

    `ratio` is to the same style over one device; where there is no such style, to none. Of one
    device, it is to the style that knows of no mesh: what sharing costs where nothing is shared.
    """
    groups: dict[Group, dict[Cell, Found]] = defaultdict(dict)
    for cell, found in cells.items():
        if found.failure is None and found.blocks.get(STEP):
            groups[Group(STEP, cell.workload, cell.backend)][cell] = found
    rows = []
    for group, arms in groups.items():
        own = {cell: Over.of(cell.style) for cell in arms}
        shared = {cell: over for cell, over in own.items() if over.devices}
        first = [(c.entrant, f"{over.style}{AT}1") for c, over in shared.items()]
        plain = [(c.entrant, over.style) for c, over in shared.items()]
        blocks = {cell: found.blocks[STEP] for cell, found in arms.items()}
        names = list(dict.fromkeys([*first, *plain])) if shared else []
        known = {name: beside(group, blocks, [name]) for name in names}
        for cell, over in shared.items():
            base = over.style if over.devices == 1 else f"{over.style}{AT}1"
            estimate = known.get((cell.entrant, base), {}).get(cell)
            if estimate is not None:
                rows.append(row(cell, over, arms[cell], estimate))
    return rows


def row(cell: Cell, over: Over, found: Found, estimate: Estimate) -> Scaling:
    """Return what is said of one style over some devices."""
    low, high = estimate.interval
    return Scaling(
        **cell._asdict(),
        kind="weak" if over.weak else "strong",
        devices=max(1, over.devices),
        seconds=float(np.median(found.values(STEP))),
        ratio=estimate.ratio,
        low=number(low),
        high=number(high),
        compile_seconds=median(found.values(COMPILE)),
    )


def median(values: list[float]) -> float | None:
    """Return the median of some values; None where there are none."""
    return float(np.median(values)) if values else None
