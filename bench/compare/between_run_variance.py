"""How much ratios vary from run to run, beyond what one run can know.

A ratio's standard error comes from blocks and processes of one run. Between two runs more changes:
other guests of the host, where memory lies, how hot the processor is. What both arms share cancels
out in the ratio, and what they do not share does not: an arm that runs the baseline's own program
keeps its ratio, one that spends its time in Python beside one that spends it in XLA does not.

    python -m bench.compare.between_run_variance RUN.json RUN.json RUN.json …

prints what runs of the same code vary by, which `BETWEEN` is made of.
"""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize

from bench.metrics import METRICS, TINY, Kind
from bench.stats.ratios import Estimate, corrected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.compare.comparison import Key
    from bench.runfile import Result


class Variation(StrEnum):
    """Rows that vary alike from run to run, from the least to the most."""

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
    Variation.SAME: Wobble(0.0, 20),
    Variation.OTHER: Wobble(0.005, 10),
    Variation.HOST: Wobble(0.020, 16),
    Variation.SEVERAL: Wobble(0.030, 10),
    Variation.MEMORY: Wobble(0.005, 20),
    Variation.COLD: Wobble(0.010, 20),
    Variation.ABSOLUTE: Wobble(0.060, 10),
}
"""Used where one base run is given. Three default runs of the same code within two hours, on two
cores of a shared Xeon, came to 0 for SAME, HOST, MEMORY and COLD, 0.0007 for OTHER (0.0035 from the
first two alone), 0.030 for SEVERAL and 0.028 for ABSOLUTE. Three runs are too few to rely on
smaller values than these: OTHER is rounded up from the larger one, the rest are what experience
says of such machines, whose seconds differ by 5 to 8 %."""
LEAST_DF = 6.0
"""With fewer degrees of freedom, the estimate of several base runs does not replace the table."""
TINIEST = 1e-18
"""Variance of a log-ratio, so that none is zero."""
KNOWN_DF = 4.0
"""Estimates whose standard error has fewer degrees of freedom are not used."""


def variation(key: Key, *sides: Mapping[Cell, Result]) -> Variation:
    """Return how a row varies; where the sides differ, the larger of the two.

    `sides` are the cells of each side's run file, one of which has the row's.
    """
    cell, metric = key
    if metric == "peak_rss":
        return Variation.MEMORY
    if cell.is_baseline:
        return Variation.ABSOLUTE
    if METRICS[metric].kind is not Kind.WARM:
        return Variation.COLD
    found = (_warm(side[cell], side.get(cell.baseline)) for side in sides if cell in side)
    return max(found, key=list(Variation).index)


def _warm(row: Result, baseline: Result | None) -> Variation:
    """Return how a warm metric varies; the baseline's Python calls are the fewest."""
    proof = row.proof
    if proof and not proof.whole_step:
        return Variation.SEVERAL
    calls = row.exact.get("python_calls")
    fewest = baseline.exact.get("python_calls") if baseline else None
    as_many = calls is None or fewest is None or calls <= fewest
    if proof and proof.same_program_as_baseline and as_many:
        return Variation.SAME
    return Variation.HOST if row.workload in TINY else Variation.OTHER


def between_runs(
    runs: Sequence[Mapping[Key, Estimate]], variations: Mapping[Key, Variation]
) -> dict[Variation, Wobble]:
    """Return what runs of the same code, at least two, vary by: pooled over rows that vary alike.

    The variance between runs is what makes the squared distances of a row's estimates from their
    weighted mean as large as they ought to be: Paule and Mandel (1982), "Consensus values and
    weighting factors", summed over rows. Rows of one style move together, so degrees of freedom
    count styles and not rows; and they are the fewer the more of the variance is the runs' own.
    Standard errors of few degrees of freedom make it err to the large side: where runs do not
    vary at all, by half a standard error. Variations that fewer than two runs have a row of are
    left out.
    """
    rows: dict[Variation, dict[Key, list[Estimate]]] = {}
    for key, name in variations.items():
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

    most = max(float(np.ptp(x)) ** 2 for x, _ in found) + TINIEST
    variance = float(optimize.brentq(excess, 0.0, most)) if excess(0.0) > 0 else 0.0
    styles = {cell.arm for cell, _ in rows}
    runs = max(len(several) for several in rows.values())
    within = float(np.median([np.mean(error**2) for _, error in found]))
    own = variance / (variance + within) if variance else 1.0
    return Wobble(math.sqrt(variance), len(styles) * (runs - 1) * own**2)


def chosen(estimated: Mapping[Variation, Wobble]) -> dict[Variation, Wobble]:
    """Return the estimates of several base runs, and the table where they are too uncertain.

    An uncertain estimate that is larger than the table's is taken: the machine is not a quiet one.
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

    Several are weighted by what each of them knows; degrees of freedom are those of Satterthwaite
    (1946), "An approximate distribution of estimates of variance components". `wobble` is what all
    of them vary by, `comparisons` the number that the interval is corrected for.
    """
    known = [e for e in bases if math.isfinite(e.standard_error)]
    if not known or math.isinf(new.standard_error):
        middle = float(np.mean([e.log_ratio for e in bases]))
        return corrected(new.log_ratio - middle, math.inf, 0.0, new.blocks, new.workers)
    between = wobble.sd**2
    own = np.array([e.standard_error for e in known]) ** 2
    weights = 1 / np.maximum(own + between, TINIEST)
    weights /= weights.sum()
    middle = float(weights @ [e.log_ratio for e in known])
    shared = between * (1 + weights @ weights)
    parts = np.array([*(weights**2 * own), new.standard_error**2, shared])
    df = np.array([*(e.df for e in known), new.df, wobble.df])
    variance, some = float(parts.sum()), parts > 0
    spread = float((parts[some] ** 2 / df[some]).sum())
    free = variance**2 / spread if spread else 0.0
    difference = new.log_ratio - middle, math.sqrt(variance), free
    return corrected(*difference, new.blocks, new.workers, comparisons)


def print_table(runs: list[Path]) -> None:
    """Print what runs of the same code vary by."""
    from bench.compare.compare import cells, measurements
    from bench.runfile.reader import read

    if len(runs) < 2:
        raise SystemExit(f"{len(runs)} runs are given; give two or more of the same code")
    read_runs = [read(path) for path in runs]
    found, sides = [measurements(run) for run in read_runs], [cells(run) for run in read_runs]
    variations = {key: variation(key, *sides) for run in found for key in run}
    for name, wobble in between_runs(found, variations).items():
        print(f"Variation.{name.name}: Wobble({wobble.sd:.4f}, {wobble.df:.0f}),")


if __name__ == "__main__":
    print_table([Path(argument) for argument in sys.argv[1:]])
