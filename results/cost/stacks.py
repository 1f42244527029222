"""Measure what styles add to a call of models of several sizes, for the table in README.md.

    python results/cost/stacks.py

Each size and library is a run of `bakeoff cost --arrays N --model LIBRARY`; the rows go to
`stacks.json`. It takes 12 minutes. Nothing else should run meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from bench.estimates import Estimate
from bench.report.table import Column, Row, Table
from bench.runfile.reader import Run, read
from bench.track.own_cost import OwnCost
from bench.worker.settings import ROOT
from bench.workloads import SKELETON
from impls.starters import list_models

ROWS = Path(__file__).with_name("stacks.json")
BUDGETS = {8: 20.0, 50: 20.0, 150: 40.0, 300: 60.0}
"""Number of parameter arrays (a perceptron; a small, a usual and a large model) → seconds of its
run: workers of larger models take longer to begin."""


class Stacks(msgspec.Struct):
    """Costs of stacks, and where they were measured."""

    when: str
    machine: str
    versions: dict[str, str]
    rows: list[Estimate]


def main() -> None:
    """Measure all sizes in all libraries."""
    runs = [measure(name, *sized) for name in list_models() for sized in BUDGETS.items()]
    rows = [row for run in runs for row in OwnCost(run.results).costs.values()]
    last = runs[-1]
    versions = {name: v for run in runs for name, v in run.results.versions.items()}
    kept = Stacks(last.when, last.processor, versions, rows)
    ROWS.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")


def measure(library: str, size: int, budget: float) -> Run:
    """Return the run of a library's stack."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        asked = [f"--arrays={size}", f"--model={library}", f"--budget={budget}", f"-o{path}"]
        command = [sys.executable, "-m", "bench.cli", "cost", *asked]
        subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603 -- our own words
        return read(path, samples=False)


def read_stacks() -> Stacks:
    """Return the published costs."""
    return msgspec.json.decode(ROWS.read_bytes(), type=Stacks)


def make_costs_table(stacks: Stacks) -> Table:
    """Return a row for each style, the cheapest of the largest models that all have first."""
    by_arm: dict[str, dict[int, Estimate]] = {}
    for row in stacks.rows:
        size = row.cell.workload.removesuffix(SKELETON).rpartition("_")[2]
        by_arm.setdefault(str(row.cell.arm), {})[int(size)] = row
    columns = Column("style"), *(Column(f"{size} arrays", number=True) for size in BUDGETS)
    shared = min(map(max, by_arm.values()))
    order = sorted(by_arm, key=lambda arm: by_arm[arm][shared].value)
    rows = [Row((arm, *(by_arm[arm].get(size, "") for size in BUDGETS))) for arm in order]
    return Table(columns, tuple(rows))


def describe_origin(stacks: Stacks) -> str:
    """Return in words where and when the costs were measured."""
    versions = ", ".join(f"{n} {v}" for n, v in stacks.versions.items() if n != "jax-bakeoff")
    return f"Measured on {stacks.when[:10]}, on one core of {stacks.machine}; {versions}."


if __name__ == "__main__":
    main()
