"""Charts of a run: each says what it found in its title, and in words what can be seen in it.

One definition gives the interactive page and the SVG and PNG pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair

from bench.report import wording
from bench.report.charts.blocks import blocks
from bench.report.charts.costs import ledger, totals
from bench.report.charts.drawn import Figure, picture, shown
from bench.report.charts.losses import curves, initialisers
from bench.report.charts.widths import widths
from bench.report.wording import measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report.runs import Run
    from bench.report.wording import Facts

__all__ = ["Figure", "figures", "picture"]


def figures(run: Run, backend: str) -> list[Figure]:
    """Return the charts that a run has the data for, on one backend."""
    cells = [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]
    if not cells:
        return []
    with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
        return [figure for figure in drawn(run, cells, backend) if figure is not None]


def drawn(run: Run, cells: list[Facts], backend: str) -> Iterator[Figure | None]:
    """Yield the charts, None where a run has not the data for one."""
    main = wording.main_workload([c for c in cells if measured(c, "step")] or cells)
    here = shown([cell for cell in cells if cell["workload"] == main])
    yield blocks(run, here, main, backend)
    yield ledger(here, main)
    yield totals(run, here)
    yield widths(run, cells)
    yield curves(here, main)
    yield initialisers(here, main)
