"""The page of a run: one HTML file that works offline, from run files alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.report.charts import figures
from bench.report.excerpts import excerpts
from bench.report.findings import sentences
from bench.report.page.data import data
from bench.report.page.parts import document_page, embedded, script
from bench.report.run import document, legend, machine, tables
from bench.report.table import Column, Row, Section, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.runfile.reader import Run


def page(runs: Sequence[Run], limits: Sequence[str] = ()) -> str:
    """Return the HTML of one or more runs; the first one is what its text and charts are about.

    Its tables are one that the reader can turn and sort; without JavaScript they are what a
    terminal has.

    `limits` are sentences about what the first run's machine can do at best.
    """
    run = runs[0]
    whole = document(run, limits)
    static = list(tables(run))
    how, closer = legend(run.section)
    left_out = [*(section.title for section in static), "How to read it"]
    kept = [section for section in whole.sections if section.title not in left_out]
    parts = [
        *(section for section in kept if not section.folded),
        Section("Charts", figures=tuple(figures(run, runs[1:]))),
        *(section for section in kept if section.folded),
        Section(f"All {len(runs)} runs in this page", (), (listed(runs),), folded=True),
    ]
    parts = [part for part in parts if part.figures or part.lines or part.tables]
    return document_page(
        replace(whole, sections=tuple(parts if len(runs) > 1 else parts[:-1])),
        "page.html.jinja",
        js=script("page.js", "charts.js"),
        skip=("table", "To the table"),
        static=static,
        legend=" ".join([*how, *closer[:1]]),
        excerpts=excerpts(dict.fromkeys(cell.entrant for cell in run.section.cells)),
        data=embedded(data(runs)),
    )


def listed(runs: Sequence[Run]) -> Table:
    """Return the runs of a page, each with the first thing that it found."""
    rows = [
        Row((run.name, run.when, machine(run), [*run.lacking, *sentences(run.section)][0]))
        for run in runs
    ]
    return Table(tuple(map(Column, ("run", "when", "where", "what it says first"))), tuple(rows))
