"""Ratios to whichever entrant the reader picks, each with its interval and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import BASELINE, Cell
from bench.estimates import beside
from bench.report.table import RATIO, Value
from bench.report.wording import measured
from bench.stats.verdicts import verdict
from bench.summary import number

if TYPE_CHECKING:
    from bench.runfile.reader import Run

MOST_ARMS = 200
"""With more arms in a group, a baseline of the reader's choice would take too long."""

type Beside = dict[Cell, dict[str, tuple[float, Value]]]
"""By cell and metric: the ratio to a baseline, and what people read."""


def by_baseline(run: Run) -> dict[str, Beside]:
    """Return all ratios of a run, by entrant whose `pure` style they refer to.

    Those to the run's own baseline are as the run has them; the others come from its samples by
    the same statistics, and each baseline's comparisons are a family of their own.
    """
    out = {BASELINE[0]: stored(run)}
    good = [cell for cell in run.section["cells"] if cell["failure"] is None]
    pure = dict.fromkeys(cell["entrant"] for cell in good if Cell.of(cell).is_pure)
    others = [(name, BASELINE[1]) for name in pure if name != BASELINE[0]]
    wanted = {
        (Cell.of(cell), metric)
        for cell in good
        for metric in cell["metrics"]
        if measured(cell, metric) is not None
    }
    margin = run.section["plan"]["margin"]
    for group, arms in run.samples.items():
        known = {
            cell: samples
            for cell, samples in arms.items()
            if (cell, group.metric) in wanted or cell.is_control
        }
        if not known or len(known) > MOST_ARMS:
            continue
        for name in others:
            for cell, estimate in beside(group, known, [name]).items():
                if not (cell.is_control or cell.weak):  # nobody's row; other work
                    low, high = map(number, estimate.interval)
                    said = str(verdict(estimate, margin))
                    value = Value(estimate.ratio, RATIO, low, high, said)
                    found = out.setdefault(name[0], {}).setdefault(cell, {})
                    found[group.metric] = estimate.ratio, value
    return out


def stored(run: Run) -> Beside:
    """Return the ratios that a run's file has."""
    return {
        Cell.of(cell): {
            metric: (found["ratio"], Value.of(found))
            for metric in cell["metrics"]
            if (found := measured(cell, metric)) and found.get("ratio") is not None
        }
        for cell in run.section["cells"]
    }
