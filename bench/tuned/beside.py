"""What a run measured, beside the machine's limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import impls
from bench.cells import BASELINE
from bench.report.wording import joined, measured, seconds
from bench.tuned.limit import Limit, Parts
from common.errors import BakeoffError
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.runs import Run

BACKEND = "cpu"
"""The one whose limit is measured."""
TUNED = (BASELINE[0], "tuned")


@dataclass(frozen=True)
class Measured:
    """Medians of a step, in seconds; None where a run has none."""

    all_libraries: float | None
    """The median of the shared step's medians, of all JAX libraries."""
    tuned: float | None


def steps(run: Run, workload: str) -> Measured:
    """Return what a run says of a workload on the CPU."""
    own = [name for name in impls.names() if name not in impls.OUTSIDE]
    libraries = [name for name in own if impls.declared(name).jax]
    found = {
        (cell["entrant"], cell["style"]): metric["median"]
        for cell in run.section["cells"]
        if (cell["workload"], cell["backend"]) == (workload, BACKEND)
        and (metric := measured(cell, "step")) is not None
    }
    shared = [found[name, BASELINE[1]] for name in libraries if (name, BASELINE[1]) in found]
    return Measured(median(shared) if shared else None, found.get(TUNED))


def sentence(workload: str, limit: Limit, cores: int, found: Measured | None = None) -> str:
    """Return the limit in words, after what was measured if anything was."""
    found = found or Measured(None, None)
    words = []
    if found.all_libraries is not None:
        words.append(f"all libraries {seconds(found.all_libraries)}")
    if found.tuned is not None:
        words.append(f"tuned {seconds(found.tuned)}")
    limits = {"": limit.seconds}
    if cores > 1:
        limits = {
            f" on {cores} cores": limit.seconds,
            " with the chain on one of them": limit.chain_on_one,
            " on one core": limit.one_core.total,
        }
    least = ", ".join(f"{seconds(value)}{where}" for where, value in limits.items())
    words.append(f"the machine's limit {least}")
    if found.tuned is not None:
        times = joined([f"{found.tuned / value:.2g}" for value in limits.values()])
        words[-1] += f" (tuned is {times} times that)"
    return f"{workload}: {', '.join(words)}"


def sentences(run: Run, path: Path) -> list[str]:
    """Return the limits that `bakeoff limit --json` wrote, beside what a run measured.

    Workloads without a step in the run are left out.

    Raises:
        BakeoffError: the file cannot be read, or is another one.
    """
    try:
        found = json.loads(read_regular(path, MOST_JSON).decode("utf-8"))
        limits = {name: limit_of(row["limit"]) for name, row in found["workloads"].items()}
        cores = int(found["cores"])
    except OSError as error:
        raise BakeoffError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BakeoffError(
            f"{path} is not what `bakeoff limit --json` writes: give such a file"
        ) from error
    beside = {name: steps(run, name) for name in limits}
    return [
        sentence(name, limit, cores, beside[name])
        for name, limit in limits.items()
        if beside[name] != Measured(None, None)
    ]


def limit_of(row: dict[str, Any]) -> Limit:
    """Return a limit from what JSON has of it."""
    one, together = (Parts(**row[name]) for name in ("one_core", "all_cores"))
    return Limit(one, together, float(row["waiting"]))
