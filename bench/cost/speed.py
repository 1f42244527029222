"""How fast this machine's Python is, beside that of the table's machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, TOGETHER, Arm
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
        BakeoffError: nothing could be measured.
    """
    workload = TOGETHER["depth"][0]
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
    known = {(style.entrant, style.style): style for style in costs.styles}
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
