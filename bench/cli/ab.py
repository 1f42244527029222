"""`bakeoff ab`: two environments or revisions, measured now and in turns."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bench import options
from bench.cli import commands
from bench.estimates import MARGIN
from bench.report.table import Document

EXAMPLES = """Examples:
bakeoff ab --base flax==0.12.9 --new flax==0.12.12
bakeoff ab --base flax==0.12.9 --step mine.py --style jit_partial
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300
bakeoff ab --base "flax @ ../flax@main" --new "flax @ ../flax"
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md
bakeoff ab --base current --new current -o ab.json
bakeoff ab --base current --new current --more ab.json --budget 120"""


def ab(
    base: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="A day's stack, @2025-12-01; releases, flax==0.12.8; a checkout, flax @ ../flax, "
            "or its revision, flax @ ../flax@main; a git revision of this project; or current.",
        ),
    ],
    new: Annotated[str, typer.Option(metavar="SPEC", help="As --base.")] = "current",
    step: options.StepFile = None,
    entrant: options.EntrantNames = None,
    style: options.StyleNames = None,
    workload: options.WorkloadNames = None,
    backend: options.BackendName = None,
    metric: options.MetricNames = None,
    budget: options.Budget = 600.0,
    margin: options.Margin = MARGIN,
    pairs: options.Pairs = None,
    blocks: options.Blocks = None,
    cold_samples: options.ColdSamples = None,
    cores: options.Cores = "one",
    output: options.Output = None,
    format_: commands.Format = None,
    details: commands.Details = False,
    resume: options.Resume = False,
    more: options.More = None,
    wait: options.Wait = False,
    with_: options.With = None,
) -> int:
    """Measure two sides in turns on this machine, and say of each cell what differs.

    Environments are built by uv, kept, and used again; your own is never touched. What a SPEC
    leaves open is as it is here, where that fits. A revision runs in the environment of its own
    lock. Without --entrant, those are measured that depend on what differs. Ctrl-C loses nothing:
    --resume goes on.

    Exit status: 0 nothing is certainly worse; 1 something is: slower by more than the margin, more
    Python calls, compilations or bytes of memory (which do not decide where --metric is given), or
    a cell fails that did not; 2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from bench.engine.machine import machine_lock
    from bench.environments.builder import Builder
    from bench.environments.spec import parse
    from bench.prepare.sides import DoesNotRunError, prepare_sides
    from bench.track import ab as track
    from bench.track.comparison import BASE, NEW, Comparison

    chosen = commands.format_of(format_, output)
    extent = commands.check_options(
        options.Options(budget, margin, pairs, blocks, None, cold_samples, cores)
    )
    specs = parse(base, "--base"), parse(new, "--new")
    written_out = {base: str(specs[0]), new: str(specs[1])}  # `@-7d` is another day tomorrow
    arguments = [written_out.get(word, word) for word in sys.argv[1:]]
    selection = commands.selection(entrant, style, workload, backend, metric, step)
    if not any(spec.revision for spec in specs):  # which may have other styles
        selection.check_styles()
    console = commands.error_console()
    with machine_lock(wait=wait):
        builder = Builder(notify=console.print, extras=options.parse_requirements(with_))
        try:
            task, seconds = prepare_sides(
                dict(zip((BASE, NEW), specs, strict=True)), selection, extent, builder, arguments
            )
        except DoesNotRunError as error:
            if output is not None and chosen != "json":
                title = f"{new} beside {base}"
                answer = Document(title, headline=str(error), status="bad", marker=track.MARKER)
                commands.publish([answer], chosen, output)
            raise
        made = commands.measure_task(task, seconds, resume=resume, more=more)
    commands.finish(made.results, chosen, output, details=details, journal=made.journal)
    return int(Comparison(made.results).status)
