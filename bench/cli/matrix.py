"""`bakeoff matrix`: the runs of a plan, on this machine or on a Ray cluster."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from common.errors import BakeoffError, InterruptedRunError, require_folder_to_be
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet.plan import PlannedRun

EXAMPLES = """Examples:
bakeoff matrix plan.toml
bakeoff matrix plan.toml --out nightly
bakeoff matrix plan.toml --out nightly --ray auto"""
SHOWN = 20
"""Runs that are listed; the others are counted."""
SECONDS_PER_CELL = 5.0
"""With a smaller budget, a run may leave cells out: a rule of thumb."""
INDEX = "index.jsonl"


def matrix(
    path: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measure what has no run file in this folder yet."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on the nodes of this Ray cluster."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List the runs of a plan and their cost; with --out, measure them.

    A run has a machine of its own. After Ctrl-C, the same command goes on. Exit status 1: some runs
    failed.
    """
    from bench.fleet.plan import plan

    if ray is not None and out is None:
        raise BakeoffError("--ray without --out; name the folder for the results")
    runs = plan(path)
    if out is None:
        show(runs, as_json=as_json)
        return 0
    return measured(runs, out, ray, as_json=as_json)


def show(runs: Sequence[PlannedRun], *, as_json: bool) -> None:
    """Print a plan and its cost."""
    cells, seconds = sum(r.table.cells for r in runs), sum(r.table.budget for r in runs)
    short = [r for r in runs if r.table.budget < SECONDS_PER_CELL * r.table.cells]
    if as_json:
        print_json(runs=len(runs), cells=cells, seconds=seconds, with_too_little_budget=len(short))
        return
    for run in runs[:SHOWN]:
        print(f"  {run}, {run.table.cells} cells, {words(run.table.budget)}")
    if len(runs) > SHOWN:
        print(f"  … and {len(runs) - SHOWN} more")
    print(
        f"{len(runs)} runs of {cells} cells: {words(seconds)} on one machine. Measure with --out "
        "FOLDER."
    )
    if short:
        tell(
            f"{len(short)} runs have a budget of less than {SECONDS_PER_CELL:g} s a cell and may "
            f"leave cells out, the first is {short[0]}"
        )


def measured(runs: Sequence[PlannedRun], out: Path, ray: str | None, *, as_json: bool) -> int:
    """Measure what has no run file yet, the longest first, and return the exit status.

    Raises:
        BakeoffError: the folder cannot be used, or there is no cluster or no node.
        InterruptedRunError: Ctrl-C.
    """
    from bench.fleet.cluster import measure_on_cluster
    from bench.fleet.process import measure_here

    require_folder_to_be(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    left = [run for run in runs if not (out / f"{run.key}.json").exists()]
    left.sort(key=lambda run: run.table.budget, reverse=True)
    total, finished, failed = sum(run.table.budget for run in left), 0.0, 0
    start = time.monotonic()
    outputs = measure_here(left, out, tell) if ray is None else measure_on_cluster(left, ray, tell)
    try:
        with closing(outputs):
            for number, (run, output) in enumerate(outputs, 1):
                failure, outcome = out / f"{run.key}.failed.txt", "measured"
                if output.file is None:
                    failed += 1
                    atomic_write(failure, f"{output.log}\n")
                    outcome = f"failed: {output.log.splitlines()[-1][:200]}"
                else:
                    atomic_write(out / f"{run.key}.json", output.file)
                    failure.unlink(missing_ok=True)
                finished += run.table.budget
                to_go = words((time.monotonic() - start) * (total - finished) / finished)
                tell(f"{run} {outcome}; {number} of {len(left)} done, about {to_go} to go")
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; results so far are in {out}, give the same command again to go on"
        ) from None
    cells, done = write_index(out, runs), len(runs) - failed
    if as_json:
        print_json(runs=len(runs), done=done, failed=failed, cells=cells)
    else:
        print(f"{done} of {len(runs)} runs, {cells} cells in {out / INDEX}")
    if failed:
        tell(
            f"{failed} runs failed: see {out}/*.failed.txt; the same command tries them again, "
            f"from where they stopped: delete {out}/*.unfinished to start anew"
        )
    return int(failed > 0)


def write_index(folder: Path, runs: Sequence[PlannedRun]) -> int:
    """Write a line with the estimates of each measured cell to the index of a folder.

    Returns:
        The number of cells. One run file is in memory at a time.
    """
    from bench.runfile.reader import read

    lines = []
    for run in runs:
        path = folder / f"{run.key}.json"
        if not path.exists():
            continue
        about = {"compare": run.table.name, "environment": run.environment, "number": run.number}
        results = read(path, samples=False).results
        for row in results.cells:
            cell = about | {"file": path.name, **row.cell._asdict(), "failure": row.failure}
            cell["estimates"] = [e for e in results.estimates if e.cell == row.cell]
            lines.append(msgspec.json.encode(cell) + b"\n")
    atomic_write(folder / INDEX, b"".join(lines))
    return len(lines)


def tell(line: str) -> None:
    """Print a line beside what is asked for."""
    print(f"bakeoff: {line}", file=sys.stderr, flush=True)


def print_json(**counts: Any) -> None:
    """Print counts as JSON."""
    print(msgspec.json.format(msgspec.json.encode(counts), indent=2).decode())


def words(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 96 * 3600 else f"{seconds / 86400:.1f} days"
