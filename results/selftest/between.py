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

import numpy as np

from bench.metrics import METRICS, label
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, percent
from bench.runfile.reader import read
from bench.track.between_run_variance import KNOWN_DF, paule_mandel
from bench.track.comparison import Comparison
from bench.track.run_files import compare, relative

FOLDER = Path(__file__).parent / "aa"


def main() -> None:
    """Print how many pairs are called, and by metric what they differ by and what would show."""
    pairs, calls = 0, list[str]()
    widths, differences = defaultdict(list), defaultdict(list)
    repeated = defaultdict(list)
    for folder in sorted(FOLDER.iterdir()):
        kind = folder.name.partition("-")[0]
        runs = [read(path, samples=False) for path in sorted(folder.glob("*.json"))]
        tables = [relative(run.results) for run in runs]
        for key in dict.fromkeys(key for table in tables for key in table):
            rows = [table[key] for table in tables if key in table and table[key].df >= KNOWN_DF]
            if len(rows) > 1:
                repeated[kind, key[1]].append(rows)
        for base, new in combinations(runs, 2):
            it = Comparison(compare([base], new))
            pairs += 1
            called = [row for row in it.differing if it.worse(row) or it.faster(row)]
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
                f"{paule_mandel(repeated[key]).sd:.3f}" if repeated[key] else "",
            )
        )
        for key in sorted(widths, key=lambda key: (key[0], [*METRICS].index(key[1])))
    ]
    print("\n".join(table_lines(Table(tuple(columns), tuple(lines)))))


if __name__ == "__main__":
    main()
