"""Runs beside each other without and with donated state: what donation is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import EXACT, label
from bench.report import wording
from bench.report.run import MEMORY, places, value
from bench.report.table import Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.cells import Cell
    from bench.report.table import Content
    from bench.runfile import BakeoffSection, Result

BOTH = ("step", *MEMORY, "temp_bytes")
"""Metrics that stand in a table without and with donation."""
NOTE = (
    "Ratios are to plain JAX's of the same run: of donating styles, to plain JAX that donates. "
    "Live is what a step keeps between calls without donation, in multiples of parameters and "
    "Adam's moments."
)


def tables(*sections: BakeoffSection) -> Iterator[Table]:
    """Yield a table for each workload and backend, with a row for each style.

    Args:
        sections: What runs say in turns, without and with donation; what the first two have not
            measured is taken from those that come after them.
    """
    without, donating = (by_cell(runs) for runs in (sections[::2], sections[1::2]))
    for where, rows in places(sections[0].good):
        columns = [Column("style")]
        for name in BOTH:
            title = label(name, "\n")
            columns += [Column(title, number=True), Column(f"{title},\ndonating", number=True)]
        bytes_ = (label(name, "\n") for name in ("argument_bytes", "alias_bytes"))
        columns += [Column(title, number=True) for title in (*bytes_, "live")]
        lines = []
        for row in rows:
            plain, other = (found.get(row.cell, []) for found in (without, donating))
            cells = [said(each, name) for name in BOTH for each in (plain, other)]
            cells += [said(plain, "argument_bytes"), said(other, "alias_bytes"), copies(row)]
            lines.append(Row((wording.name(row), *cells)))
        yield Table(tuple(columns), tuple(lines), where, (NOTE,)).without_empty()


def by_cell(sections: Sequence[BakeoffSection]) -> dict[Cell, list[Result]]:
    """Return what runs found in each cell that has not failed, in the order of the runs."""
    found: dict[Cell, list[Result]] = {}
    for row in (row for section in sections for row in section.good):
        found.setdefault(row.cell, []).append(row)
    return found


def said(rows: Sequence[Result], metric: str) -> Content:
    """Return what the first that has a metric says of it, measured or counted."""
    for row in rows:
        if row.measured(metric):
            return value(row, metric)
        count = row.exact.get(metric)
        if count is not None and (row.proof is None or row.proof.whole_step):
            return Value(count, EXACT[metric].unit)
    return ""


def copies(row: Result) -> str:
    """Return how many copies of its state a step keeps between calls."""
    live, parameters = row.exact.get("live_bytes"), row.exact.get("parameters")
    return f"{live / (3 * 4 * parameters):.2f}" if live and parameters else ""
