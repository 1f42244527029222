"""A time line in the terminal: a line of blocks for each series, and what changed along it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from bench.compare.pages import timeline_words as words
from bench.compare.pages.sparkline import sparkline
from bench.report import wording
from bench.report.runs import TIME
from bench.report.terminal import COLOURS, GAP, Column, Fitted, labels, lines, ordered, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Int
    from rich.console import Console, RenderableType

    from bench.compare.line import Line, Series, TimeLine

USUAL = (TIME, "step")
"""Metrics that are meant where none is asked for."""
NARROWEST, WIDEST = 8, 72
"""Characters of a line of blocks."""
HOURS = 0.1
"""By what part the same code's times may differ from hour to hour: they fill no more height."""
HALF = 4
"""Half-widths of an interval that fill the height, if nothing moved by more."""
MOST_RELEASES = 10
"""The newest ones are listed."""
MOST_CHANGES = 20


class Bar:
    """Shows how many files have been read: on a terminal, and only where some have to be.

    A context manager, since a bar has to be taken down.
    """

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("reading run files"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that so many are done; the bar goes when all are."""
        if done == 0:
            self.bar.start()
        self.bar.update(self.task, completed=done, total=total)


def parts(timeline: TimeLine) -> Iterator[RenderableType]:
    """Yield what is printed of a time line, in order; each part fits itself to the console."""
    for line in timeline.lines:
        yield heading(line)
        for group in words.groups(line):
            yield Fitted(partial(tables, group, line))
        yield lines([(text, 2) for text in beneath(line)])
    texts = [*timeline.notes, *(f"skipped: {problem}" for problem in timeline.problems)]
    if texts:
        yield lines([(text, 2) for text in texts], style="red" if timeline.problems else "")


def heading(line: Line) -> RenderableType:
    """Return what a line is of."""
    text = wording.printable(f"{line.machine}: {words.span(line)}")
    return Fitted(lambda _: iter([Text(f"{text}\n", style="bold")]))


def beneath(line: Line) -> Iterator[str]:
    """Yield what is said of a line beneath its tables."""
    yield from newest(list(words.changes(line)), MOST_CHANGES, "changes")
    releases = [f"{at}: {what}" for at, what in words.releases(line)]
    yield from newest(releases, MOST_RELEASES, "releases")
    yield from words.failures(line)
    yield ""


def newest(texts: Sequence[str], most: int, what: str) -> Iterator[str]:
    """Yield the last of some texts, and how many were before."""
    if len(texts) > most:
        yield f"… {len(texts) - most} earlier {what}; --since and --until choose a time."
    yield from texts[-most:]


def tables(group: Sequence[Series], line: Line, width: int) -> Iterator[RenderableType]:
    """Yield the table of a group; what there is no room for is left out."""
    yield Text(wording.printable(words.title(group, line)), style="bold")
    by_cell = {(s.key.entrant, s.key.style): s for s in group}
    cells = ordered([series.cell for series in group])
    shown = [by_cell[cell["entrant"], cell["style"]] for cell in cells]
    names = labels(cells)
    now = Column("  newest", [value(series) for series in shown])
    more = [
        Column("range", [Text(reach(series)) for series in shown]),
        Column("runs", [Text(f"{series.at.size:4d}") for series in shown]),
        Column("newest on", [Text(words.moment(line, int(s.at[-1]))) for s in shown]),
    ]
    room = width - max(name.cell_len for name in names) - GAP - now.width - GAP
    while more and room - sum(column.width + GAP for column in more) < NARROWEST:
        more.pop()
    room = min(WIDEST, room - sum(column.width + GAP for column in more))
    columns = [now, *more]
    runs = np.unique(np.concatenate([series.at for series in shown]))
    if room >= NARROWEST and runs.size > 1:
        blocks = [Text(drawn(series, runs, line.runs[-1].margin, room)) for series in shown]
        columns.insert(1, Column("over time", blocks))
    yield table("", names, columns, [True] * len(shown))
    yield Text()


def value(series: Series) -> Text:
    """Return the newest value, in colour only if it is a finding."""
    found = series.said(-1)
    if found["ratio"] is None:
        return Text(f"  {words.amount(series, series.median[-1])}" if not series.compared else "")
    text = f"{wording.mark(found) or ' '} {wording.ratio(found)}"
    return Text(text, style=COLOURS.get(found["verdict"] or "", ""))


def reach(series: Series) -> str:
    """Return the least and the most, one of them where they read the same."""
    values = series.values[np.isfinite(series.values)]
    if not values.size:
        return ""
    return "–".join(dict.fromkeys(words.amount(series, v) for v in (values.min(), values.max())))


def drawn(series: Series, runs: Int[np.ndarray, " runs"], margin: float, width: int) -> str:
    """Return a series as blocks, a place for each of `runs`; what is within its doubt is flat."""
    least = 0.0 if series.key.exact else HOURS
    if series.compared:
        ends = np.array([series.low, series.high])
        halves = np.diff(np.log(ends[:, (ends > 0).all(0)]), axis=0) / 2
        least = max(2 * margin, HALF * np.median(halves) if halves.size else HOURS)
    places = np.searchsorted(runs, series.at)
    return sparkline(series.values, places, runs.size, width, float(least))
