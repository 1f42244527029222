"""The files of a history: an ordinary run file for each stack, and `history.json`."""

from __future__ import annotations

import ast
import json
import os
from typing import TYPE_CHECKING, Any

from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

import impls
from bench.compare.series import ALPHA, as_data, changed, measured, sentences
from bench.engine.sides_plan import REFERENCE
from bench.metrics import EXACT
from bench.report.runs import processor_model
from bench.runfile.whole import Whole
from bench.runfile.writer import new_folder, run_data, write
from bench.stats.changes import comparisons
from bench.watch import machine
from bench.worker.settings import affinity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.cells import Cell
    from bench.compare.experiment import Offered
    from bench.compare.series import Key
    from bench.engine.sides_plan import History
    from bench.stats.changes import Points

SCHEMA = 1
NAME = "history.json"


def history_data(
    history: History,
    sides: Mapping[str, Offered],
    named: Mapping[str, str],
    gaps: Mapping[str, str],
    **about: Any,
) -> dict[str, Any]:
    """Return the content of `history.json`.

    Args:
        history: The schedule, after its end.
        sides: By name of side.
        named: The side of each day, in the order of time: two days of one stack share theirs.
        gaps: Days that could not be built, and why.
        about: Further entries: options and conditions.
    """
    found = measured(history)
    stacks = list(history.days)
    versions = {stack: sides[stack].offer.versions for stack in stacks}
    library = {name: distribution(name) for name in {key.cell.entrant for key in found}}
    moved = changed(found, stacks)
    return {
        "kind": "history",
        "schema": SCHEMA,
        **about,
        "machine": processor(),
        "warnings": [*warnings(history, sides), *unlike(found, stacks)],
        "days": [
            {
                "day": day,
                "stack": stack,
                "versions": versions.get(stack, {}),
                "python": sides[stack].environment.python if stack in sides else None,
                "gaps": day_gaps(stack, history, sides) if stack in sides else {},
                "missing": gaps.get(day),
            }
            for day, stack in sorted({**named, **dict.fromkeys(gaps, "")}.items())
        ],
        "stacks": stacks,
        "sweeps": max((sweep for sweep, _ in history.visits), default=0),
        "plan": history.plan,
        "alpha": ALPHA,
        "comparisons": comparisons(list(found.values())),
        "series": [as_data(key, p, medians(history, *key)) for key, p in found.items()],
        "exact": exact_series(history),
        "changes": [change.as_data() for change in moved],
        "sentences": sentences(moved, versions, library),
        "spent": {
            "wall_seconds": history.spent.wall,
            "sampling_seconds": history.spent.sampling,
            "processes": history.spent.processes,
        },
    }


def processor() -> str:
    """Return the name of this machine's processor, and the number of its cores."""
    name = processor_model(pytest_benchmark_generate_machine_info()) or "an unknown processor"
    return f"{name}, {len(affinity() or []) or os.cpu_count() or 1} cores"


def warnings(history: History, sides: Mapping[str, Offered]) -> list[str]:
    """Return reasons to doubt, in sentences."""
    notes = [f"{name}: {note}" for name, side in history.sides.items() for note in side.state.notes]
    pythons = sorted({side.environment.python for side in sides.values()})
    if len(pythons) > 1:
        notes.append(f"Days run on different Pythons ({', '.join(pythons)}): no one fits all.")
    return [*notes, *filter(None, machine(history.spent, sides[REFERENCE].offer.conditions))]


def unlike(found: Mapping[Key, Points], days: Sequence[str]) -> Iterator[str]:
    """Yield the days whose visits differ by more than those of other days, in sentences."""
    for key, points in found.items():
        if points.unlike:
            cell = key.cell
            yield (
                f"Visits of {cell.entrant} {cell.style} differ by far more than on other days in "
                f"{key.metric} at {cell.workload} on {', '.join(days[d] for d in points.unlike)}: "
                "changes there are less certain than p says."
            )


def day_gaps(stack: str, history: History, sides: Mapping[str, Offered]) -> dict[str, str]:
    """Return the cells of the reference that a stack lacks or that failed there, and why."""
    state, side = history.sides[stack].state, sides[stack]
    out = {}
    for cell in history.cells[REFERENCE]:
        name = f"{cell.entrant} {cell.style}"
        if cell not in state.cells:
            library = side.environment.gaps.get(distribution(cell.entrant))
            out[name] = library or side.gap(cell.entrant, cell.style) or "not offered"
        elif state.cells[cell].failure is not None:
            out[f"{name} {cell.workload}"] = str(state.cells[cell].failure)
    return out


def medians(history: History, cell: Cell, metric: str) -> list[float | None]:
    """Return the median of all samples of each day."""
    out: list[float | None] = []
    for day in history.days:
        row = history.sides[day].state.cells.get(cell)
        values = sorted(row.values(metric)) if row is not None and row.failure is None else []
        out.append(values[len(values) // 2] if values else None)
    return out


def exact_series(history: History) -> list[dict[str, Any]]:
    """Return the exact metrics that are not the same on all days, day by day."""
    out = []
    for cell in history.cells[REFERENCE]:
        rows = [history.sides[day].state.cells.get(cell) for day in history.days]
        for metric in EXACT:
            values = [row.exact.get(metric) if row is not None else None for row in rows]
            if len({value for value in values if value is not None}) > 1:
                out.append({**cell._asdict(), "metric": metric, "value": values})
    return out


def distribution(entrant: str) -> str:
    """Return the distribution of an entrant's library, read from its file without running it."""
    for node in ast.parse(impls.source(entrant).read_text("utf-8")).body:
        match node:
            case ast.Assign([ast.Name("DISTRIBUTION")], ast.Constant(value)):
                return str(value)
    return entrant


def put(
    folder: Path,
    history: History,
    sides: Mapping[str, Offered],
    data: Mapping[str, Any],
    margin: float,
) -> None:
    """Write each stack's run and `history.json` into a new folder.

    Raises:
        BakeoffError: the folder, or a run, cannot be written.
    """
    new_folder(folder, "output")
    for name in (*history.days, REFERENCE):
        run = run_data(
            history.sides[name].state,
            {cell: set(history.metrics) for cell in history.cells[name]},
            sides[name].offer,
            margin=margin,
            arguments=data["arguments"],
            plan={"seed": data["seed"]},
            history={"stack": name, "reference": data["reference"]},
        )
        write(folder / f"{name}.json", run)
    whole = Whole(folder / NAME)
    whole.partial.write_text(
        json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    whole.finish()
