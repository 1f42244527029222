"""`bakeoff matrix`: a plan of comparisons, here or on a Ray cluster."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet.drive import Progress
    from bench.fleet.plan import Comparison

EXAMPLES = """Examples:\n
bakeoff matrix plan.toml\n
bakeoff matrix plan.toml --out nightly\n
bakeoff matrix plan.toml --out nightly --ray auto\n
bakeoff matrix plan.toml --simulate 100 --failures 0.05"""
SHOWN = 20
"""Comparisons that are listed; the others are counted."""


def matrix(
    path: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What is to be compared.")],
    out: Annotated[
        Path | None, typer.Option(help="Measure into this folder; what is there already is kept.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="On the nodes of this Ray cluster.")
    ] = None,
    simulate: Annotated[
        int | None, typer.Option(metavar="N", help="Say what N machines would take.")
    ] = None,
    failures: Annotated[
        float, typer.Option(help="Part of the simulated machines that is lost meanwhile.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Show a plan and what it costs; with --out, measure it.

    A comparison is what is measured in one run, on a machine of its own. Ctrl-C loses nothing: the
    same command goes on. Exit status 1: some comparisons have no number.
    """
    from bench.fleet.plan import plan

    if not 0 <= failures < 1:
        raise BakeoffError(f"--failures is {failures:g}; give a part from 0 to less than 1")
    if simulate is not None and simulate < 1:
        raise BakeoffError(f"--simulate is {simulate}; give at least one machine")
    if simulate is None and failures:
        raise BakeoffError("--failures without --simulate; say how many machines: --simulate 100")
    if simulate is not None and (ray is not None or out is not None):
        raise BakeoffError("--simulate measures nothing; leave --out and --ray out")
    if ray is not None and out is None:
        raise BakeoffError("--ray without --out; name the folder that results go into")
    start = time.perf_counter()
    comparisons = plan(path)
    took = time.perf_counter() - start
    if simulate is not None:
        simulated(comparisons, simulate, failures, as_json=as_json)
        return 0
    if out is None:
        show(comparisons, took, as_json=as_json)
        return 0
    return measured(comparisons, out, ray)


def show(comparisons: Sequence[Comparison], took: float, *, as_json: bool) -> None:
    """Print a plan and its cost."""
    from bench.fleet.cost import least

    short = [c for c in comparisons if c.budget < least(c)]
    cells, seconds = sum(c.cells for c in comparisons), sum(c.budget for c in comparisons)
    if as_json:
        rows: dict[str, Any] = {
            "comparisons": len(comparisons),
            "cells": cells,
            "seconds": seconds,
            "planned_in_seconds": took,
            "with_too_little_budget": len(short),
        }
        print(json.dumps(rows, indent=2))
        return
    for comparison in comparisons[:SHOWN]:
        print(f"  {comparison}, {comparison.cells} cells, {words(comparison.budget)}")
    if len(comparisons) > SHOWN:
        print(f"  … and {len(comparisons) - SHOWN} more")
    print(
        f"{len(comparisons)} comparisons of {cells} cells: {words(seconds)} on one machine; "
        f"planned in {took:.2f} s. Measure with --out FOLDER."
    )
    if short:
        first = max(short, key=lambda comparison: least(comparison) - comparison.budget)
        print(
            f"bakeoff: {len(short)} of them have less budget than the fewest blocks take: "
            f"{first}, {words(first.budget)} where {first.cells} cells take some "
            f"{words(least(first))}; they will leave out what does not fit",
            file=sys.stderr,
        )


def simulated(
    comparisons: Sequence[Comparison], machines: int, failures: float, *, as_json: bool
) -> None:
    """Print what a cluster would take."""
    from dataclasses import asdict

    from bench.fleet.simulate import simulate

    found = simulate(comparisons, machines, failures)
    if as_json:
        print(json.dumps(asdict(found) | {"ratio": found.ratio}, indent=2))
        return
    print(
        f"{len(comparisons)} comparisons on {machines} machines, {failures:.0%} of them lost: "
        f"{words(found.makespan)}, {found.ratio:.3f} times the lower bound of "
        f"{words(found.bound)}; "
        f"{found.done} measured, {found.lost} begun anew, {found.twice} measured twice, "
        f"{found.left} left"
    )


def measured(comparisons: Sequence[Comparison], out: Path, ray: str | None) -> int:
    """Measure, showing how far it is; return the exit status."""
    from bench.fleet.drive import INDEX, collect, drive
    from bench.fleet.here import Here

    cluster: Any
    if ray is None:
        cluster = Here({c.backend for c in comparisons}, out)
    else:
        from bench.fleet.on_ray import OnRay

        cluster = OnRay(ray)

    def tell(what: str, progress: Progress) -> None:
        share = progress.seconds / max(1, progress.machines)
        left = f"{progress.done} of {progress.all} done, {words(share)} to go"
        print(f"bakeoff: {left}: {what}", file=sys.stderr, flush=True)

    start = time.monotonic()
    try:
        progress = drive(comparisons, cluster, out, tell)
    except KeyboardInterrupt:
        raise InterruptedMatrixError(
            f"interrupted; what was measured is in {out}, and the same command goes on"
        ) from None
    count = collect(comparisons, out)
    took = time.monotonic() - start
    print(f"{progress.done} of {progress.all} comparisons, {count} cells in {out / INDEX}")
    if ray is None and progress.measured:
        share = took / progress.measured - 1
        print(f"{took:.1f} s, {share:.2%} more than was measured", file=sys.stderr)
    if progress.failed:
        print(
            f"bakeoff: {progress.failed} comparisons failed: see {out}/*.failed.txt; the same "
            "command tries them again",
            file=sys.stderr,
        )
    return int(progress.failed > 0)


class InterruptedMatrixError(BakeoffError):
    """Ctrl-C; what was measured is kept."""

    exit_status = 130


def words(seconds: float) -> str:
    """Return a time as people write it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 96 * 3600 else f"{seconds / 86400:.1f} days"
