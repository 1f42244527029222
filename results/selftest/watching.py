"""Changes among nightly runs: this project's rule beside apache-otava's, on the same series.

    python results/selftest/watching.py --otava ENVIRONMENT/bin/python > watching.md

ENVIRONMENT is one of its own with `apache-otava`, which brings clients of five databases. Prints a
Markdown table: of series of 60 nights, in how many a planted shift is found within three nights,
and in how many something else is called a change.

A night's ratio has the noise that a run knows of itself, and what the same code differs by from
night to night. One night in twenty is a busy one, with five times as much of both; of the second,
it does not know.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import Cell
from bench.estimates import Estimate
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.stats.changes import Spread, compare_ratios, estimate_drift, find_shifts, is_change

if TYPE_CHECKING:
    from collections.abc import Sequence

NIGHTS, SERIES, AT, NEAR = 60, 200, 30, 3
"""Of a series; series of a kind; the first night after a shift; nights that it may be off by."""
KNOWN, BETWEEN, DF = 0.004, 0.005, 20.0
"""Standard deviations of a quiet night's logarithm, and the degrees of freedom of the first."""
SPREAD = Spread(BETWEEN, 10)
BUSY, TIMES = 0.05, 5.0
"""Share of busy nights, and how many times as noisy they are."""
PLANTED: dict[str, tuple[float, int, int]] = {
    "nothing": (0.0, 0, 1),
    "1 %": (0.01, AT, 1),
    "2 %": (0.02, AT, 1),
    "5 %": (0.05, AT, 1),
    "5 % in the last night": (0.05, NIGHTS - 1, 1),
    "5 % over 30 nights": (0.05, AT // 2, 30),
}
"""A shift, the first night that has it, and the nights that it takes to grow."""
OTAVA = """
import json, sys
from otava.analysis import compute_change_points
from otava.series import AnalysisOptions
o = AnalysisOptions()
print(json.dumps([
    [int(p.index) for p in compute_change_points(s, o.window_len, o.max_pvalue, o.min_magnitude)[0]]
    for s in json.load(sys.stdin)
]))
"""
"""With its own defaults."""


def nights(rng: np.random.Generator, shift: float, first: int, growing: int) -> list[Estimate]:
    """Return a series."""
    rows = []
    for night in range(NIGHTS):
        noise = TIMES if rng.random() < BUSY else 1.0
        level = math.log1p(shift * min(max(night - first + 1, 0) / growing, 1))
        log = level + rng.normal(0, noise * KNOWN) + rng.normal(0, noise * BETWEEN)
        rows.append(
            Estimate(
                cell=Cell("haiku", "pure", "seed", "cpu"),
                metric="step",
                form="ratio",
                value=math.exp(log),
                environment=f"{night:02d}",
                standard_error=noise * KNOWN * math.sqrt(rng.chisquare(DF) / DF),
                df=DF,
            )
        )
    return rows


def by_neighbours(rows: Sequence[Estimate]) -> list[Estimate]:
    """Return the differences of neighbours, which is what this project did before."""
    more: dict[str, Any] = {"comparisons": NIGHTS - 1, "least": estimate_drift(rows)}
    return [compare_ratios([old], [new], SPREAD, **more) for old, new in pairwise(rows)]


def nights_of(rows: Sequence[Estimate]) -> list[int]:
    """Return the nights at which something changed."""
    return [int(row.environment) for row in rows if is_change(row)]


def by_otava(python: str, series: Sequence[Sequence[Estimate]]) -> list[list[int]]:
    """Return the nights at which apache-otava sees a change, of each series."""
    given = json.dumps([[row.value for row in rows] for rows in series])
    command = [python, "-c", OTAVA]
    done = subprocess.run(  # noqa: S603 -- the script above
        command, input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--otava", required=True, help="Python of an environment that has it")
    python = parser.parse_args().otava
    rng, lines = np.random.default_rng(0), []
    names = "this project", "its neighbours alone", "apache-otava"
    for planted, (shift, first, growing) in PLANTED.items():
        series = [nights(rng, shift, first, growing) for _ in range(SERIES)]
        called = (
            [nights_of(find_shifts([rows], lambda _: SPREAD)) for rows in series],
            [nights_of(by_neighbours(rows)) for rows in series],
            by_otava(python, series),
        )
        numbers = []
        for of_tool in called:
            due = range(first - NEAR, first + growing + NEAR) if shift else ()
            right = sum(any(night in due for night in some) for some in of_tool)
            wrong = sum(any(night not in due for night in some) for some in of_tool)
            right_words = f"{right / SERIES:.1%}" if shift else ""
            numbers += [right_words, f"{wrong / SERIES:.1%}"]
        lines.append(Row((planted, *numbers)))
    titles = [f"{name}: {what}" for name in names for what in ("found", "else called")]
    columns = Column("planted"), *(Column(title, number=True) for title in titles)
    print("\n".join(table_lines(Table(columns, tuple(lines)))))


if __name__ == "__main__":
    main()
