"""`bakeoff check`: does this file keep the contract, and if not, what is wrong?"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import impls
from bench.cells import require_known
from bench.cli.commands import publish
from bench.options import StyleNames, parse_names
from common.config import check_rate

EXAMPLES = """Examples:
bakeoff check mine.py
bakeoff check haiku
bakeoff check mine.py --style pure --only equality,retrace"""


def check(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A Python file, or an entrant of this project.")
    ],
    style: StyleNames = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Checks to run, as a,b; contract is always run.",
            show_default="all",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that each check may take.")] = 60.0,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What it runs on: cpu, gpu, tpu, …")
    ] = "cpu",
) -> int:
    """Check an entrant: contract, numbers, and whether warm calls compile anything.

    This executes the file, with your rights: read it first if it is not yours.

    Exit status: 0 no findings, 1 findings, 2 wrong use.

    It finds mistakes. A file that is written to deceive it can do so.
    """
    from rich.console import Console

    from bench.check.judge import CHECKS
    from bench.check.runner import CheckOptions, document, find_entrant, judge

    check_rate("--time-limit", time_limit)
    checks = parse_names(only) or tuple(CHECKS)
    require_known("check", checks, CHECKS)
    whole = f"{impls.source(find_entrant(path)).stem}/"
    styles = tuple(name.removeprefix(whole) for name in parse_names(style))
    options = CheckOptions(styles, checks, time_limit, backend)
    print(f"bakeoff: {path} will be executed now, with your rights", file=sys.stderr)
    with Console(stderr=True, highlight=False).status(f"{path}: starting", spinner="line") as line:

        def on_progress(style: str, check: str) -> None:
            line.update(f"{path} {style}: {check}, {CHECKS[check].about}")

        results = judge(path, options, on_progress)
    publish([document(path, options, results)])
    return int(any(result.outcome == "finding" for result in results))
