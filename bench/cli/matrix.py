"""`bakeoff matrix`: many comparisons, on this machine or on a Ray cluster."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import BakeoffError, InterruptedRunError, require_folder_to_be

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet.plan import PlannedComparison

EXAMPLES = """Examples:\n
bakeoff matrix plan.toml\n
bakeoff matrix plan.toml --out nightly\n
bakeoff matrix plan.toml --out nightly --ray auto"""
SHOWN = 20
"""Comparisons that are listed; the others are counted."""
SECONDS_PER_CELL = 5.0
"""With a smaller budget, a comparison may leave cells out: a rule of thumb."""


def matrix(
    path: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Measure what has no run file in this folder yet."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on the nodes of this Ray cluster."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """List the comparisons of a plan and their cost; with --out, measure them.

    A comparison is one run, on a machine of its own. After Ctrl-C, the same command goes on. Exit
    status 1: some comparisons failed.
    """
    from bench.fleet.plan import plan

    if ray is not None and out is None:
        raise BakeoffError("--ray without --out; name the folder for the results")
    comparisons = plan(path)
    if out is None:
        show(comparisons, as_json=as_json)
        return 0
    return measured(comparisons, out, ray, as_json=as_json)


def show(comparisons: Sequence[PlannedComparison], *, as_json: bool) -> None:
    """Print a plan and its cost."""
    cells, seconds = sum(c.cells for c in comparisons), sum(c.table.budget for c in comparisons)
    short = [c for c in comparisons if c.table.budget < SECONDS_PER_CELL * c.cells]
    if as_json:
        counts = {
            "comparisons": len(comparisons),
            "cells": cells,
            "seconds": seconds,
            "with_too_little_budget": len(short),
        }
        print(json.dumps(counts, indent=2))
        return
    for comparison in comparisons[:SHOWN]:
        print(f"  {comparison}, {comparison.cells} cells, {words(comparison.table.budget)}")
    if len(comparisons) > SHOWN:
        print(f"  … and {len(comparisons) - SHOWN} more")
    print(
        f"{len(comparisons)} comparisons of {cells} cells: {words(seconds)} on one machine. "
        "Measure with --out FOLDER."
    )
    if short:
        print(
            f"bakeoff: {len(short)} comparisons have a budget of less than {SECONDS_PER_CELL:g} s "
            f"a cell and may leave cells out, the first is {short[0]}",
            file=sys.stderr,
        )


def measured(
    comparisons: Sequence[PlannedComparison], out: Path, ray: str | None, *, as_json: bool
) -> int:
    """Measure what has no run file yet, the longest first, and return the exit status.

    Raises:
        BakeoffError: The folder cannot be used, or there is no cluster or no node.
        InterruptedRunError: Ctrl-C.
    """
    from bench.fleet.cluster import measure_on_cluster
    from bench.fleet.process import INDEX, measure_here, run_file, save, write_index

    def tell(line: str) -> None:
        print(f"bakeoff: {line}", file=sys.stderr, flush=True)

    require_folder_to_be(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    left = [c for c in comparisons if not run_file(out, c).exists()]
    left.sort(key=lambda comparison: comparison.table.budget, reverse=True)
    total, finished, failed = sum(c.table.budget for c in left), 0.0, 0
    start = time.monotonic()
    results = measure_here(left, out, tell) if ray is None else measure_on_cluster(left, ray, tell)
    try:
        with closing(results):
            for number, (comparison, result) in enumerate(results, 1):
                save(out, comparison, result)
                finished += comparison.table.budget
                outcome = "measured"
                if result.run is None:
                    failed += 1
                    outcome = f"failed: {result.log.splitlines()[-1][:200]}"
                to_go = (time.monotonic() - start) * (total - finished) / finished
                tell(
                    f"{comparison} {outcome}; {number} of {len(left)} done, about {words(to_go)} "
                    "to go"
                )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; results so far are in {out}, give the same command again to go on"
        ) from None
    cells = write_index(out, comparisons)
    done = len(comparisons) - failed
    if as_json:
        counts = {"comparisons": len(comparisons), "done": done, "failed": failed, "cells": cells}
        print(json.dumps(counts, indent=2))
    else:
        print(f"{done} of {len(comparisons)} comparisons, {cells} cells in {out / INDEX}")
    if failed:
        tell(
            f"{failed} comparisons failed: see {out}/*.failed.txt; the same command tries them "
            f"again, from where they stopped: delete {out}/*.unfinished to start anew"
        )
    return int(failed > 0)


def words(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 96 * 3600 else f"{seconds / 86400:.1f} days"
