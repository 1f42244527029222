"""All numbers of a run: for each workload and backend, a few tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import wording
from bench.cells import BASELINE, PURE
from bench.estimates import group_by_key
from bench.metrics import HOST, METRICS, SAMPLED, STAGES, STEP, Kind
from bench.report import sentences
from bench.report.table import MISSING, Column, Row, Table
from bench.stats.amounts import subtract_amount
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.estimates import EstimateTable
    from bench.report.table import Content
    from bench.runfile import CellResult

PROGRAM = "program"
"""Column that is no metric: how the compiled program differs from the baseline's."""
EXACT_METRICS = [metric for metric in METRICS.values() if not metric.varies]
CALL_METRICS = [m for m in METRICS.values() if m.kind is Kind.WARM and m.turn != STAGES]
START_METRICS = [m for m in METRICS.values() if m.kind is Kind.COLD or m.turn == STAGES]
COLUMNS = {
    "calls": [*(metric.name for metric in CALL_METRICS), PROGRAM],
    "start-up": [metric.name for metric in START_METRICS if metric.unit != "B"],
    "programs and training": [metric.name for metric in EXACT_METRICS if metric.unit != "B"],
    "memory": [m.name for m in (*START_METRICS, *EXACT_METRICS) if m.unit == "B"],
}
"""Title of a table → its columns."""
COMPARED_METRICS = [metric.name for metric in METRICS.values() if metric.varies and metric.compared]
"""Metrics that are shown as ratios, or as added time."""
CALL_COUNTS = ("python_calls", "python_starts", "compilations_first", "compilations_warm")
"""Counts of a whole call; all others are of one program, and a call may run several."""


def group_by_place(cells: Iterable[CellResult]) -> dict[str, list[CellResult]]:
    """Return a workload and backend in words → its results without the control, sorted."""
    places = group_by_key(
        (wording.name_place(row.cell), row) for row in cells if not row.cell.is_control
    )
    for rows in places.values():
        order = [BASELINE.entrant, *(row.cell.entrant for row in rows)]
        rows.sort(key=lambda row: (order.index(row.cell.entrant), row.cell.style != PURE))
    return places


def is_timed(table: EstimateTable, rows: Iterable[CellResult]) -> bool:
    """Tell whether anything was timed at a place: counts say nothing by themselves."""
    return any(table.amount(row.cell, name) for row in rows for name in SAMPLED)


def make_tables(table: EstimateTable, rows: Sequence[CellResult]) -> Iterator[Table]:
    """Yield all numbers of a place as comparisons, then the times and sizes behind them."""
    place, title = wording.name_place(rows[0].cell), describe_place(table, rows)
    for what, names in COLUMNS.items():
        made = make_metrics_table(
            table, rows, names, f"{title if what == 'calls' else place}, {what}"
        )
        if len(made.columns) > 1:
            yield made
    columns = (Column("style"), *(make_column(name, amounts=True) for name in COMPARED_METRICS))
    medians = (
        Row((str(r.cell.arm), *(table.amount(r.cell, name) or "" for name in COMPARED_METRICS)))
        for r in rows
    )
    title = f"{place}, times and sizes (medians; ratios compare within blocks)"
    yield Table(columns, tuple(medians), title).drop_empty_columns()


def describe_place(table: EstimateTable, rows: Sequence[CellResult]) -> str:
    """Return a place's name, the sizes of its model, its blocks and processes."""
    title, known = wording.name_place(rows[0].cell), WORKLOADS.get(rows[0].cell.workload)
    if known is not None:
        title += f" (`{known.name}`): {known.chunk} characters in a step"
    measured = (table.amount(row.cell, name) for name in (STEP, HOST) for row in rows)
    if first := next(filter(None, measured), None):
        blocks = wording.pluralise(first.blocks, "block")
        title += f"; {blocks}, {wording.pluralise(first.workers, 'worker')}"
    return title


def make_metrics_table(
    table: EstimateTable, rows: Iterable[CellResult], names: Sequence[str], title: str
) -> Table:
    """Return a row for each cell, and a column for each metric that any of them has."""
    columns = (Column("style"), *map(make_column, names))
    lines = (
        Row((str(row.cell.arm), *(compare(table, row, metric) for metric in names))) for row in rows
    )
    return Table(columns, tuple(lines), title).drop_empty_columns()


def make_column(name: str, *, amounts: bool = False) -> Column:
    """Return the column of a metric's comparisons, or amounts, or of how programs differ."""
    if name == PROGRAM:
        return Column(PROGRAM, help="how it differs from the baseline's")
    metric = METRICS[name]
    head = metric.label
    if metric.added and not amounts:
        head = "added to\na call" if name == HOST else f"added to\n{metric.label}"
    return Column(head, amounts or name not in COMPARED_METRICS, metric.help)


def compare(table: EstimateTable, row: CellResult, name: str) -> Content:
    """Return what a cell has in a column: a comparison; the baseline's is a time, size or count."""
    cell = row.cell
    if row.failure is not None:
        return ""
    if name == PROGRAM:
        return "" if cell.is_baseline else sentences.program(row.proof)
    value = table.amount(cell, name)
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
