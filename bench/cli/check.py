"""`bakeoff check`: is this file an entrant like the others, and if not, what is wrong?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from bench.check.findings import Judgement
    from bench.check.runner import CheckOptions

EXAMPLES = """Examples:\n
bakeoff check mine.py\n
bakeoff check mine.py theirs.py haiku --json\n
bakeoff check mine.py --style pure --only equality,gradient --workload seed"""

GIB = 1 << 30
LEAST_MEMORY = 1.0
"""GiB with which jax can be imported, and a small step compiled."""


def check(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Python files, or names of entrants of this project."
        ),
    ],
    style: Annotated[
        list[str] | None, typer.Option(help="Styles to judge, as a,b (default: all).")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Checks to run, as a,b; contract is always run (default: all)."),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(help="Compare numbers at these workloads' sizes too, as seed,batched."),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds that each check may take.")] = 60.0,
    memory: Annotated[float, typer.Option(help="GiB that a process of it may have.")] = 8.0,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What entrants run on: cpu, gpu, tpu, …")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Judge entrants: contract, numbers, and whether the clock sees all of the work.

    This executes the files, with your rights: read a file first that is not yours.

    Exit status: 0 nothing found, 1 findings, 2 wrong use.

    It finds mistakes and the usual tricks; a file that is written to deceive it can do so.
    """
    from bench.check.runner import entrant_name
    from bench.cli.where import require_backend

    options = options_of(style, only, workload, time_limit, memory, backend)
    if backend != "cpu":
        require_backend(backend)
    given = list(dict.fromkeys(paths))
    for path in given:
        entrant_name(path)
    print(f"bakeoff: {', '.join(given)} will be executed now, with your rights", file=sys.stderr)
    found, wrong = [], False
    for path in given:
        try:
            found.append(one(path, options, as_json=as_json))
        except BakeoffError as error:  # of this one, as that it lacks a style; the others go on
            print(f"bakeoff: {error}", file=sys.stderr)
            wrong = True
    had = {style for judgement in found for style in judgement.styles}
    if found and (lacking := [style for style in options.styles if style not in had]):
        print(
            f"bakeoff: nobody has the style {', '.join(lacking)}; there are "
            f"{', '.join(sorted(had))}: choose some of them, or leave --style out",
            file=sys.stderr,
        )
        wrong = True
    if as_json:
        print(json.dumps([judgement.as_json() for judgement in found], indent=2))
    return 2 if wrong else int(any(judgement.errors for judgement in found))


def options_of(
    style: list[str] | None,
    only: list[str] | None,
    workload: list[str] | None,
    time_limit: float,
    memory: float,
    backend: str,
) -> CheckOptions:
    """Return what is asked for; raise BakeoffError where a name or a number is wrong."""
    from bench.check.findings import CHECKS
    from bench.check.runner import CheckOptions
    from common.config import WORKLOADS, check_rate

    check_rate("--time-limit", time_limit)
    check_rate("--memory", memory)
    if memory < LEAST_MEMORY:
        raise BakeoffError(
            f"--memory is {memory:g}; jax alone needs {LEAST_MEMORY:g} GiB: give more"
        )
    checks, workloads = split(only), split(workload)
    for kind, given, known in (("check", checks, CHECKS), ("workload", workloads, WORKLOADS)):
        for name in given:
            if name not in known:
                raise unknown(kind, name, known)
    return CheckOptions(
        styles=split(style),
        checks=checks or tuple(CHECKS),
        workloads=workloads,
        seconds=time_limit,
        memory=int(memory * GIB),
        backend=backend,
    )


def split(given: list[str] | None) -> tuple[str, ...]:
    """Return names that may be given several times, and several at a time."""
    return tuple(name for value in given or () for name in value.split(",") if name)


def one(given: str, options: CheckOptions, *, as_json: bool) -> Judgement:
    """Judge one entrant, show its progress, and print what was found."""
    from bench.check.findings import CHECKS
    from bench.check.report import report
    from bench.check.runner import judge

    err = Console(stderr=True, highlight=False)
    with err.status(f"{given}: starting", spinner="line") as status:

        def progress(style: str, check: str) -> None:
            status.update(f"{given} {style or 'file'}: {check}, {CHECKS[check].about}")

        found = judge(given, options, progress)
    if not as_json:
        console = Console(highlight=False)
        console.print(report(found, console.width))
    return found
