"""Writing run files: also one side's of a comparison, as `pytest bench --benchmark-json` would."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_commit_info

from bench.metrics import METRICS, Kind
from bench.runfile import Benchmark, Entry, PlanOfRun, RunConditions, RunFile
from bench.runfile.atomic_write import whole_file
from bench.runfile.section import section
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.cells import Cell, Offer
    from bench.runfile import Metric, SectionWithSamples
    from bench.samples import State

SMALL = 100_000
"""Bytes of a file that is indented, since people read it; of a large one, indentation would be
most of the bytes."""


def run_data(
    state: State,
    needed: Mapping[Cell, set[str]],
    offer: Offer,
    *,
    plan: PlanOfRun,
    commit: str | None = None,
    **about: Any,
) -> RunFile:
    """Return what a run file says of one side.

    Args:
        state: What was found on it.
        needed: The metrics that were asked for, by cell.
        offer: What its environment has.
        plan: Its margin, seed and budget.
        commit: Of this project, where a revision was measured; None for the code at hand.
        about: Further fields of the section.
    """
    conditions = msgspec.convert(offer.facts, RunConditions)
    said = section(state, needed, plan=plan, environment=conditions, **about)
    said.warnings = [*state.notes]
    return RunFile(
        machine_info=pytest_benchmark_generate_machine_info()
        | {"python_version": offer.versions["python"]}
        | offer.facts,
        commit_info=get_commit_info(None) if commit is None else {"id": commit, "dirty": False},
        benchmarks=list(benchmarks(state, said)),
        datetime=datetime.datetime.now(datetime.UTC).isoformat(),
        version="5",
        bakeoff=said,
    )


def benchmarks(state: State, said: SectionWithSamples) -> Iterator[Benchmark]:
    """Yield the entries of pytest-benchmark, one for each cell and metric that has samples."""
    for result in said.cells:
        cell = result.cell
        for metric, found in result.metrics.items():
            if not found.median or METRICS[metric].kind is Kind.ONCE:
                continue
            stats = Stats()
            for value in state.cells[cell].values(metric):
                stats.update(value)
            name = f"test_{metric}[{metric}-{cell}]"
            yield Benchmark(
                group=group_of(cell, metric),
                name=name,
                fullname=name,
                param=f"{metric}-{cell}",
                extra_info=entry(cell, metric, found, state.cells[cell].facts),
                stats=stats.as_dict(),
            )


def group_of(cell: Cell, metric: str) -> str:
    """Return what pytest-benchmark calls a metric at a workload."""
    unit = METRICS[metric].unit
    return f"{cell.workload} {cell.backend} {metric}" + (f" ({unit})" if unit != "s" else "")


def entry(cell: Cell, metric: str, found: Metric, facts: Mapping[str, Any]) -> Entry:
    """Return what an entry of pytest-benchmark says in addition.

    Args:
        cell: Whose it is.
        metric: Its name.
        found: What the run says of it.
        facts: How tracing was told from lowering, where that is known.
    """
    split = facts.get("trace_and_lower_split_by") if metric in ("trace", "lower") else None
    return Entry(
        **cell.facts,
        metric=metric,
        unit=found.unit,
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        verdict=found.verdict,
        trace_and_lower_split_by=split or msgspec.UNSET,
    )


def write(path: Path, data: msgspec.Struct | Mapping[str, Any]) -> None:
    """Write a new file, whole or not at all; a large one without indentation."""
    encoded = msgspec.json.encode(data, enc_hook=float)
    indent = 1 if len(encoded) < SMALL else -1
    with whole_file(path) as partial:
        partial.write_bytes(msgspec.json.format(encoded, indent=indent) + b"\n")


def new_folder(path: Path, option: str) -> None:
    """Make a folder for run files.

    Raises:
        BakeoffError: it cannot be made; `option` is what it was given to.
    """
    try:
        path.mkdir()
    except OSError as error:
        raise BakeoffError(f"{option} {path}: {error.strerror}; name another one") from error
