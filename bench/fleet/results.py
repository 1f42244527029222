"""The folder of a matrix: a run file for each comparison, and an index of all cells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.cells import CELL
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.fleet.plan import PlannedComparison
    from bench.fleet.process import ProcessResult

INDEX = "index.jsonl"


def run_file(folder: Path, comparison: PlannedComparison) -> Path:
    """Return the path of a comparison's run file."""
    return folder / f"{comparison.key}.json"


def save(folder: Path, comparison: PlannedComparison, result: ProcessResult) -> None:
    """Write a comparison's run file, or why it failed."""
    failure = folder / f"{comparison.key}.failed.txt"
    if result.run is None:
        atomic_write(failure, f"{result.log}\n")
    else:
        atomic_write(run_file(folder, comparison), result.run)
        failure.unlink(missing_ok=True)


def write_index(folder: Path, comparisons: Iterable[PlannedComparison]) -> int:
    """Write one line for each measured cell into the folder's index; return the number of cells.

    Only one run file is in memory at a time.
    """
    kept = (*CELL, "failure", "metrics")
    lines = []
    for comparison in comparisons:
        path = run_file(folder, comparison)
        if path.exists():
            about = {
                "compare": comparison.table.name,
                "environment": comparison.environment,
                "number": comparison.number,
                "file": path.name,
            }
            for cell in json.loads(path.read_bytes())["bakeoff"]["cells"]:
                found = {name: cell[name] for name in kept if name in cell}
                lines.append(f"{json.dumps(about | found)}\n")
    atomic_write(folder / INDEX, "".join(lines))
    return len(lines)
