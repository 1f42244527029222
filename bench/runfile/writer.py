"""Writing run files: also one side's of a comparison, as `pytest bench --benchmark-json` would."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_commit_info

from bench.cells import Cell
from bench.metrics import METRICS, Kind
from bench.runfile import ENTRY
from bench.runfile.whole import Whole
from bench.summary import section
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.cells import Offer
    from bench.engine.state import State


def run_data(
    state: State,
    needed: Mapping[Cell, set[str]],
    offer: Offer,
    *,
    margin: float,
    commit: str | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Return what a run file says of one side.

    Args:
        state: What was found on it.
        needed: The metrics that were asked for, by cell.
        offer: What its environment has.
        margin: Inside of which, as a fraction, two times are called equivalent.
        commit: Of this project, where a revision was measured; None for the code at hand.
        about: Further entries of the `bakeoff` section.
    """
    environment = {"versions": offer.versions, "devices": offer.devices, **offer.conditions}
    said = section(
        state,
        needed,
        margin=margin,
        environment=environment,
        warnings=[*state.notes],
        verdict=[],
        **about,
    )
    return {
        "machine_info": pytest_benchmark_generate_machine_info()
        | {"python_version": offer.versions["python"]}
        | environment,
        "commit_info": get_commit_info(None) if commit is None else {"id": commit, "dirty": False},
        "benchmarks": list(benchmarks(state, said)),
        "datetime": datetime.datetime.now(datetime.UTC).isoformat(),
        "version": "5",
        "bakeoff": said,
    }


def benchmarks(state: State, section_: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the entries of pytest-benchmark, one for each cell and metric that has samples."""
    results = {Cell.of(c): c["metrics"] for c in section_["cells"]}
    for cell, found in state.cells.items():
        if cell not in results or found.failure is not None:
            continue
        for metric in found.blocks:
            info = results[cell].get(metric)
            if info is None or "missing" in info or METRICS[metric].kind is Kind.ONCE:
                continue
            stats = Stats()
            for value in found.values(metric):
                stats.update(value)
            name, unit = f"test_{metric}[{metric}-{cell}]", METRICS[metric].unit
            said = {**cell.facts, "metric": metric, **info}
            yield {
                "group": f"{cell.workload} {cell.backend} {metric}"
                + (f" ({unit})" if unit != "s" else ""),
                "name": name,
                "fullname": name,
                "params": None,
                "param": f"{metric}-{cell}",
                "extra_info": {key: value for key, value in said.items() if key in ENTRY},
                "options": {},
                "stats": stats.as_dict(),
            }


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a new file, whole or not at all."""
    whole = Whole(path)
    try:
        whole.partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        whole.finish()
    except OSError as error:
        whole.discard()
        raise BakeoffError(f"{path} cannot be written: {error.strerror}") from error


def new_folder(path: Path, option: str) -> None:
    """Make a folder for run files.

    Raises:
        BakeoffError: it cannot be made; `option` is what it was given to.
    """
    try:
        path.mkdir()
    except OSError as error:
        raise BakeoffError(f"{option} {path}: {error.strerror}; name another one") from error
