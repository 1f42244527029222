"""How much the same code differs from run to run, beyond what each run can know.

A run's standard errors come from its own workers, blocks and processes. From hour to hour more may
change, of each metric by itself. What an arm shares with the baseline cancels out in a ratio; what
it adds does not: time in Python beside time in XLA. So a warm row varies by a part of what its arm
adds, and a little anyway. Cold stages are sampled in processes of their own all over a run: what
they vary by, a run knows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from bench.estimates import grouped
from bench.metrics import HOST, HOST_IN_A_ROW, STEP, Kind
from bench.stats.changes import TINIEST, Spread, position
from bench.track.comparison import shared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.estimates import Estimate

    type Row = tuple[Cell, str]
    """A cell and a metric."""

BETWEEN = {
    STEP: Spread(0.02, 10),
    HOST: Spread(0.02, 10),
    HOST_IN_A_ROW: Spread(0.02, 10),
    "peak_rss": Spread(0.001, 10),
}
"""By metric; used where one base run is given, and in histories of kept runs. `paule_mandel` makes
0.022, 0, 0 and 0 of default runs some hours apart, and 0.010, 0.021 and 0.018 of the first three in
runs of one busy hour (results/selftest/between.md): too few to rely on smaller values."""
OTHERS = Spread(0.005, 10)
"""The same of cold stages: those runs make 0, and 0.028 of `init`. What a run itself knows of them
varies by more."""
ANYWAY = 0.1
"""Scale of a warm row whose arm adds nothing, where one that adds all of its time has 1: three
default runs of one day differed by 0.07 to 0.35 % in styles that add next to nothing."""
LEAST_DF = 6.0
"""Degrees of freedom with fewer of which the spread of several base runs does not replace the
table: three runs say little."""
KNOWN_DF = 4.0
"""Degrees of freedom of a standard error with fewer of which a row tells nothing of the spread."""


def scale(row: Estimate) -> float:
    """Return the scale by which a ratio to the baseline varies: by what its arm adds, if warm."""
    return abs(1 - 1 / row.value) + ANYWAY if row.kind is Kind.WARM else 1.0


def spread(row: Estimate, between: Mapping[str, Spread] = BETWEEN) -> Spread:
    """Return what a row of the same code differs by from run to run."""
    of_metric = between.get(row.metric, OTHERS)
    return Spread(of_metric.sd * scale(row), of_metric.df)


def learned(runs: Sequence[Mapping[Row, Estimate]]) -> dict[str, Spread]:
    """Return what each metric varies by in runs of the same code; the table where they say little.

    An uncertain spread that is larger than the table's is taken: the machine is not a quiet one.
    """
    known_rows = ((key, row) for run in runs for key, row in run.items() if row.df >= KNOWN_DF)
    several = ((key[1], rows) for key, rows in grouped(known_rows).items() if len(rows) > 1)
    out = dict(BETWEEN)
    for metric, group in grouped(several).items():
        of_runs, known = paule_mandel(group), BETWEEN.get(metric, OTHERS)
        uncertain = Spread(max(of_runs.sd, known.sd), known.df)
        out[metric] = of_runs if of_runs.df >= LEAST_DF else uncertain
    return out


def paule_mandel(rows: Sequence[Sequence[Estimate]]) -> Spread:
    """Return the spread between runs of rows that vary alike, in multiples of their scales.

    The variance between runs is what makes the squared distances of a row's estimates from their
    weighted mean as large as they ought to be: Paule and Mandel (1982), "Consensus values and
    weighting factors", summed over rows. Rows of one style move together, so degrees of freedom
    count styles and not rows; they are the fewer the more of the variance is the runs' own.
    """
    data = [
        (
            np.array([position(row) for row in several]) / size,
            np.array([row.standard_error or 0.0 for row in several]) / size,
        )
        for several in rows
        for size in [scale(several[-1])]
    ]
    spare = sum(len(x) - 1 for x, _ in data)

    def excess(variance: float) -> float:
        total = 0.0
        for x, error in data:
            weights = 1 / np.maximum(error**2 + variance, TINIEST)
            total += float((weights * (x - np.average(x, weights=weights)) ** 2).sum())
        return total - spare

    most = max(float(np.ptp(x)) ** 2 for x, _ in data) + TINIEST
    variance = float(optimize.brentq(excess, 0.0, most)) if excess(0.0) > 0 else 0.0
    within = float(np.median([np.mean(error**2) for _, error in data]))
    known = variance / (variance + within) if variance else 1.0
    styles = len({shared(several[0])[:2] for several in rows})
    runs = max(len(x) for x, _ in data)
    return Spread(math.sqrt(variance), styles * (runs - 1) * known**2)
