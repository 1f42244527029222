"""Charts of a run: each says what it found in its title, and in words what can be seen in it.

One definition gives the interactive page and the SVG and PNG pictures.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import altair

from bench.report import wording
from bench.report.charts.blocks import blocks
from bench.report.charts.devices import devices
from bench.report.charts.drawn import Figure, picture, shown
from bench.report.charts.startup import startup
from bench.report.charts.widths import swept, widths
from bench.report.wording import measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts
    from bench.runfile.reader import Run

__all__ = ["Figure", "figures", "picture"]

MOST = 4
"""Charts of a run: one for each question."""


def figures(run: Run, others: Sequence[Run] = ()) -> list[Figure]:
    """Return the charts that a run has the data for, each question's for every backend.

    Widths are those of a sweep, if the run or one of the others is one.
    """
    backends = list(dict.fromkeys(cell["backend"] for cell in run.section["cells"]))
    with altair.utils.schemapi.debug_mode(False):  # our own charts, which tests have looked at
        drawn = [on_backend(run, backend, others) for backend in backends]
    found = []
    for question in zip(*drawn, strict=True):
        for backend, figure in zip(backends, question, strict=True):
            if figure is not None and len(backends) > 1:
                name, title = f"{figure.name}-{backend}", f"On {backend}: {figure.title}"
                figure = replace(figure, name=name, title=title)
            found.append(figure)
    return [figure for figure in found if figure is not None][:MOST]


def living(run: Run, backend: str) -> list[Facts]:
    """Return the cells of a run on one backend that have not failed."""
    return [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]


def on_backend(run: Run, backend: str, others: Sequence[Run]) -> list[Figure | None]:
    """Return a chart for each question, None where a run has not the data for one."""
    cells = living(run, backend)
    if not cells:
        return [None] * 4
    main = wording.main_workload([c for c in cells if measured(c, "step")] or cells)
    here = shown([cell for cell in cells if cell["workload"] == main])
    sweep = next((each for each in [run, *others] if swept(living(each, backend))), run)
    over_widths = widths(sweep, living(sweep, backend))
    if over_widths is not None and sweep is not run:
        text = f"{over_widths.text} From the run {sweep.name}."
        over_widths = replace(over_widths, text=text)
    return [
        blocks(run, here, main, backend),
        over_widths,
        devices(run, cells, backend),
        startup(here, main),
    ]
