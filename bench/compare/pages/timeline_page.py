"""The page of a time line: one HTML file that works offline, in the style of a run's page."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bench.compare.pages import timeline_words as words
from bench.compare.pages.timeline import reach, value
from bench.compare.pages.timeline_charts import figures
from bench.report.page.data import SHOWN
from bench.report.page.parts import filled, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.compare.line import Line, TimeLine
    from bench.report.charts import Figure
    from bench.report.wording import Facts

USUAL = SHOWN
"""Metrics that are meant where none is asked for: those of a run's page."""
HERE = Path(__file__).parent
MOST_FIGURES = 30
"""In a page: it has to be drawn by a phone."""
FIRST = 4
"""Sentences of a machine that are read without a click."""


def page(timeline: TimeLine, title: str = "Time line") -> str:
    """Return the HTML of a time line."""
    drawn: list[Figure] = []
    lines = []
    for number, line in enumerate(timeline.lines):
        room = MOST_FIGURES - len(drawn)
        made = [
            replace(figure, name=f"{number}-{figure.name}")
            for figure in islice(figures(line), room + 1)
        ]
        start = len(drawn)
        drawn += made[:room]
        said = list(words.changes(line))
        lines.append(
            {
                "id": f"machine-{number}",
                "machine": line.machine,
                "span": words.span(line),
                "said": said[-FIRST:],
                "more": said[:-FIRST],
                "failures": list(words.failures(line)),
                "figures": list(enumerate(made[:room], start)),
                "cut": len(made) > room,
                "rows": list(rows(line)),
                "releases": list(words.releases(line))[::-1],
            }
        )
    ats = [run.at[: words.DAY] for line in timeline.lines for run in line.runs]
    return filled(
        "timeline.html.jinja",
        figures=drawn,
        folders=[HERE],
        js=script("charts.js"),
        skip=(lines[0]["id"], "To the first machine"),
        title=title,
        subtitle=f"{len(ats)} runs, {min(ats)} to {max(ats)}",
        sections=[(line["id"], line["machine"]) for line in lines],
        lines=lines,
        problems=timeline.problems,
        notes=timeline.notes,
    )


def rows(line: Line) -> Iterator[Facts]:
    """Yield a row for each series: where it is now, and where it has been."""
    for group in words.groups(line):
        for series in group:
            newest = value(series)
            yield {
                "what": words.label(series.key.metric),
                "where": words.place(series.key, backends=words.several(line)),
                "style": series.name,
                "newest": newest.plain.strip(),
                "verdict": series.said(-1)["verdict"] if series.compared else "",
                "range": reach(series),
                "runs": series.at.size,
                "on": words.moment(line, int(series.at[-1])),
            }
