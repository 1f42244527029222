"""`bakeoff ab`: two environments or revisions, measured now and in turns."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.compare import CONFIG, Format, by_ending, written
from bench.cli.turns import Cores, announced, measured
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from bench.engine.actions import Options
    from bench.engine.sides_plan import AB

EXAMPLES = """Examples:\n
bakeoff ab --base flax==0.12.9 --new flax==0.12.12\n
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300\n
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md\n
bakeoff ab --base current --new current --runs both"""


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
        int | None, typer.Option(help="Pairs of workers.", show_default="as the budget goes")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Blocks of each turn in a pair.", show_default="the same")
    ] = None,
    cold_samples: Annotated[
        int | None,
        typer.Option(help="Pairs of cold processes of each cell.", show_default="the same"),
    ] = None,
    cores: Annotated[
        Cores,
        typer.Option(
            help="one: each worker on one core, several at a time, which is the more precise; "
            "all: as users run it."
        ),
    ] = Cores.ONE,
    config: Annotated[
        Path | None,
        typer.Option(
            help=r"A TOML file with the gate, \[tool.bakeoff.gate].",
            show_default=f"{CONFIG}, if there is one",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file.", show_default="standard output"),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="text for a terminal, md for a pull request, html for a page, json for programs.",
            show_default="by the output's ending, else text",
        ),
    ] = None,
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
    from bench.compare import gatefile
    from bench.environments.spec import parse
    from common.config import check_rate, check_size

    chosen = format_ or by_ending(output)
    for path, option in ((output, "output"), (runs, "--runs")):
        if path is not None:
            require_new(path, option)
    check_rate("--budget", budget)
    check_rate("--margin", margin)
    if margin >= 1:
        raise BakeoffError(f"--margin is {margin:g}; it is a fraction below 1: 0.05 for 5 %")
    for option, count in (
        ("--pairs", pairs),
        ("--blocks", blocks),
        ("--cold-samples", cold_samples),
    ):
        if count is not None:
            check_size(option, count, most=1000)
    specs = parse(base, "--base"), parse(new, "--new")
    metrics = metrics_of(names(metric))
    gate = gatefile.read(config or Path(CONFIG), names(entrant), needed=config is not None)
    selection = Selection(
        entrants_of(entrant), names(style), names(workload), (backend,) if backend else ()
    )
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    both = Both(specs, selection, metrics, cores.value, console)
    both.build()
    both.measure(budget, pairs, blocks, cold_samples, resume=resume)
    found = both.compared(gate, margin)
    if runs is not None:
        both.write_runs(runs, margin)
    text = written(found, chosen, terminal=output is None)
    if output is not None:
        from bench.cli.report import put

        put(output, text)
        print(output)
    elif text:
        sys.stdout.write(text)
    both.journal.remove()
    return int(found.status)


class Both:
    """One A/B, from its environments to what it found."""

    def __init__(
        self, specs: Any, selection: Any, metrics: frozenset[str], cores: str, console: Any
    ) -> None:
        self.specs, self.selection, self.metrics, self.console = specs, selection, metrics, console
        self.cores = cores

    def build(self) -> None:
        """Build both environments, and ask what they have."""
        from bench.compare import driven
        from bench.engine.sides_plan import BASE, NEW
        from bench.environments.builder import Builder

        with announced(self.console, "building environments") as say:
            builder = Builder(notify=say)
            built = driven.built(self.specs, builder)
        self.start = time.monotonic()
        self.sides = {
            name: driven.asked(environment, self.selection.entrants)
            for name, environment in zip((BASE, NEW), built, strict=True)
        }
        self.selected = driven.selected(self.selection, self.sides)
        self.cells = driven.common(self.selected)

    def measure(
        self,
        budget: float,
        pairs: int | None,
        blocks: int | None,
        cold_samples: int | None,
        *,
        resume: bool,
    ) -> None:
        """Measure both sides in turns."""
        from bench.engine.actions import Options

        options = Options(budget, blocks=blocks, cold_samples=cold_samples, cores=self.cores)
        header = {
            "specs": [str(spec) for spec in self.specs],
            "versions": [side.offer.versions for side in self.sides.values()],
            "cells": [list(cell) for cell in self.cells],
            "metrics": sorted(self.metrics),
            "counts": [budget, pairs, blocks, cold_samples, self.cores],
        }
        self.made, self.journal = measured(
            self.console,
            partial(self.schedule, pairs=pairs),
            options,
            {name: side.environment for name, side in self.sides.items()},
            header,
            kind="ab",
            before=time.monotonic() - self.start,
            resume=resume,
        )

    def schedule(self, options: Options, before: float, *, pairs: int | None) -> AB:
        """Return the plan."""
        from bench.engine.cores import one_core_lanes
        from bench.engine.sides_plan import AB

        lanes = one_core_lanes()
        return AB(self.cells, self.metrics, options, before, lanes, pairs)

    def compared(self, gate: Any, margin: float) -> Any:
        """Return what the new side is beside the base."""
        from bench.compare.ab_result import comparison

        return comparison(self.made, self.sides, self.selected, gate, margin)

    def write_runs(self, folder: Path, margin: float) -> None:
        """Write each side as a run file."""
        from bench.compare.ab_result import run_of
        from bench.runfile.writer import new_folder, write

        new_folder(folder, "--runs")
        for name, side in self.sides.items():
            about = {"arguments": sys.argv[1:], "spec": str(side.environment.spec)}
            write(folder / f"{name}.json", run_of(self.made, name, side, margin, **about))
