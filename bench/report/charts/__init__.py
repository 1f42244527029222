"""Charts of a run: each says what it found in its title, and in words what can be seen in it.

One definition gives the interactive page and the SVG and PNG pictures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import altair

from bench.report import wording
from bench.report.charts.blocks import blocks
from bench.report.charts.costs import ledger, totals
from bench.report.charts.devices import devices
from bench.report.charts.drawn import Figure, picture, shown
from bench.report.charts.losses import curves, initialisers
from bench.report.charts.widths import swept, widths
from bench.report.wording import measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.runs import Run
    from bench.report.wording import Facts

__all__ = ["Figure", "figures", "picture"]


def figures(run: Run, backend: str, others: Sequence[Run] = ()) -> list[Figure]:
    """Return the charts that a run has the data for, on one backend.

    Widths are those of a sweep, if the run or one of the others is one.
    """
    cells = living(run, backend)
    if not cells:
        return []
    sweep = next((each for each in [run, *others] if swept(living(each, backend))), run)
    with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
        return [figure for figure in drawn(run, cells, backend, sweep) if figure is not None]


def living(run: Run, backend: str) -> list[Facts]:
    """Return the cells of a run on one backend that have not failed."""
    return [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]


def drawn(run: Run, cells: list[Facts], backend: str, sweep: Run) -> Iterator[Figure | None]:
    """Yield the charts, None where a run has not the data for one."""
    main = wording.main_workload([c for c in cells if measured(c, "step")] or cells)
    here = shown([cell for cell in cells if cell["workload"] == main])
    yield blocks(run, here, main, backend)
    yield ledger(here, main)
    yield totals(run, here)
    found = widths(sweep, living(sweep, backend))
    if found is not None and sweep is not run:
        found = replace(found, text=f"{found.text} From the run {sweep.name}.")
    yield found
    yield devices(run, cells, backend)
    yield curves(here, main)
    yield initialisers(here, main)
