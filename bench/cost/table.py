"""The table of costs: what each style adds to a call on one machine, by the arrays of a model.

The law is a line: a fixed part, and a part for each array. It is fitted to host costs at several
depths (`pytest bench --workload depth`). Workers are the unit, whether each has measured one depth
or all of them: how much the line moves where one worker is left out is the doubt of both parts (the
jackknife; Tukey 1958).
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from bench.cells import BASELINE, REFERENCE, Arm
from bench.estimates import Estimate
from bench.metrics import HOST, TOGETHER
from bench.runfile.reader import NoRunError, processor_model, read
from common.config import WORKLOADS
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Bool, Float, Int

    from bench.runfile.reader import Run
    from bench.samples import Sample

PUBLISHED = Path(__file__).parent / "host-cost.json"
MIN_SIZES = 2
"""Sizes that are left, whichever worker is left out: a line needs two points."""


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds added to a call: fixed + of_array * arrays."""

    fixed: float
    of_array: float
    """Seconds of one array."""
    covariance: tuple[float, float, float]
    """Variance of `fixed`, covariance of the two, and variance of `of_array`."""
    workers: int
    t: float
    """Student's quantile of a 95 % interval from so many workers."""
    misfit: float
    """Largest distance of a size's mean from the line, as a fraction of the line there."""


class StyleCost(msgspec.Struct, frozen=True, kw_only=True):
    """The law of one style: seconds that it adds to plain JAX's call."""

    entrant: str
    style: str
    law: Law

    @property
    def arm(self) -> Arm:
        """Its entrant and style."""
        return Arm(self.entrant, self.style)

    @property
    def per_array(self) -> Estimate:
        """What it adds for each array."""
        return self.at(1, fixed=0.0)

    def at(self, arrays: int, *, fixed: float = 1.0) -> Estimate:
        """Return what it adds to a call with so many parameter arrays.

        Args:
            arrays: Of the model.
            fixed: How often the fixed part counts; 0 for that of the arrays alone.
        """
        law, (first, both, second) = self.law, self.law.covariance
        error = math.sqrt(
            max(0.0, fixed**2 * first + 2 * fixed * arrays * both + arrays**2 * second)
        )
        value = fixed * law.fixed + arrays * law.of_array
        return Estimate(
            cell=self.arm.at("depth", "cpu"),
            against=str(BASELINE),
            metric=HOST,
            unit="s",
            form="added",
            value=value,
            low=value - law.t * error,
            high=value + law.t * error,
            standard_error=error,
            df=law.workers - 2.0,
            workers=law.workers,
        )


class CostTable(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="jax-bakeoff cost"
):
    """The laws of all styles on one machine, and what its file has."""

    version: Literal[5] = 5
    machine: str
    versions: dict[str, str]
    when: str
    """Year to second, UTC."""
    run: str
    """Name of the run file that the laws were fitted to."""
    arrays: tuple[int, int]
    """Fewest and most that were measured."""
    styles: tuple[StyleCost, ...]

    @property
    def by_style(self) -> dict[str, StyleCost]:
        """Costs by `entrant/style`."""
        return {str(style.arm): style for style in self.styles}

    @property
    def json(self) -> str:
        """The content of its file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"


def read_table(path: Path = PUBLISHED) -> CostTable:
    """Return the table of a file of costs, or of a run that costs can be read from.

    Raises:
        BakeoffError: it cannot be read, is neither, or is a run without enough host costs.
    """
    try:
        return msgspec.json.decode(read_regular(path, MOST_JSON), type=CostTable)
    except (OSError, msgspec.MsgspecError) as error:
        problem = error  # it may be a run
    try:
        return cost_table(read(path))
    except NoRunError as error:
        raise BakeoffError(
            f"{path} is no run, and no table of costs of this version ({problem}); make one with "
            "`bakeoff cost --from RUN.json --format json`"
        ) from error


def cost_table(run: Run) -> CostTable:
    """Return the laws that a run's host costs at several depths on a CPU follow.

    Raises:
        BakeoffError: there are host costs at fewer than two depths, or from too few workers.
    """
    samples = [
        sample
        for sample in run.samples
        if sample.metric == HOST and sample.cell.backend == "cpu"
        if sample.cell.workload in TOGETHER["depth"]
    ]
    laws = laws_of(samples)
    if not laws:
        raise BakeoffError(
            f"{run.name} has no host costs at two depths from enough workers; make one with "
            "`pytest bench --workload depth --metric host_cost --budget 900`"
        )
    sizes = [arrays_of(sample.cell.workload) for sample in samples]
    return CostTable(
        machine=processor_model(run.machine),
        versions=run.results.versions,
        when=run.when,
        run=run.name,
        arrays=(min(sizes), max(sizes)),
        styles=tuple(
            StyleCost(entrant=arm.entrant, style=arm.style, law=law) for arm, law in laws.items()
        ),
    )


def arrays_of(workload: str) -> int:
    """Return the number of weight and bias arrays of a workload's model."""
    return 2 * (WORKLOADS[workload].layers + 1)


def laws_of(samples: Iterable[Sample]) -> dict[Arm, Law]:
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
    laws = {}
    for arm, points in parts.items():
        workers, sizes = np.array(list(points)).T
        level = np.array([usual[size] for size in sizes.tolist()])
        costs = level * [fmean(several) for several in points.values()]
        mean = {size: costs[sizes == size].mean() for size in usual}
        whole = level + [mean[size] for size in sizes.tolist()]
        law = fit(sizes.astype(float), costs, whole, workers)
        if law is not None:
            laws[arm] = law
    return laws


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
    from scipy import special  # takes a third of a second to import

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
