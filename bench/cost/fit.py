"""The law of host costs in a run at several depths (`pytest bench --workload depth`)."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, REFERENCE, Arm
from bench.cost.table import KIND, VERSION, CostTable, StyleCost
from bench.metrics import HOST, TOGETHER
from bench.runfile.reader import processor_model
from bench.stats.law import Law, fit
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.runfile.reader import Run
    from bench.samples import Sample


def cost_table(run: Run, backend: str = "cpu") -> CostTable:
    """Return the laws that host costs at several depths follow.

    Args:
        run: With host costs at two depths or more.
        backend: Of the device.

    Raises:
        BakeoffError: there are host costs at fewer than two depths, or from too few workers.
    """
    samples = [
        sample
        for sample in run.samples
        if sample.metric == HOST and sample.cell.backend == backend
        if sample.cell.workload in TOGETHER["depth"]
    ]
    fitted = laws(samples)
    if not fitted:
        raise BakeoffError(
            f"{run.name} has no host costs at two depths from enough workers; make one with "
            "`pytest bench --workload depth --metric host_cost --budget 900`"
        )
    sizes = [arrays_of(sample.cell.workload) for sample in samples]
    return CostTable(
        kind=KIND,
        version=VERSION,
        machine=processor_model(run.machine),
        versions=run.results.versions,
        when=run.when,
        run=run.name,
        arrays=(min(sizes), max(sizes)),
        styles=tuple(
            StyleCost(entrant=arm.entrant, style=arm.style, law=law) for arm, law in fitted.items()
        ),
    )


def arrays_of(workload: str) -> int:
    """Return the number of weight and bias arrays of a workload's model."""
    return 2 * (WORKLOADS[workload].layers + 1)


def laws(samples: Iterable[Sample]) -> dict[Arm, Law]:
    """Return the law of each arm with enough workers; plain JAX's other styles do other work.

    In each block an arm's cost is a part of what the two references take there, which a slow core
    slows down too. Such parts are averaged within a worker.
    """
    blocks: dict[tuple[str, str, int], dict[Arm, Sample]] = defaultdict(dict)
    for sample in samples:
        key = sample.environment, sample.cell.workload, sample.block
        blocks[key][sample.cell.arm] = sample
    beside: dict[int, list[float]] = defaultdict(list)
    parts: dict[Arm, dict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, workload, _), row in blocks.items():
        if not row.keys() >= set(REFERENCE):
            continue
        size, reference = arrays_of(workload), fmean(row[arm].value for arm in REFERENCE)
        beside[size].append(reference)
        for arm, sample in row.items():
            if arm.entrant != BASELINE.entrant and arm not in REFERENCE:
                parts[arm][sample.worker, size].append(sample.value / reference - 1)
    usual = {size: median(times) for size, times in beside.items()}
    fitted = {}
    for arm, points in parts.items():
        workers, sizes = np.array(list(points)).T
        level = np.array([usual[size] for size in sizes.tolist()])
        costs = level * [fmean(several) for several in points.values()]
        mean = {size: costs[sizes == size].mean() for size in usual}
        whole = level + [mean[size] for size in sizes.tolist()]
        law = fit(sizes.astype(float), costs, whole, workers)
        if law is not None:
            fitted[arm] = law
    return fitted
