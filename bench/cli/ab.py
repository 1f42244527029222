"""`bakeoff ab`: two environments or revisions, measured now and in turns."""

from __future__ import annotations

import sys
import time
from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.compare import Config, Form, Output, checked, finish, gate
from bench.cli.turns import Cores, announced, measured
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.compare.experiment import Offered
    from bench.engine.actions import Options
    from bench.engine.sides_plan import AB

EXAMPLES = """Examples:\n
bakeoff ab --base flax==0.12.9 --new flax==0.12.12\n
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300\n
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md\n
bakeoff ab --base current --new current --runs both"""
AS_BUDGETED = "as the budget goes"
MOST = 1000
"""Of pairs, blocks and cold samples."""


def ab(
    base: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="A day's stack, @2025-12-01; releases, flax==0.12.8; a git revision of this "
            "project; or current.",
        ),
    ],
    new: Annotated[str, typer.Option(metavar="SPEC", help="The same.")] = "current",
    entrant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="These only; again, or as a,b.")
    ] = None,
    style: Annotated[list[str] | None, typer.Option(metavar="NAME", show_default="all")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(metavar="NAME", show_default="toy and seed")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="an accelerator, else cpu")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="step, host_cost and all cold ones"),
    ] = None,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wall time, once environments are built.")
    ] = 600.0,
    margin: Annotated[
        float, typer.Option(metavar="FRACTION", help="Within it, two times are equivalent.")
    ] = 0.02,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of workers.", show_default=AS_BUDGETED)
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Blocks of each turn in a pair.", show_default=AS_BUDGETED)
    ] = None,
    cold_samples: Annotated[
        int | None,
        typer.Option(help="Pairs of cold processes of each cell.", show_default=AS_BUDGETED),
    ] = None,
    cores: Annotated[
        Cores,
        typer.Option(
            help="one: each worker on one core, several at a time, which is the more precise; "
            "all: as users run it."
        ),
    ] = Cores.ONE,
    config: Config = None,
    output: Output = None,
    format_: Form = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder for both sides as ordinary run files."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was cut off, given the same options.")
    ] = False,
) -> int:
    """Measure two sides in turns on this machine, and say of each cell what differs.

    Environments are built by uv, kept, and used again; your own is never touched. What a SPEC
    leaves open is as it is here, where that fits. A revision runs in the environment of its own
    lock. Ctrl-C loses nothing: --resume goes on.

    Exit status: 0 nothing is worse; 1 something is: a row is slower by more than its threshold (the
    margin unless the gate says otherwise), an exact number is higher, or a cell fails that did not;
    2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from rich.console import Console

    from bench.cells import Selection
    from bench.cli.history import entrants_of, metrics_of, names
    from bench.compare import experiment
    from bench.compare.ab_result import comparison
    from bench.engine.actions import Options
    from bench.engine.cores import one_core_lanes
    from bench.engine.sides_plan import AB, BASE, NEW
    from bench.environments.builder import Builder
    from bench.environments.spec import parse
    from common.config import check_rate, check_size

    chosen = checked(output, format_)
    if runs is not None:
        require_new(runs, "--runs")
    check_rate("--budget", budget)
    check_rate("--margin", margin)
    if margin >= 1:
        raise BakeoffError(f"--margin is {margin:g}; it is a fraction below 1: 0.05 for 5 %")
    counts = {"--pairs": pairs, "--blocks": blocks, "--cold-samples": cold_samples}
    for option, count in counts.items():
        if count is not None:
            check_size(option, count, most=MOST)
    specs = parse(base, "--base"), parse(new, "--new")
    metrics = metrics_of(names(metric))
    limits = gate(config, names(entrant))
    backends = (backend,) if backend else ()
    selection = Selection(entrants_of(entrant), names(style), names(workload), backends)
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    with announced(console, "building environments") as say:
        environments = experiment.built(specs, Builder(notify=say))
    start = time.monotonic()
    offered = {
        name: experiment.asked(environment, selection.entrants)
        for name, environment in zip((BASE, NEW), environments, strict=True)
    }
    selected = experiment.selected(selection, offered)
    cells = experiment.common(selected)

    def schedule(options: Options, before: float) -> AB:
        return AB(cells, metrics, options, before, one_core_lanes(), pairs)

    header = {
        "specs": [str(spec) for spec in specs],
        "versions": [side.offer.versions for side in offered.values()],
        "cells": [str(cell) for cell in cells],
        "metrics": sorted(metrics),
        "counts": [budget, *counts.values(), cores.value],
    }
    made, journal = measured(
        console,
        schedule,
        Options(budget, blocks=blocks, cold_samples=cold_samples, cores=cores.value),
        {name: side.environment for name, side in offered.items()},
        header,
        kind="ab",
        before=time.monotonic() - start,
        resume=resume,
    )
    if runs is not None:
        write_runs(runs, made, offered, margin)
    status = finish(comparison(made, offered, selected, limits, margin), chosen, output)
    journal.remove()
    return status


def write_runs(folder: Path, made: AB, sides: Mapping[str, Offered], margin: float) -> None:
    """Write each side as a run file."""
    from bench.compare.ab_result import run_of
    from bench.runfile.writer import new_folder, write

    new_folder(folder, "--runs")
    for name, side in sides.items():
        about = {"arguments": sys.argv[1:], "spec": str(side.environment.spec)}
        write(folder / f"{name}.json", run_of(made, name, side, margin, **about))
