"""Changes over time: `bakeoff history` of many days, `compare` of runs of different hours."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.output import finish
from bench.cli.parameters import (
    Blocks,
    Margin,
    Measuring,
    Pairs,
    Selecting,
    Showing,
    check_options,
)
from bench.estimates import MARGIN
from bench.options import Options
from bench.streams import read_arguments
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cli.output import Output

PARAMETERS_WITH_FILES = ("runs", *(field.name for field in fields(Showing)))
"""Parameters that may be given with run files: all others are for measuring."""
EXAMPLES = """\
bakeoff history --since 2024-06-01 --every 2mo -o past.html
bakeoff history --since 2025-11-01 --every 1w --workload toy --entrant flax_nnx --style all
bakeoff history --since 2024-06-01 --every 2mo -o past.html --resume
bakeoff history .benchmarks results -o nights.html
bakeoff compare before.json after.json
bakeoff compare monday.json tuesday.json wednesday.json new.json
bakeoff compare before.json after.json --margin 0.05 --format md -o comment.md"""


def history(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN.json|FOLDER]...",
            help="Run files, or folders of run files: show their changes over time, and measure "
            "nothing.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[str, typer.Option(metavar="DAY", help="First day.")] = "2024-06-01",
    until: Annotated[
        str | None,
        typer.Option(
            metavar="DAY", help="Last day, whose stack is the reference.", show_default="today"
        ),
    ] = None,
    every: Annotated[
        str,
        typer.Option(metavar="STEP", help="Days, weeks, months or years: 10d, 2w, 1mo, 1y."),
    ] = "1mo",
    style: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this style, or all; for several, repeat the option or give a,b.",
            show_default="pure",
        ),
    ] = None,
    selecting: Selecting = Selecting(),
    measuring: Measuring = Measuring(budget=900.0),
    pairs: Pairs = None,
    blocks: Blocks = None,
    showing: Showing = Showing(),
) -> int:
    """Measure the whole stack of many days; say what changed, when, and by how much.

    uv builds environments and keeps them for later; your own is never changed. Each day's worker
    alternates with a worker of the last day's stack, so that a busy hour does not look like a
    change. Days and libraries that cannot be installed are listed. Ctrl-C loses nothing: --resume
    continues.

    Exit status: 0 done, 1 some run files cannot be read, 2 nothing could be compared, or wrong use,
    130 Ctrl-C.
    """
    from bench.track.timeline import Timeline

    shown = showing.choose()
    if runs:
        refuse_measuring_parameters(context)
        return show_runs(runs, shown)

    from bench.engine.journal import open_journals
    from bench.environments.spec import parse_day, today
    from bench.prepare.stacks import add_days, list_days, prepare_days

    styles = style or ["pure"]
    extent = Options(measuring.budget, processes=pairs, blocks=blocks, cores="one")
    check_options(extent)
    selection = selecting.parse(None if styles == ["all"] else styles)
    if measuring.resume is not None and until is None:  # a day that has begun is another history's
        names = next(open_journals("history", measuring.resume)).known.environments
        until = max(name for name in names if name[:1].isdigit())  # the others are no days
    newest = parse_day(until, "--until") if until else today()
    dates = list_days(parse_day(since, "--since"), newest, every)
    builder = measuring.make_builder("history")
    task, others = prepare_days(dates, selection, extent, builder, read_arguments())
    made = measuring.measure(task)
    add_days(made.results, others)
    finish(made.results, shown, made.journal.path)
    return 0 if Timeline(made.results).comparisons else 2


def show_runs(runs: Sequence[Path], shown: Output) -> int:
    """Show the changes in run files; return the exit status."""
    from bench.track.run_files import SKIPPED_PREFIX, read_history
    from bench.track.timeline import Timeline

    results = read_history(runs)
    results.arguments = read_arguments()
    finish(results, shown)
    if any(text.startswith(SKIPPED_PREFIX) for text in results.warnings):
        return 1
    return 0 if Timeline(results).comparisons else 2


def refuse_measuring_parameters(context: typer.Context) -> None:
    """Raise BakeoffError if a parameter was given that is for measuring."""
    for param in context.command.params:
        source = context.get_parameter_source(str(param.name))
        if source and source.name == "COMMANDLINE" and param.name not in PARAMETERS_WITH_FILES:
            raise BakeoffError(
                f"{param.opts[0]} is for measuring, and run files are given; leave one of the two "
                "out"
            )


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE.json... NEW.json",
            help="Files that `pytest bench --benchmark-json` wrote, the new one last. Several base "
            "runs of the same code show how much runs differ without a change.",
        ),
    ],
    margin: Margin = MARGIN,
    showing: Showing = Showing(),
) -> int:
    """Compare runs of different hours, by each cell's ratio to plain JAX in the same run.

    Releases and settings may differ, and are listed. The machine and the way of measuring may not.

    Exit status: 0 nothing is certainly worse; 1 something is: a time is slower by more than the
    margin, there are more Python calls, compilations or bytes of memory, a loss is larger, or a
    cell fails only in the new run; 2 cannot say: the runs are not comparable, or no time could be
    settled. Inconclusive rows do not count as worse. If no row is worse, one settled row is enough
    for status 0.
    """
    from bench.runfile.reader import read
    from bench.track.comparison import Comparison
    from bench.track.run_files import compare as compare_runs

    shown = showing.choose()
    check_options(Options(margin=margin))
    if len(files) < 2:
        raise BakeoffError(f"one run is given, {files[0]}; give two: BASE.json NEW.json")
    *bases, new = [read(path, samples=False) for path in files]
    results = compare_runs(bases, new, margin)
    finish(results, shown)
    return int(Comparison(results).status)
