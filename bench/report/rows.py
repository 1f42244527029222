"""A run as flat rows, for other programs: one for each cell and metric."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from bench.cells import CELL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.runfile.reader import Run

OF_METRICS = (
    *("unit", "median", "ratio", "low", "high", "p", "verdict", "detectable", "cores"),
    *("preliminary", "settled_by", "samples", "blocks", "processes"),
)
COLUMNS = ("run", "when", *CELL, "metric", *OF_METRICS, "missing")
"""Of a row; exact metrics have a median alone."""


def rows(runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """Yield a row for each cell and metric, failed and missing ones too."""
    for run in runs:
        for cell in run.section.cells:
            about = {"run": run.name, "when": run.when, **cell.cell.facts}
            if cell.failure is not None:
                yield about | {"missing": f"failed: {cell.failure}"}
                continue
            for metric, found in cell.metrics.items():
                names = OF_METRICS if found.median else ("missing",)
                known = {name: getattr(found, name) for name in names}
                yield about | {"metric": metric} | known
            for metric, value in cell.exact.items():
                yield about | {"metric": metric, "median": value}
            if cell.final_loss:
                loss = {"unit": "nats", "median": cell.final_loss.same_weights}
                yield about | {"metric": "final_loss"} | loss


def as_csv(runs: Iterable[Run]) -> str:
    """Return rows as CSV with a header; what is not known is empty."""
    return csv_text(COLUMNS, rows(runs))


def csv_text(columns: Sequence[str], found: Iterable[dict[str, Any]]) -> str:
    """Return rows as CSV with a header; a column that a row lacks is empty there."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow({name: safe(value) for name, value in row.items()})
    return out.getvalue()


def safe(value: Any) -> Any:
    """Return a value that a spreadsheet shows and does not compute."""
    formula = isinstance(value, str) and value[:1] in tuple("=+-@\t\r")
    return f"'{value}" if formula else value


def as_json(runs: Iterable[Run]) -> str:
    """Return rows as a list of objects."""
    return json.dumps(list(rows(runs)), indent=1, ensure_ascii=False) + "\n"
