"""How fast this machine's Python is, beside that of the table's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, TOGETHER, Arm
from bench.cost.fit import arrays_of
from bench.engine.actions import ONE, Options
from bench.engine.cores import one_core_lanes
from bench.engine.driver import Driver
from bench.engine.machine import only_one
from bench.engine.run_plan import RunPlan
from bench.estimates import Group, added, differences, groups_of
from bench.metrics import HOST
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.cost.table import CostTable

GAUGES, SECONDS = (("equinox", "filter_jit"), ("flax_nnx", "cached_partial")), 20.0
"""Styles by which this machine's Python is compared with the table's, and for how long."""


def speed_here(costs: CostTable) -> float:
    """Return how many times as long this machine's Python takes for a call as the table's.

    Some styles' host costs are measured for 20 s at the fewest arrays of the table.

    Raises:
        BakeoffError: the table lacks these styles, or nothing could be measured.
    """
    known = costs.by_style
    if lacking := [f"{name}/{style}" for name, style in GAUGES if (name, style) not in known]:
        raise BakeoffError(
            f"machines are compared by {' and '.join(map('/'.join, GAUGES))}, and the table has no "
            f"{' and no '.join(lacking)}; choose another table by --from"
        )
    fewest = known[GAUGES[0]].measured[0].arrays
    workload = next(name for name in TOGETHER["depth"] if arrays_of(name) == fewest)
    cells = [Arm(*name).at(workload, "cpu") for name in (BASELINE, *GAUGES)]
    plan = RunPlan(
        {cell: {HOST} for cell in cells},
        Options(SECONDS, cores=ONE),
        lanes=one_core_lanes(),
    )
    with only_one():
        Driver(plan).run()
    state = plan.state
    arms = groups_of(state.cells).get(Group(HOST, workload, "cpu"), {})
    estimates, reference = differences(arms)
    ratios = [
        added(estimate, reference)[0] / known[cell.entrant, cell.style].measured[0].seconds
        for cell, estimate in estimates.items()
        if (cell.entrant, cell.style) in known
    ]
    if not ratios:
        failures = [found.failure for found in state.cells.values() if found.failure]
        why = failures[0] if failures else "no worker came to its end"
        raise BakeoffError(f"this machine's speed could not be measured: {why}")
    return float(np.exp(np.mean(np.log(ratios))))
