"""`bakeoff check`: is this file an entrant like the others, and if not, what is wrong?"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from bench.check.finding import Judged
    from bench.check.wanted import Asked, Wanted

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
    from bench.check.checks import CHECKS
    from bench.check.wanted import CPU, asked
    from bench.cli.where import require_backend

    wanted = replace(wanted_of(style, only, workload, time_limit, memory), backend=backend)
    if backend != CPU:
        require_backend(backend)
    entrants = [asked(path) for path in dict.fromkeys(paths)]
    names = ", ".join(who.given for who in entrants)
    print(f"bakeoff: {names} will be executed now, with your rights", file=sys.stderr)
    whole = set(wanted.checks) == set(CHECKS) and not wanted.styles
    found, wrong = [], False
    for who in entrants:
        try:
            found.append(one(who, wanted, whole=whole, as_json=as_json))
        except BakeoffError as error:  # of this one, as that it lacks a style; the others go on
            print(f"bakeoff: {error}", file=sys.stderr)
            wrong = True
    had = {style for judged in found for style in judged.styles}
    if found and (lacking := [style for style in wanted.styles if style not in had]):
        print(
            f"bakeoff: nobody has the style {', '.join(lacking)}; there are "
            f"{', '.join(sorted(had))}: choose some of them, or leave --style out",
            file=sys.stderr,
        )
        wrong = True
    if as_json:
        print(json.dumps([judged.as_json(whole=whole) for judged in found], indent=2))
    return 2 if wrong else int(any(judged.errors for judged in found))


def wanted_of(
    style: list[str] | None,
    only: list[str] | None,
    workload: list[str] | None,
    time_limit: float,
    memory: float,
) -> Wanted:
    """Return what is asked for; raise BakeoffError where a name or a number is wrong."""
    from bench.check.checks import CHECKS
    from bench.check.wanted import Wanted
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
    return Wanted(
        styles=split(style),
        checks=checks or tuple(CHECKS),
        workloads=workloads,
        seconds=time_limit,
        memory=int(memory * GIB),
    )


def split(given: list[str] | None) -> tuple[str, ...]:
    """Return names that may be given several times, and several at a time."""
    return tuple(name for value in given or () for name in value.split(",") if name)


def one(who: Asked, wanted: Wanted, *, whole: bool, as_json: bool) -> Judged:
    """Judge one entrant, show how far it is, and print what was found."""
    from bench.check.checks import CHECKS
    from bench.check.referee import judged
    from bench.check.report import report

    err = Console(stderr=True, highlight=False)
    with err.status(f"{who.given}: starting", spinner="line") as status:

        def tell(given: str, style: str, name: str) -> None:
            status.update(f"{given} {style or 'file'}: {name}, {CHECKS[name].about}")

        found = judged(who, wanted, tell)
    if not as_json:
        console = Console(highlight=False)
        console.print(report(found, console.width, whole=whole))
    return found
