"""What a run's ratios wander by from hour to hour, beyond what the run itself can know.

A ratio's standard error comes from blocks and processes of one run. Between two runs more changes:
other guests of the host, where memory lies, how hot the processor is. What both arms share cancels
out in the ratio; what they do not share does not: an arm that runs the baseline's own program keeps
its ratio, one that spends its time in Python beside one that spends it in XLA does not.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.metrics import METRICS, TINY
from bench.metrics import Kind as Sampling
from bench.stats.ratios import Estimate, corrected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.compare.comparison import Key
    from bench.report.wording import Facts


class Kind(StrEnum):
    """What wanders alike, from what wanders least to what wanders most."""

    SAME = "warm, the baseline's program and Python calls"
    OTHER = "warm, another program"
    HOST = "warm and tiny: the host's time"
    SEVERAL = "warm, several programs a step"
    MEMORY = "memory"
    COLD = "cold"
    ABSOLUTE = "seconds of the baseline, not a ratio"


class Wobble(NamedTuple):
    """A standard deviation between runs, and how well it is known."""

    sd: float
    """Of one run's log-ratio: two runs differ by the square root of two times as much."""
    df: float
    """Degrees of freedom."""


BETWEEN = {
    Kind.SAME: Wobble(0.0, 20),
    Kind.OTHER: Wobble(0.005, 10),
    Kind.HOST: Wobble(0.020, 16),
    Kind.SEVERAL: Wobble(0.030, 10),
    Kind.MEMORY: Wobble(0.005, 20),
    Kind.COLD: Wobble(0.010, 20),
    Kind.ABSOLUTE: Wobble(0.060, 10),
}
"""Used where one base run is given. Three default runs of the same code within two hours, on two
cores of a shared Xeon, came to 0 for SAME, HOST, MEMORY and COLD, 0.0007 for OTHER (0.0035 from the
first two alone), 0.030 for SEVERAL and 0.028 for ABSOLUTE. Where that is less than what is here,
there were too few runs to believe in it: OTHER is rounded up from the larger, the rest are what
issue and experience say of such machines, whose seconds differ by 5 to 8 %. To make them anew:

    python -m bench.compare.calibrate RUN.json RUN.json RUN.json …
"""
LEAST_DF = 6.0
"""With fewer degrees of freedom, what several base runs say does not replace the table."""
HALVINGS = 60
TINIEST = 1e-18
"""Variance of a log-ratio, so that none is zero."""
KNOWN_DF = 4.0
"""A standard error of fewer degrees of freedom says too little to be taken off."""


def kind(metric: str, *cells: Facts, baseline: Facts | None = None) -> Kind:
    """Return what a metric of a cell, found on one side or several, wanders like.

    Where the sides differ, it is what wanders most.

    Args:
        metric: Its name.
        cells: The cell, as each side's run file has it.
        baseline: The baseline's, whose Python calls are the fewest; None where there is none.
    """
    if metric == "peak_rss":
        return Kind.MEMORY
    if METRICS[metric].kind is not Sampling.WARM:
        return Kind.COLD
    order = list(Kind)
    return max((_warm(cell, baseline) for cell in cells), key=order.index)


def _warm(cell: Facts, baseline: Facts | None) -> Kind:
    proof = cell["proof"] or {}
    if not proof.get("whole_step", True):
        return Kind.SEVERAL
    calls, fewest = (
        None if of is None else of["exact"].get("python_calls") for of in (cell, baseline)
    )
    as_many = calls is None or fewest is None or calls <= fewest
    if proof.get("same_program_as_baseline") and as_many:
        return Kind.SAME
    return Kind.HOST if cell["workload"] in TINY else Kind.OTHER


def between_runs(
    runs: Sequence[Mapping[Key, Estimate]], kinds: Mapping[Key, Kind]
) -> dict[Kind, Wobble]:
    """Return what several runs of the same code wander by, pooled over the rows of a kind.

    The variance between runs is what makes the squared distances of a row's estimates from their
    weighted mean as large as they ought to be: Paule and Mandel (1982), "Consensus values and
    weighting factors", summed over rows. Rows of one style move together, so degrees of freedom
    count styles and not rows; and they are the fewer the more of the variance is the runs' own.
    Standard errors of few degrees of freedom make it err to the large side: where runs do not
    wander at all, by half a standard error.

    Args:
        runs: The estimates of each run; at least two.
        kinds: Of every row.

    Returns:
        By kind that at least two runs have a row of.
    """
    rows: dict[Kind, dict[Key, list[Estimate]]] = {}
    for key, name in kinds.items():
        known = [run[key] for run in runs if key in run and run[key].df >= KNOWN_DF]
        if len(known) > 1:
            rows.setdefault(name, {})[key] = known
    return {name: _wobble(found) for name, found in rows.items()}


def _wobble(rows: Mapping[Key, Sequence[Estimate]]) -> Wobble:
    found = [
        (np.array([e.log_ratio for e in several]), np.array([e.standard_error for e in several]))
        for several in rows.values()
    ]
    spare = sum(len(x) - 1 for x, _ in found)

    def excess(variance: float) -> float:
        total = 0.0
        for x, error in found:
            weights = 1 / np.maximum(error**2 + variance, TINIEST)
            total += float((weights * (x - np.average(x, weights=weights)) ** 2).sum())
        return total - spare

    low, high = 0.0, max(float(np.ptp(x)) ** 2 for x, _ in found) + TINIEST
    for _ in range(HALVINGS if excess(low) > 0 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    styles = {(cell.entrant, cell.style) for cell, _ in rows}
    runs = max(len(several) for several in rows.values())
    within = float(np.median([np.mean(error**2) for _, error in found]))
    own = low / (low + within) if low else 1.0
    return Wobble(math.sqrt(low), len(styles) * (runs - 1) * own**2)


def chosen(estimated: Mapping[Kind, Wobble]) -> dict[Kind, Wobble]:
    """Return what several base runs wander by, and the table where they say too little.

    Where that little is more than the table has, it is taken: the machine is no quiet one.
    """
    out = dict(BETWEEN)
    for name, wobble in estimated.items():
        if wobble.df >= LEAST_DF:
            out[name] = wobble
        else:
            out[name] = Wobble(max(wobble.sd, out[name].sd), out[name].df)
    return out


def difference(
    bases: Sequence[Estimate], new: Estimate, wobble: Wobble, comparisons: int = 1
) -> Estimate:
    """Return the ratio of a new run's ratio to that of one base run, or of several.

    Several are weighted by what each of them knows.

    Args:
        bases: Of the base runs.
        new: Of the new run.
        wobble: What all of them wander by.
        comparisons: That the interval is corrected for.
    """
    known = [e for e in bases if math.isfinite(e.standard_error)]
    if not known or math.isinf(new.standard_error):
        middle = float(np.mean([e.log_ratio for e in bases]))
        return corrected(new.log_ratio - middle, math.inf, 0.0, new.blocks, new.workers)
    between = wobble.sd**2
    weights = np.array([1 / max(e.standard_error**2 + between, TINIEST) for e in known])
    weights /= weights.sum()
    middle = float(weights @ [e.log_ratio for e in known])
    parts = [(float(w * e.standard_error) ** 2, e.df) for w, e in zip(weights, known, strict=True)]
    parts.append((new.standard_error**2, new.df))
    parts.append((between * (1 + float(weights @ weights)), wobble.df))
    variance = sum(part for part, _ in parts)
    df = satterthwaite(variance, *parts)
    distance = new.log_ratio - middle
    error = math.sqrt(variance)
    return corrected(distance, error, df, new.blocks, new.workers, comparisons)


def satterthwaite(total: float, *parts: tuple[float, float]) -> float:
    """Return the degrees of freedom of a sum of variances, each with its own (0 if all are zero).

    Satterthwaite (1946), "An approximate distribution of estimates of variance components".
    """
    spread = sum(part**2 / df for part, df in parts if part)
    return total**2 / spread if spread else 0.0
