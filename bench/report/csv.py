"""Estimates as flat rows for other programs: CSV, and JSON with the same fields."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.estimates import Estimate
    from bench.runfile.reader import Run

CELL = ("entrant", "style", "workload", "backend")
COLUMNS = (
    *("run", "when", "environment", *CELL, "metric", "form", "unit", "value", "low", "high"),
    *("standard_error", "df", "p", "verdict", "against", "workers", "blocks", "settled_by"),
    *("bound", "missing"),
)
"""Of a row. `missing` says why there is no number."""
FORMULA = tuple("=+-@\t\r")
"""Beginnings of a text that a spreadsheet would compute."""


def run_rows(runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """Yield the rows of runs: their estimates, then what failed or was not measured, and why."""
    for run in runs:
        about = {"run": run.name, "when": run.when}
        yield from rows(run.results.estimates, **about)
        for result in run.results.cells:
            where = about | {"environment": result.environment} | _cell(result.cell)
            if result.failure is not None:
                yield where | {"missing": f"failed: {result.failure}"}
            for metric, reason in result.missing.items():
                yield where | {"metric": metric, "missing": reason}


def rows(estimates: Iterable[Estimate], **about: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each estimate, with further fields that all of them share."""
    for estimate in estimates:
        fields = {name: getattr(estimate, name) for name in COLUMNS if hasattr(estimate, name)}
        yield about | fields | _cell(estimate.cell)


def csv_text(table: Iterable[dict[str, Any]]) -> str:
    """Return rows as CSV with a header; an unknown field is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({name: _safe(value) for name, value in row.items()})
    return file.getvalue()


def json_text(table: Iterable[dict[str, Any]]) -> str:
    """Return rows as a list of objects."""
    return json.dumps(list(table), indent=1, ensure_ascii=False) + "\n"


def _cell(cell: Iterable[str]) -> dict[str, str]:
    return dict(zip(CELL, cell, strict=True))


def _safe(value: Any) -> Any:
    """Return a value that a spreadsheet shows and does not compute."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
