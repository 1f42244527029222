"""Writing run files: whole or not at all, and never over another file."""

from __future__ import annotations

import datetime
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_commit_info

from bench.metrics import METRICS
from bench.runfile import unpacked
from common.errors import BakeoffError
from common.files import partial_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.runfile import ResultsWithSamples
    from bench.samples import Sample

SMALL = 100_000
"""Bytes of a file up to which it is indented, since people read it; of a larger one, indentation
would be most of the bytes."""


def run_file(results: ResultsWithSamples) -> dict[str, Any]:
    """Return a whole run file of what a command measured itself."""
    return {
        "machine_info": pytest_benchmark_generate_machine_info(),
        "commit_info": get_commit_info(None),
        "benchmarks": list(benchmarks(unpacked(results.samples))),
        "datetime": datetime.datetime.now(datetime.UTC).isoformat(),
        "version": "5",
        "bakeoff": results,
    }


def benchmarks(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """Yield the entries of pytest-benchmark, one for each cell and metric that varies.

    They have statistics of the blocks' medians, for other tools.
    """
    values: dict[tuple[str, Cell, str], list[float]] = {}
    for sample in samples:
        if METRICS[sample.metric].varies:
            key = sample.environment, sample.cell, sample.metric
            values.setdefault(key, []).append(sample.typical)
    for (environment, cell, metric), several in values.items():
        stats = Stats()
        for value in several:
            stats.update(value)
        where = f"-{environment}" if environment else ""
        name = f"test_{metric}[{metric}-{cell}{where}]"
        yield {
            "group": group_of(cell, metric),
            "name": name,
            "fullname": name,
            "stats": stats.as_dict(),
            "extra_info": extra_info(cell, metric),
            "params": None,
            "param": f"{metric}-{cell}",
            "options": {},
        }


def group_of(cell: Cell, metric: str) -> str:
    """Return what pytest-benchmark calls a metric at a workload."""
    unit = METRICS[metric].unit
    return f"{cell.workload} {cell.backend} {metric}" + (f" ({unit})" if unit != "s" else "")


def extra_info(cell: Cell, metric: str) -> dict[str, str]:
    """Return what an entry of pytest-benchmark is of."""
    return {**cell._asdict(), "metric": metric, "unit": METRICS[metric].unit}


def write(path: Path, data: Mapping[str, object]) -> None:
    """Write a new file of JSON; a large one without indentation."""
    encoded = msgspec.json.encode(data, enc_hook=float)
    indent = 1 if len(encoded) < SMALL else -1
    with whole_file(path) as partial:
        partial.write_bytes(msgspec.json.format(encoded, indent=indent) + b"\n")


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """Yield where to write a file, which gets its name when all of it is written.

    Args:
        path: Of the file.
        what: What a message calls it.

    Raises:
        BakeoffError: it cannot be written.
    """
    try:
        with partial_file(path) as partial:
            yield partial
    except OSError as error:
        raise BakeoffError(f"{what}{path} cannot be written: {error.strerror}") from error
