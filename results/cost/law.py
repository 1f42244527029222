"""Fit the law of `bakeoff cost` to a run: what each style adds to a call, by arrays of a model.

    pytest bench --workload depth --metric host_cost --budget 900 --benchmark-json=depth.json
    python results/cost/law.py depth.json > bench/cost/host-cost.json
    python results/cost/law.py results/cost/runs/arrays.json --most 180  # for larger models

The law is a line: a fixed part, and a part for each array. It is fitted to host costs at several
depths. Workers are the unit, whether each has measured one depth or all of them: how much the line
moves where one worker is left out is the doubt of both parts (the jackknife; Tukey 1958).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from scipy import special

from bench.cells import BASELINE, REFERENCE, Arm
from bench.cost.published import CostTable, StyleCost
from bench.metrics import HOST, WORKLOAD_GROUPS
from bench.runfile.reader import read
from bench.stats.law import Law
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jaxtyping import Bool, Float, Int

    from bench.runfile.reader import Run
    from bench.samples import Sample

MIN_SIZES = 2
"""Sizes that are left, whichever worker is left out: a line needs two points."""


def cost_table(run: Run) -> CostTable:
    """Return the laws that a run's host costs at several depths on a CPU follow.

    Raises:
        SystemExit: there are host costs at fewer than two depths, or from too few workers.
    """
    samples = host_costs(run)
    laws = laws_of(samples)
    if not laws:
        raise SystemExit(f"{run.name} has no host costs at two depths from enough workers")
    sizes = [arrays_of(sample.cell.workload) for sample in samples]
    return CostTable(
        machine=run.machine.processor_model,
        versions=run.results.versions,
        when=run.when,
        run=run.name,
        arrays=(min(sizes), max(sizes)),
        styles=tuple(
            StyleCost(entrant=arm.entrant, style=arm.style, law=law) for arm, law in laws.items()
        ),
    )


def host_costs(run: Run) -> list[Sample]:
    """Return a run's host costs at several depths on a CPU."""
    return [
        sample
        for sample in run.samples
        if sample.metric == HOST and sample.cell.backend == "cpu"
        if sample.cell.workload in WORKLOAD_GROUPS["depth"]
    ]


def arrays_of(workload: str) -> int:
    """Return the number of weight and bias arrays of a workload's model."""
    return 2 * (WORKLOADS[workload].layers + 1)


class Costs(NamedTuple):
    """Costs of an arm, one for each worker and size, in seconds."""

    sizes: Int[np.ndarray, " points"]
    costs: Float[np.ndarray, " points"]
    levels: Float[np.ndarray, " points"]
    """Seconds of the whole call at that size."""
    workers: Int[np.ndarray, " points"]

    def find_mean(self, size: int) -> float:
        """Return the mean cost at a size."""
        return float(self.costs[self.sizes == size].mean())


def measure_costs(samples: Iterable[Sample]) -> dict[Arm, Costs]:
    """Return the costs of each arm; plain JAX's other styles do other work.

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
    made = {}
    for arm, points in parts.items():
        workers, sizes = np.array(list(points)).T
        level = np.array([usual[size] for size in sizes.tolist()])
        costs = level * [fmean(several) for several in points.values()]
        mean = {size: costs[sizes == size].mean() for size in usual}
        whole = level + [mean[size] for size in sizes.tolist()]
        made[arm] = Costs(sizes, costs, whole, workers)
    return made


def laws_of(samples: Iterable[Sample]) -> dict[Arm, Law]:
    """Return the law of each arm with enough workers."""
    laws = {
        arm: fit(it.sizes.astype(float), it.costs, it.levels, it.workers)
        for arm, it in measure_costs(samples).items()
    }
    return {arm: law for arm, law in laws.items() if law is not None}


def describe_larger(samples: Sequence[Sample], most: int) -> Iterator[str]:
    """Yield a line for each arm: how far a law of up to `most` arrays is off beyond them."""
    laws = laws_of(s for s in samples if arrays_of(s.cell.workload) <= most)
    for arm, it in measure_costs(samples).items():
        for size in sorted(size for size in set(it.sizes.tolist()) if size > most and arm in laws):
            cost, told = it.find_mean(size), laws[arm].fixed + laws[arm].of_array * size
            yield (
                f"{arm}, {size} arrays: {1e6 * cost:.0f} µs, told {1e6 * told:.0f} µs "
                f"({told / cost - 1:+.0%})"
            )


def fit(
    sizes: Float[np.ndarray, " points"],
    costs: Float[np.ndarray, " points"],
    levels: Float[np.ndarray, " points"],
    workers: Int[np.ndarray, " points"],
) -> Law | None:
    """Fit a line by least squares; None from too few workers.

    Args:
        sizes: Numbers of arrays.
        costs: In seconds, the mean of a worker at a size.
        levels: What the noise of a cost is about proportional to, as the time of the whole call.
        workers: Number of the worker that measured it.
    """

    def line(points: Bool[np.ndarray, " points"]) -> Float[np.ndarray, " 2"]:
        return np.polyfit(sizes[points], costs[points], 1, w=1 / levels[points])[::-1]

    left = [workers != worker for worker in np.unique(workers)]
    if any(np.unique(sizes[points]).size < MIN_SIZES for points in left):
        return None
    number = len(left)
    moved = np.array([line(points) for points in left])
    covariance = np.cov(moved.T) * (number - 1) ** 2 / number
    fixed, slope = line(np.ones(sizes.size, bool)).tolist()
    means = {size: float(np.mean(costs[sizes == size])) for size in np.unique(sizes).tolist()}
    return Law(
        fixed=fixed,
        of_array=slope,
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        workers=number,
        t=float(special.stdtrit(number - 2, 0.975)),
        misfit=max(abs(mean / (fixed + slope * size) - 1) for size, mean in means.items()),
    )


if __name__ == "__main__":
    run = read(Path(sys.argv[1]))
    if "--most" in sys.argv:
        print("\n".join(describe_larger(host_costs(run), int(sys.argv[-1]))))
    else:
        made = msgspec.json.encode(cost_table(run))
        print(msgspec.json.format(made, indent=1).decode())
