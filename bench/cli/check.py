"""`bakeoff check`: does this file keep the contract, and if not, what is wrong?"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.check.findings import DONATES, ERROR, FILE
from bench.report.wording import printable
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import RenderableType

    from bench.check.checks import CheckOptions
    from bench.check.findings import Judgement

EXAMPLES = """Examples:\n
bakeoff check mine.py\n
bakeoff check mine.py theirs.py haiku --json\n
bakeoff check mine.py --style pure --only equality,gradient --workload seed"""

GIB = 1 << 30
LEAST_MEMORY = 1.0
"""GiB that it takes to import jax and compile a small step."""
WIDE = 100
"""Columns from which on there is room for what a check is about."""
COLOURS = {"ok": "green", "note": "yellow", "not run": "dim", "finding": "bold red"}


def check(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Python files, or names of entrants of this project."
        ),
    ],
    style: Annotated[
        list[str] | None, typer.Option(help="Styles to check, as a,b (default: all).")
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
    memory: Annotated[float, typer.Option(help="GiB that a process may use.")] = 8.0,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What entrants run on: cpu, gpu, tpu, …")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check entrants: contract, numbers, and whether all work is done while it is timed.

    This executes the files, with your rights: read a file first that is not yours.

    Exit status: 0 no findings, 1 findings, 2 wrong use.

    It finds mistakes and common tricks; a file that is written to deceive it can do so.
    """
    from bench.check.checks import CHECKS, CheckOptions
    from bench.check.runner import entrant_name
    from common.config import WORKLOADS, check_rate

    check_rate("--time-limit", time_limit)
    check_rate("--memory", memory)
    if memory < LEAST_MEMORY:
        raise BakeoffError(
            f"--memory is {memory:g}; jax alone needs {LEAST_MEMORY:g} GiB: give more"
        )
    options = CheckOptions(
        styles=split(style),
        checks=known("check", only, CHECKS) or tuple(CHECKS),
        workloads=known("workload", workload, WORKLOADS),
        seconds=time_limit,
        memory=int(memory * GIB),
        backend=backend,
    )
    if backend != "cpu":
        require_backend(backend)
    given = list(dict.fromkeys(paths))
    for path in given:
        entrant_name(path)
    print(f"bakeoff: {', '.join(given)} will be executed now, with your rights", file=sys.stderr)
    found: list[Judgement] = []
    wrong = False
    for path in given:
        try:
            found.append(judged(path, options, as_json=as_json))
        except BakeoffError as error:  # this one lacks a style, say; the others go on
            print(f"bakeoff: {error}", file=sys.stderr)
            wrong = True
    there = {name for judgement in found for name in judgement.styles}
    if found and (lacking := [name for name in options.styles if name not in there]):
        print(f"bakeoff: {unknown('style', ','.join(lacking), sorted(there))}", file=sys.stderr)
        wrong = True
    if as_json:
        print(json.dumps([judgement.as_json() for judgement in found], indent=2))
    return 2 if wrong else int(any(judgement.errors for judgement in found))


def require_backend(name: str) -> None:
    """Raise BakeoffError unless a worker has this backend; this process does not open a device."""
    from bench.engine.processes import WorkerFailedError, ask_once
    from common.devices import Device

    try:
        found = ask_once({"do": "describe", "entrants": ["pure_jax"], "outside": {}})
    except WorkerFailedError as error:
        raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error
    device = Device.of(name)
    if device.backend not in found["backends"]:
        raise unknown("backend", device.backend, found["backends"])
    device.require(found["details"][device.backend]["count"])


def split(given: list[str] | None) -> tuple[str, ...]:
    """Return names that may be given several times, and several at a time."""
    return tuple(name for value in given or () for name in value.split(",") if name)


def known(kind: str, given: list[str] | None, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are given; raise BakeoffError if one is unknown."""
    for name in split(given):
        if name not in names:
            raise unknown(kind, name, names)
    return split(given)


def judged(given: str, options: CheckOptions, *, as_json: bool) -> Judgement:
    """Check one entrant, show its progress, and print what was found."""
    from bench.check.checks import CHECKS
    from bench.check.runner import judge

    err = Console(stderr=True, highlight=False)
    with err.status(f"{given}: starting", spinner="line") as status:

        def progress(style: str, check: str) -> None:
            status.update(f"{given} {style}: {check}, {CHECKS[check].about}")

        found = judge(given, options, progress)
    if not as_json:
        console = Console(highlight=False)
        console.print(report(found, console.width))
    return found


def report(judgement: Judgement, width: int) -> Group:
    """Return the judgement of an entrant for a terminal of so many columns."""
    return Group(
        Text(judgement.path, style="bold"),
        _table(judgement, width),
        *_reasons(judgement),
        *_findings(judgement),
        Text(_verdict(judgement), style="bold red" if judgement.errors else "bold green"),
        Text(""),
    )


def _table(judgement: Judgement, width: int) -> Table:
    """Return a row for each check, and a column for the file and for each style."""
    from bench.check.checks import CHECKS

    columns = (FILE, *judgement.styles)
    headers = ["check", *(["what has to hold"] if width >= WIDE else [])]
    out = Table(*headers, *(name or "file" for name in columns), box=SIMPLE, padding=(0, 1, 0, 0))
    out.pad_edge, out.columns[0].no_wrap = False, True
    words = {(result.check, result.style): result.outcome for result in judgement.results}
    for check in dict.fromkeys(result.check for result in judgement.results):
        cells = [words.get((check, style), "") for style in columns]
        about = [CHECKS[check].about] if width >= WIDE else []
        out.add_row(check, *about, *(Text(word, style=COLOURS.get(word, "")) for word in cells))
    return out


def _reasons(judgement: Judgement) -> Iterator[Text]:
    """Yield why checks were not run, a line for each reason."""
    reasons: dict[str, dict[str, None]] = {}
    for result in judgement.results:
        if result.not_run:
            reasons.setdefault(result.not_run, {})[result.check] = None
    for reason, checks in reasons.items():
        yield Text(f"not run: {', '.join(checks)} ({reason})", style="dim")


def _findings(judgement: Judgement) -> Iterator[RenderableType]:
    """Yield the findings, errors first."""
    for number, finding in enumerate(sorted(judgement.findings, key=lambda f: f.severity), 1):
        title = Text(f"{number}. {finding.check}", style="bold")
        note = "" if finding.severity == ERROR else " (a note: the entrant may be measured)"
        yield title.append(f", {finding.style or 'the file'}{note}", style="not bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row("expected", Text(finding.expected))
        grid.add_row("seen", Text(printable(finding.seen)))
        grid.add_row("look at", Text(finding.where))
        yield Padding(grid, (0, 0, 1, 3), expand=False)


def _verdict(judgement: Judgement) -> str:
    if errors := judgement.errors:
        first, count = errors[0], len(errors)
        return (
            f"not equal: {count} finding{'' if count == 1 else 's'}; begin with {first.check}"
            f"{f' of {first.style}' if first.style else ''} at {first.where}"
        )
    if not judgement.complete:
        return "no findings in these checks; run all checks before you measure it"
    command = f"pytest bench --entrant {shlex.quote(judgement.path)} --workload toy,seed"
    if any(finding.expected == DONATES for finding in judgement.findings):
        command += " --donate"
    return f"equal; to measure it: {command}"
