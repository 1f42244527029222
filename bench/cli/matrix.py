"""`bakeoff matrix`: the runs of a plan, on this machine or on a Ray cluster."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from bench.files import atomic_write, require_folder_to_be
from bench.streams import say
from common.errors import BakeoffError, InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet import PlannedRun

EXAMPLES = """\
bakeoff matrix plan.toml
bakeoff matrix plan.toml --out nightly
bakeoff matrix plan.toml --out nightly --ray auto"""


def matrix(
    path: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="A plan of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measure runs that have no file in this folder yet."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Measure on the nodes of this Ray cluster."),
    ] = None,
) -> int:
    """List the runs of a plan and how long they take; with --out, measure them.

    Each machine measures one run at a time. After Ctrl-C, the same command continues. Exit status
    1: some runs failed.
    """
    from bench.fleet import read_plan

    if ray is not None and out is None:
        raise BakeoffError("--ray without --out; name the folder for the results")
    runs = read_plan(path)
    if out is not None:
        return measure_runs(runs, out, ray)
    for run in runs:
        print(f"  {run.title}, {run.cells} cells, {timedelta(seconds=run.budget)}")
    cells = sum(run.cells for run in runs)
    time = timedelta(seconds=round(sum(run.budget for run in runs)))
    print(f"{len(runs)} runs of {cells} cells take {time} on one machine.")
    return 0


def measure_runs(runs: Sequence[PlannedRun], out: Path, ray: str | None) -> int:
    """Measure runs that have no run file yet, the longest first, and return the exit status.

    Raises:
        BakeoffError: the folder cannot be used, or there is no cluster or no node.
        InterruptedRunError: Ctrl-C.
    """
    from bench.fleet.measurement import measure_here, measure_on_cluster

    require_folder_to_be(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    left = [run for run in runs if not (out / f"{run.key}.json").exists()]
    left.sort(key=lambda run: run.budget, reverse=True)
    outputs = measure_here(left, out) if ray is None else measure_on_cluster(left, ray)
    try:
        with closing(outputs):
            for number, (run, output) in enumerate(outputs, 1):
                failure, outcome = out / f"{run.key}.failed.txt", "measured"
                if output.file is None:
                    atomic_write(failure, f"{output.log}\n")
                    outcome = f"failed: {output.log.splitlines()[-1][:200]}"
                else:
                    atomic_write(out / f"{run.key}.json", output.file)
                    failure.unlink(missing_ok=True)
                say(f"{run.title} {outcome}; {number} of {len(left)} done")
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; results so far are in {out}, give the same command again to go on"
        ) from None
    done = sum((out / f"{run.key}.json").exists() for run in runs)
    print(f"{done} of {len(runs)} runs are measured; see `bakeoff report {out}/*.json`")
    if failed := len(runs) - done:
        say(
            f"{failed} runs failed: see {out}/*.failed.txt; the same command tries them again, "
            f"from where they stopped: delete {out}/*.unfinished to start anew"
        )
    return int(failed > 0)
