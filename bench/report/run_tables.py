"""Tables of a run: for each workload and backend, the main table and further ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.cells import BASELINE, PURE
from bench.estimates import MIN_WORKERS, group_by_key
from bench.metrics import (
    HOST,
    METRICS,
    SAMPLED,
    STAGES,
    START_STAGES,
    STARTUP,
    STEP,
    Kind,
    label,
)
from bench.report import wording
from bench.report.table import MISSING, Column, Row, Table
from bench.stats.amounts import estimate_startup, subtract_amount
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.estimates import EstimateTable
    from bench.report.table import Content
    from bench.runfile import CellResult

PROGRAM_COLUMN = "program"
"""Column that is no metric: how the compiled program differs from the baseline's."""
MAIN_COLUMNS = (STEP, HOST, "compile", STARTUP, "peak_rss", "python_calls", PROGRAM_COLUMN)
"""Columns of the table that is read first."""
NEEDED_COLUMNS = (STEP, HOST)
"""Main columns that the narrowest terminal shows."""
REST_METRICS = [metric for metric in METRICS.values() if metric.name not in MAIN_COLUMNS]
EXACT_METRICS = [metric for metric in REST_METRICS if not metric.varies]
OTHER_COLUMNS = {
    "calls": [m.name for m in REST_METRICS if m.kind is Kind.WARM and m.turn != STAGES],
    "before the first step": START_STAGES,
    "programs and training": [metric.name for metric in EXACT_METRICS if metric.unit != "B"],
    "memory": [metric.name for metric in EXACT_METRICS if metric.unit == "B"],
}
"""Title of a further table → its columns."""
COMPARED_METRICS = [metric.name for metric in METRICS.values() if metric.varies and metric.compared]
"""Metrics that are shown as ratios, or as added time."""
CALL_COUNTS = ("python_calls", "python_starts", "compilations_first", "compilations_warm")
"""Counts of a whole call; all others are of one program, and a call may run several."""


@dataclass(frozen=True)
class Place:
    """A workload on a backend."""

    name: str
    """The workload and the backend, in words."""
    cells: Sequence[CellResult]
    """Its cells without the control, the baseline's first."""
    table: EstimateTable
    """All estimates of the run."""

    @property
    def is_timed(self) -> bool:
        """Whether anything was timed here: counts say nothing by themselves."""
        return any(self.table.amount(row.cell, name) for row in self.cells for name in SAMPLED)

    @property
    def main_table(self) -> Table:
        """The table that is read first, which says what is missing and what is preliminary."""
        rows = (self.table.comparison(r.cell, name) for name in NEEDED_COLUMNS for r in self.cells)
        thin = dict.fromkeys(label(row.metric) for row in rows if row and row.is_preliminary)
        notes = list(wording.explain_missing(self.cells))
        if thin:
            notes.append(f"Preliminary, from fewer than {MIN_WORKERS} workers: {', '.join(thin)}.")
        return self.make_table(self.title, MAIN_COLUMNS, notes=notes)

    @property
    def other_tables(self) -> tuple[Table, ...]:
        """All other numbers, and the times and sizes behind the ratios."""
        tables = [self.make_table(f"{self.name}, {n}", names) for n, names in OTHER_COLUMNS.items()]
        title = f"{self.name}, times and sizes (medians)"
        tables.append(self.make_table(title, COMPARED_METRICS, medians=True))
        return tuple(table for table in tables if len(table.columns) > 1)

    @property
    def title(self) -> str:
        """Title of its tables: name, sizes of the model, blocks and processes."""
        title, known = self.name, WORKLOADS.get(self.cells[0].cell.workload)
        if known is not None:
            batch = "" if known.batch == 1 else f", batch {known.batch}"
            title += f": width {known.width}, {known.chunk} characters{batch}"
        measured = (self.table.amount(r.cell, name) for name in NEEDED_COLUMNS for r in self.cells)
        if first := next(filter(None, measured), None):
            blocks = wording.pluralise(first.blocks, "block")
            title += f"; {blocks}, {first.workers} process{'es' * (first.workers > 1)}"
        return title

    def make_table(
        self,
        title: str,
        names: Iterable[str],
        *,
        medians: bool = False,
        notes: Iterable[str] = (),
    ) -> Table:
        """Return a table with a row for each cell, and a column for each name.

        Columns without content are left out. Contents are comparisons, or else `medians`, which are
        aligned to the right.
        """
        names = list(names)
        columns = (Column("style"), *(make_column(name, number=medians) for name in names))
        rows = []
        for row in self.cells:
            style = str(row.cell.arm) + " failed" * (row.failure is not None)
            contents = [
                (self.table.amount(row.cell, name) or "") if medians else self.compare(row, name)
                for name in names
            ]
            rows.append(Row((style, *contents)))
        return Table(columns, tuple(rows), title, tuple(notes)).drop_empty_columns()

    def compare(self, row: CellResult, name: str) -> Content:
        """Return the content of a cell in a column; the baseline's is a time, a size or a count."""
        cell, table = row.cell, self.table
        if row.failure is not None:
            return ""
        if name == PROGRAM_COLUMN:
            return "" if cell.is_baseline else wording.program(row.proof)
        value = estimate_startup(table, cell) if name == STARTUP else table.amount(cell, name)
        if value is None:
            return MISSING if name in row.missing else ""
        if name in SAMPLED or value.unit == "nats" or cell.is_baseline:
            return table.comparison(cell, name) or value
        if row.proof and not row.proof.whole_step and name not in CALL_COUNTS:
            return "part"
        reference = table.amount(cell.baseline, name)
        if reference is None:
            return value
        return "=" if value.value == reference.value else subtract_amount(value, reference)


def list_places(table: EstimateTable, cells: Iterable[CellResult]) -> Iterator[Place]:
    """Yield each workload and backend of some cells."""
    places = group_by_key((row.cell.place, row) for row in cells if not row.cell.is_control)
    for name, rows in places.items():
        order = [BASELINE.entrant, *(row.cell.entrant for row in rows)]
        rows.sort(key=lambda row: (order.index(row.cell.entrant), row.cell.style != PURE))
        yield Place(name, rows, table)


def make_column(name: str, *, number: bool) -> Column:
    """Return the column of a metric, or of differences between programs."""
    if name == PROGRAM_COLUMN:
        return Column("program", help="how it differs from the baseline's", needed=False)
    metric = METRICS[name]
    needed = name in NEEDED_COLUMNS or name not in MAIN_COLUMNS
    return Column(metric.label, number or name not in COMPARED_METRICS, metric.help, needed)
