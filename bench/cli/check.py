"""`bakeoff check`: does this file keep the contract, and if not, what is wrong?"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.check.findings import Judgement
    from bench.check.runner import CheckOptions
    from bench.report.table import Document, Section, Table

EXAMPLES = """Examples:\n
bakeoff check mine.py\n
bakeoff check mine.py theirs.py haiku --json\n
bakeoff check mine.py --style pure --only equality,gradient --workload seed"""

GIB = 1 << 30
LEAST_MEMORY = 1.0
"""GiB that it takes to import jax and compile a small step."""


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

    It finds mistakes. A file that is written to deceive it can do so.
    """
    from bench.check.checks import CHECKS
    from bench.check.runner import CheckOptions, entrant_name
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
    judgements: list[Judgement] = []
    wrong = False
    for path in given:
        try:
            judgements.append(judged(path, options, as_json=as_json))
        except BakeoffError as error:  # this one lacks a style, say; the others go on
            print(f"bakeoff: {error}", file=sys.stderr)
            wrong = True
    styles = {name for judgement in judgements for name in judgement.styles}
    if judgements and (lacking := [name for name in options.styles if name not in styles]):
        print(f"bakeoff: {unknown('style', ','.join(lacking), sorted(styles))}", file=sys.stderr)
        wrong = True
    if as_json:
        print(json.dumps([judgement.as_json() for judgement in judgements], indent=2))
    return 2 if wrong else int(any(judgement.errors for judgement in judgements))


def require_backend(name: str) -> None:
    """Raise BakeoffError unless a worker has this backend; this process does not open a device."""
    from bench.engine.process import WorkerFailedError, ask_once
    from common.devices import Device

    try:
        offered = ask_once({"do": "describe", "entrants": ["pure_jax"], "outside": {}})
    except WorkerFailedError as error:
        raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error
    device = Device.of(name)
    if device.backend not in offered["backends"]:
        raise unknown("backend", device.backend, offered["backends"])
    device.require(offered["details"][device.backend]["count"])


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
    """Check one entrant, show its progress, and print the result unless JSON is to be printed."""
    from rich.console import Console

    from bench.check.checks import CHECKS
    from bench.check.runner import judge
    from bench.cli.documents import show

    err = Console(stderr=True, highlight=False)
    with err.status(f"{given}: starting", spinner="line") as status:

        def on_progress(style: str, check: str) -> None:
            status.update(f"{given} {style}: {check}, {CHECKS[check].about}")

        judgement = judge(given, options, on_progress)
    if not as_json:
        show(document(judgement))
    return judgement


def document(judgement: Judgement) -> Document:
    """Return the judgement of an entrant: the verdict, a table of checks, and the findings."""
    from bench.report.table import Document, Section

    reasons: dict[str, dict[str, None]] = {}
    for result in judgement.results:
        if result.not_run:
            reasons.setdefault(result.not_run, {})[result.check] = None
    not_run = (f"not run: {', '.join(checks)} ({why})" for why, checks in reasons.items())
    checks = Section("Checks", tuple(not_run), (_table(judgement),))
    return Document(
        f"Check of {judgement.path}",
        headline=f"{judgement.path}: {verdict(judgement)}",
        status="bad" if judgement.errors else "good",
        sections=(checks, *_findings(judgement)),
    )


def _table(judgement: Judgement) -> Table:
    """Return a row for each check, and a column for the file and for each style."""
    from bench.check.checks import CHECKS
    from bench.report.table import Column, Row, Table

    outcomes = {(result.check, result.style): result.outcome for result in judgement.results}
    styles = tuple(dict.fromkeys(style for _, style in outcomes))
    rows = [
        Row((name, *(outcomes.get((name, style), "") for style in styles), about.about))
        for name, about in CHECKS.items()
        if any(check == name for check, _ in outcomes)
    ]
    columns = (Column("check"), *(Column(style or "file") for style in styles))
    return Table((*columns, Column("what has to hold", needed=False)), tuple(rows))


def _findings(judgement: Judgement) -> Iterator[Section]:
    """Yield the findings, errors first."""
    from bench.check.findings import ERROR
    from bench.report.table import Section

    for number, finding in enumerate(sorted(judgement.findings, key=lambda f: f.severity), 1):
        error = finding.severity == ERROR
        title = f"{number}. {finding.check}, {finding.style or 'the file'}"
        lines = (
            title + ("" if error else " (a note: the entrant may be measured)"),
            f"   expected  {finding.expected}",
            f"   seen      {finding.seen}",
            f"   look at   {finding.where}",
        )
        yield Section(title, lines)


def verdict(judgement: Judgement) -> str:
    """Return in a sentence whether the entrant is equal, and what to do next."""
    from bench.check.findings import DONATES

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
