"""The law of host costs in a run at several depths.

A run (`pytest bench --workload depth`) says what each style adds to a call with 8 to 194 parameter
arrays. That is a fixed part and a part for each array, however large the array is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, CONTROL, TOGETHER, Arm
from bench.compare.conditions import versions
from bench.cost.table import KIND, VERSION, CostTable, Growth, Measured, StyleCost
from bench.estimates import REFERENCE, Group, differences, table
from bench.estimates import added as added_seconds
from bench.metrics import HOST, METRICS, STARTUP
from bench.runfile.reader import processor_model
from bench.stats.law import law, power_law
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.estimates import Arms
    from bench.runfile.reader import Run


def arrays_of(workload: str) -> int:
    """Return the number of weight and bias arrays of a workload's model."""
    return 2 * (WORKLOADS[workload].layers + 1)


def cost_table(runs: Sequence[Run], backend: str = "cpu") -> CostTable:
    """Return the laws that host costs at several depths follow.

    Args:
        runs: The first one that has host costs at depths gives the laws; how the times of fresh
            processes grow with depth comes from all.
        backend: Of the device.

    Raises:
        BakeoffError: there are host costs at fewer than two depths, or from too few workers.
    """
    found = [
        {
            workload: run.samples[group]
            for workload in TOGETHER["depth"]
            if (group := Group(HOST, workload, backend)) in run.samples
        }
        for run in runs
    ]
    run, groups = next(((r, g) for r, g in zip(runs, found, strict=True) if g), (runs[0], found[0]))
    costs, levels = by_worker(groups)
    sizes = np.array([arrays_of(workload) for workload in groups], float)
    laws = {arm: law(sizes, rows, levels[arm]) for arm, rows in costs.items()}
    if not any(laws.values()):
        raise BakeoffError(
            f"{run.name} has no host costs at two depths from three workers; make one with "
            "`pytest bench --workload depth --metric host_cost --budget 900`"
        )
    measured = measured_at(groups)
    grown = [(each, processor_model(one.machine)) for one in runs for each in growth(one, backend)]
    return CostTable(
        KIND,
        VERSION,
        machine=processor_model(run.machine),
        versions=versions(run),
        when=run.when,
        run=run.name,
        styles=tuple(
            StyleCost(
                arm.entrant,
                arm.full_style,
                **own._asdict(),
                measured=measured[arm],
                seconds=tuple(
                    tuple(None if np.isnan(c) else float(c) for c in row) for row in costs[arm]
                ),
                levels=tuple(map(float, levels[arm])),
            )
            for arm, own in laws.items()
            if own is not None and arm.entrant != BASELINE[0]  # its other styles do other work
        ),
        growth=tuple(each for each, _ in grown),
        growth_machine=", ".join(dict.fromkeys(machine for _, machine in grown)),
    )


def by_worker(
    groups: Mapping[str, Arms],
) -> tuple[dict[Arm, np.ndarray], dict[Arm, np.ndarray]]:
    """Return what arms add to a call in each worker at each depth.

    In each block it is a part of what the references take there, which a slow core slows down too.

    Returns:
        By arm, seconds, workers x depths, and the time of a whole call by depth.
    """
    tables = {workload: table(arms) for workload, arms in groups.items()}
    workers = sorted({int(w) for each in tables.values() for w in each.worker})
    empty = np.full((len(workers), len(tables)), np.nan)
    costs: dict[Arm, np.ndarray] = {}
    level: dict[Arm, np.ndarray] = {}
    for column, each in enumerate(tables.values()):
        references, others = each.compared(REFERENCE)
        seconds = np.exp(each.logs)
        beside = seconds[:, references].mean(1)
        usual = float(np.nanmedian(beside))
        for row, worker in enumerate(workers):
            mine = (each.worker == worker) & ~np.isnan(beside)
            if not mine.any():
                continue
            for other in others:
                parts = seconds[mine, other] / beside[mine] - 1
                if not np.isnan(parts).all():
                    own = costs.setdefault(each.cells[other].arm, empty.copy())
                    own[row, column] = usual * np.nanmean(parts)
        for arm, own in costs.items():
            known = own[:, column]
            whole = usual + (np.nanmean(known) if not np.isnan(known).all() else 0.0)
            level.setdefault(arm, np.full(len(tables), np.nan))[column] = whole
    return costs, level


def measured_at(groups: Mapping[str, Arms]) -> dict[Arm, tuple[Measured, ...]]:
    """Return what each arm was measured to add, by arm, the fewest arrays first."""
    found: dict[Arm, tuple[Measured, ...]] = {}
    for workload, arms in groups.items():
        estimates, reference = differences(arms)
        for cell, estimate in estimates.items():
            point = Measured(arrays_of(workload), *added_seconds(estimate, reference))
            found[cell.arm] = (*found.get(cell.arm, ()), point)
    return found


def growth(run: Run, backend: str = "cpu") -> Iterator[Growth]:
    """Yield how each time of a fresh process grows with depth, by arm; import and init are none."""
    for metric in STARTUP:
        if METRICS[metric].of_library:
            continue
        seconds: dict[Arm, dict[int, list[float]]] = {}
        for workload in TOGETHER["depth"]:
            for cell, samples in run.samples.get(Group(metric, workload, backend), {}).items():
                own = seconds.setdefault(cell.arm, {})
                own[WORKLOADS[workload].layers] = [v for each in samples for v in each.values]
        for arm, own in seconds.items():
            if len(own) > 1 and arm != Arm(*CONTROL):
                power = power_law(own)
                first, last = min(own), max(own)
                ends = float(np.median(own[first])), float(np.median(own[last]))
                yield Growth(
                    arm.entrant, arm.full_style, metric, *power, seconds=ends, layers=(first, last)
                )
