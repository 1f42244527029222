"""`bakeoff compare`: what became slower or faster between runs; the exit status says so, too."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads the annotation
from typing import Annotated

import typer

from bench.cli import commands, parameters
from bench.estimates import MARGIN
from bench.options import Options
from common.errors import BakeoffError

EXAMPLES = """Examples:
bakeoff compare before.json after.json
bakeoff compare monday.json tuesday.json wednesday.json new.json
bakeoff compare before.json after.json --margin 0.05 --format md -o comment.md"""


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE.json... NEW.json",
            help="What `pytest bench --benchmark-json` wrote. The last one is new; several base "
            "runs of the same code show how much runs differ anyway.",
        ),
    ],
    margin: parameters.Margin = MARGIN,
    output: parameters.Output = None,
    format_: parameters.Format = None,
    details: parameters.Details = False,
) -> int:
    """Compare runs of different hours: each cell's ratio to plain JAX in its own run.

    Releases and settings may differ, which is told; the machine and how it was measured may not.

    Exit status: 0 nothing is certainly worse; 1 something is: slower by more than the margin, more
    Python calls, compilations, bytes of memory or loss, or a cell fails that did not; 2 cannot say:
    the runs are not comparable, or no time could be settled. An inconclusive row does not fail, and
    one settled row is enough to pass.
    """
    from bench.runfile.reader import read
    from bench.track.comparison import Comparison
    from bench.track.run_files import compare as compare_runs

    chosen = commands.choose_format(format_, output)
    commands.check_options(Options(margin=margin))
    if len(files) < 2:
        raise BakeoffError(f"one run is given, {files[0]}; give two: BASE.json NEW.json")
    *bases, new = [read(path, samples=False) for path in files]
    results = compare_runs(bases, new, margin)
    commands.finish(results, chosen, output, details=details)
    return int(Comparison(results).status)
