"""`bakeoff ab`: two environments or revisions, measured now and in turns."""

from __future__ import annotations

import sys
import time
from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import Annotated, Literal

import typer

from bench.cli import turns
from bench.cli.compare import FORMATS, Config, Form, Output, finish
from bench.cli.documents import format_of
from common.errors import BakeoffError, require_new

EXAMPLES = """Examples:\n
bakeoff ab --base flax==0.12.9 --new flax==0.12.12\n
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300\n
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md\n
bakeoff ab --base current --new current --save-runs both"""


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
    entrant: turns.Entrants = None,
    style: Annotated[list[str] | None, typer.Option(metavar="NAME", show_default="all")] = None,
    workload: turns.Workloads = None,
    backend: turns.Backend = None,
    metric: turns.Metrics = None,
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wall time, once environments are built.")
    ] = 600.0,
    margin: Annotated[
        float, typer.Option(metavar="FRACTION", help="Within it, two times are equivalent.")
    ] = turns.MARGIN,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of workers.", show_default=turns.AS_BUDGETED)
    ] = None,
    blocks: turns.Blocks = None,
    cold_samples: Annotated[
        int | None,
        typer.Option(help="Pairs of cold processes of each cell.", show_default=turns.AS_BUDGETED),
    ] = None,
    cores: Annotated[
        Literal["one", "all"],
        typer.Option(
            help="one: each worker on one core, several at a time, which is the more precise; "
            "all: as users run it."
        ),
    ] = "one",
    config: Config = None,
    output: Output = None,
    format_: Form = None,
    save_runs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder for both sides as ordinary run files."),
    ] = None,
    resume: turns.Resume = False,
) -> int:
    """Measure two sides in turns on this machine, and say of each cell what differs.

    Environments are built by uv, kept, and used again; your own is never touched. What a SPEC
    leaves open is as it is here, where that fits. A revision runs in the environment of its own
    lock. Ctrl-C loses nothing: --resume goes on.

    Exit status: 0 nothing is worse; 1 something is: a row is slower by more than its threshold (the
    margin unless the gate says otherwise), an exact number is higher, or a cell fails that did not;
    2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from bench.compare import ab_result, experiment
    from bench.compare.gate import read_gate
    from bench.engine.actions import Options
    from bench.engine.cores import one_core_lanes
    from bench.engine.sides_plan import AB, BASE, NEW
    from bench.environments.builder import Builder
    from bench.environments.spec import parse
    from common.config import check_rate

    chosen = format_of(format_, output, FORMATS)
    if save_runs is not None:
        require_new(save_runs, "--save-runs")
    counts = {"pairs": pairs, "blocks": blocks, "cold_samples": cold_samples}
    turns.check_counts(budget, **counts)
    check_rate("--margin", margin)
    if margin >= 1:
        raise BakeoffError(f"--margin is {margin:g}; it is a fraction below 1: 0.05 for 5 %")
    specs = parse(base, "--base"), parse(new, "--new")
    metrics = turns.metrics_of(turns.names(metric))
    limits = read_gate(config, turns.names(entrant))
    selection = turns.selection(entrant, turns.names(style), workload, backend)
    console = turns.error_console()
    with turns.announced(console, "building environments") as say:
        environments = experiment.built(specs, Builder(notify=say))
    start = time.monotonic()
    sides = {
        name: experiment.asked(environment, selection.entrants)
        for name, environment in zip((BASE, NEW), environments, strict=True)
    }
    selected = experiment.selected(selection, sides)
    cells = experiment.common(selected)
    with turns.progress(console, budget) as told:
        made, journal = experiment.measure(
            lambda options, before: AB(cells, metrics, options, before, one_core_lanes(), pairs),
            Options(budget, blocks=blocks, cold_samples=cold_samples, cores=cores),
            sides,
            {
                "specs": [str(spec) for spec in specs],
                "cells": [str(cell) for cell in cells],
                "metrics": sorted(metrics),
                "counts": [budget, *counts.values(), cores],
            },
            kind="ab",
            before=time.monotonic() - start,
            resume=resume,
            told=told,
        )
    if save_runs is not None:
        files = ab_result.runs_of(made, sides, margin, sys.argv[1:])
        experiment.write_runs(save_runs, "--save-runs", files)
    found = ab_result.comparison(made, sides, selected, limits, margin)
    status = finish(found, chosen, output)
    journal.remove()
    return status
