"""Two runs beside each other, one whose styles donate their state: what that is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import EXACT, label
from bench.report import wording
from bench.report.run import MEMORY, places, value
from bench.report.table import Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report.table import Content
    from bench.runfile import BakeoffSection, Result

BOTH = ("step", *MEMORY, "temp_bytes")
"""Metrics that stand in a table without and with donation."""
NOTE = (
    "Ratios are to plain JAX's of the same run: of donating styles, to plain JAX that donates. "
    "Live is what a step keeps between calls, in multiples of parameters and Adam's moments."
)


def tables(without: BakeoffSection, donating: BakeoffSection) -> Iterator[Table]:
    """Yield a table for each workload and backend, with a row for each style."""
    theirs = {row.cell: row for row in donating.good}
    for where, rows in places(without.good):
        columns = [Column("style")]
        for name in BOTH:
            title = label(name, "\n")
            columns += [Column(title, number=True), Column(f"{title},\ndonating", number=True)]
        columns += [Column(label("alias_bytes", "\n"), number=True), Column("live", number=True)]
        lines = []
        for row in rows:
            other = theirs.get(row.cell)
            cells = [said(each, name) for name in BOTH for each in (row, other)]
            lines.append(Row((wording.name(row), *cells, said(other, "alias_bytes"), copies(row))))
        yield Table(tuple(columns), tuple(lines), where, (NOTE,)).without_empty()


def said(row: Result | None, metric: str) -> Content:
    """Return what a cell says of a metric, measured or counted; nothing where there is no cell."""
    if row is None:
        return ""
    if metric not in EXACT:
        return value(row, metric)
    found = row.exact.get(metric)
    whole = row.proof is None or row.proof.whole_step
    return Value(found, EXACT[metric].unit) if found is not None and whole else ""


def copies(row: Result) -> str:
    """Return how many copies of its state a step keeps between calls."""
    live, parameters = row.exact.get("live_bytes"), row.exact.get("parameters")
    return f"{live / (3 * 4 * parameters):.2f}" if live and parameters else ""
