"""Pairs of runs of the same code, compared: `python results/selftest/between.py > between.md`.

Prints a Markdown table. Each folder of `aa/` has runs of the same measured code, without their
samples: `hour` of one busy hour, with other loads, budgets and two environments from one lock; the
others are default runs, some hours apart. A false call is a pair of which `bakeoff compare` says
that something is worse or faster.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from bench.metrics import METRICS, label
from bench.numbers import percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile.reader import read
from bench.stats.changes import (
    LEAST_VARIANCE,
    OTHER_SPREAD,
    RUN_SPREADS,
    find_spread,
    log_ratio,
)
from bench.track.comparison import Comparison
from bench.track.run_files import compare, make_relative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.estimates import Estimate

FOLDER = Path(__file__).parent / "aa"
KNOWN_DF = 4.0
"""Degrees of freedom of a standard error with fewer of which a row tells nothing of the spread."""


def main() -> None:
    """Print how many pairs are called, and by metric what they differ by and what would show."""
    pairs, calls = 0, list[str]()
    widths, differences = defaultdict(list), defaultdict(list)
    repeated = defaultdict(list)
    for folder in sorted(FOLDER.iterdir()):
        kind = folder.name.partition("-")[0]
        runs = [read(path, samples=False) for path in sorted(folder.glob("*.json"))]
        tables = [make_relative(run.results) for run in runs]
        for key in dict.fromkeys(key for table in tables for key in table):
            rows = [table[key] for table in tables if key in table and table[key].df >= KNOWN_DF]
            if len(rows) > 1:
                repeated[kind, key[1]].append(rows)
        for base, new in combinations(runs, 2):
            it = Comparison(compare([base], new))
            pairs += 1
            called = [row for row in it.differing_times if it.is_worse(row) or it.is_faster(row)]
            words = ", ".join(f"{row.cell.arm} {label(row.metric)}" for row in called)
            calls += [f"{base.name} and {new.name}: {words}"] if called else []
            for row in it.rows:
                if math.isfinite(row.half_width):
                    widths[kind, row.metric].append(row.half_width)
                    differences[kind, row.metric].append(abs(math.log(row.value)))
    print(f"{pairs} pairs; false calls: {len(calls)} ({'; '.join(calls) or 'none'})\n")
    columns = [Column("runs"), Column("metric")]
    columns += [
        Column(title, number=True)
        for title in (
            "rows",
            "difference, median",
            "difference, 95 %",
            "half width of the interval, median",
            "between runs",
        )
    ]
    lines = [
        Row(
            (
                key[0],
                label(key[1]),
                str(len(widths[key])),
                percent(median(differences[key])),
                percent(float(np.quantile(differences[key], 0.95))),
                percent(median(widths[key])),
                f"{paule_mandel(repeated[key]):.3f}" if repeated[key] else "",
            )
        )
        for key in sorted(widths, key=lambda key: (key[0], [*METRICS].index(key[1])))
    ]
    print("\n".join(table_lines(Table(tuple(columns), tuple(lines)))))


def paule_mandel(rows: Sequence[Sequence[Estimate]]) -> float:
    """Return by how much rows that vary alike differ from run to run, relative to their scales.

    The variance between runs is what makes the squared distances of a row's estimates from their
    weighted mean as large as they ought to be: Paule and Mandel (1982), "Consensus values and
    weighting factors", summed over rows.
    """
    data = [
        (
            np.array([log_ratio(row) for row in several]) / size,
            np.array([row.standard_error or 0.0 for row in several]) / size,
        )
        for several in rows
        for last in [several[-1]]
        for size in [find_spread(last).sd / RUN_SPREADS.get(last.metric, OTHER_SPREAD).sd]
    ]
    spare = sum(len(x) - 1 for x, _ in data)

    def excess(variance: float) -> float:
        total = 0.0
        for x, error in data:
            weights = 1 / np.maximum(error**2 + variance, LEAST_VARIANCE)
            total += float((weights * (x - np.average(x, weights=weights)) ** 2).sum())
        return total - spare

    most = max(float(np.ptp(x)) ** 2 for x, _ in data) + LEAST_VARIANCE
    return math.sqrt(optimize.brentq(excess, 0.0, most)) if excess(0.0) > 0 else 0.0


if __name__ == "__main__":
    main()
