"""`bakeoff ab`: two environments or revisions, which alternate on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bench.cli import commands, parameters
from bench.estimates import MARGIN
from bench.options import Options
from bench.report.table import Document

EXAMPLES = {
    "ab": """\
bakeoff ab --base flax==0.12.9 --new flax==0.12.12
bakeoff ab --base flax==0.12.9 --step mine.py --style jit_partial
bakeoff ab --base @2025-06-01 --new @2025-12-01 --workload toy --budget 300
bakeoff ab --base "flax @ ../flax@main" --new "flax @ ../flax"
bakeoff ab --base origin/main --new current --budget 900 --format md -o comment.md
bakeoff ab --base current --new current -o ab.json
bakeoff ab --base current --new current --more ab.json --budget 120""",
}


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
    step: parameters.StepFile = None,
    entrant: parameters.EntrantNames = None,
    style: parameters.StyleNames = None,
    workload: parameters.WorkloadNames = None,
    backend: parameters.BackendName = None,
    metric: parameters.MetricNames = None,
    budget: parameters.Budget = 600.0,
    margin: parameters.Margin = MARGIN,
    pairs: parameters.Pairs = None,
    blocks: parameters.Blocks = None,
    cores: parameters.Cores = "one",
    output: parameters.Output = None,
    format_: parameters.Format = None,
    details: parameters.Details = False,
    resume: parameters.Resume = False,
    more: parameters.More = None,
    wait: parameters.Wait = False,
    with_: parameters.With = None,
) -> int:
    """Measure two sides on this machine, alternating between them, and say what differs.

    Environments are built by uv, kept, and used again; your own is never touched. What a SPEC
    leaves open is as it is here, where that fits. A revision runs in the environment of its own
    lock. Without --entrant, those are measured that depend on what differs. Ctrl-C loses nothing:
    --resume goes on.

    Exit status: 0 nothing is certainly worse; 1 something is: slower by more than the margin, more
    Python calls, compilations or bytes of memory (which do not decide where --metric is given), or
    a cell fails that did not; 2 cannot say, or wrong use; 130 Ctrl-C.
    """
    from bench.environments.spec import parse
    from bench.prepare.sides import DoesNotRunError, prepare_sides
    from bench.track.ab import MARKER
    from bench.track.comparison import BASE, NEW, Comparison

    shown = commands.Output.choose(format_, output, details=details)
    extent = commands.check_options(Options(budget, margin, pairs, blocks, cores=cores))
    specs = {BASE: parse(base, "--base"), NEW: parse(new, "--new")}
    # `@-7d` is another day tomorrow
    written_out = {base: str(specs[BASE]), new: str(specs[NEW])}
    arguments = [written_out.get(word, word) for word in sys.argv[1:]]
    selection = commands.parse_selection(entrant, style, workload, backend, metric, step)
    if not any(spec.revision for spec in specs.values()):  # which may have other styles
        selection.check_styles()
    with commands.reserve_machine(wait=wait, packages=with_, more=more) as builder:
        try:
            task, seconds = prepare_sides(specs, selection, extent, builder, arguments)
        except DoesNotRunError as error:
            if shown.file is not None and shown.form != "json":
                title = f"{new} beside {base}"
                answer = Document(title, headline=str(error), status="bad", marker=MARKER)
                commands.publish([answer], shown)
            raise
        made = commands.measure_task(task, seconds, resume=resume, more=more)
    commands.finish(made.results, shown, made.journal.path)
    return int(Comparison(made.results).status)
