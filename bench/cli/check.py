"""`bakeoff check`: does this file keep the contract, and if not, what is wrong?"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cells import require_known
from bench.cli.commands import publish
from bench.options import StyleNames, names_of
from bench.report.table import Column, Document, Row, Section, Table
from bench.report.wording import counted
from common.config import check_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.check.runner import CheckOptions, CheckResult
    from bench.check.subject import CheckFinding

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
    from bench.check.runner import CheckOptions, entrant_name, judge

    check_rate("--time-limit", time_limit)
    checks = names_of(only) or tuple(CHECKS)
    require_known("check", checks, CHECKS)
    options = CheckOptions(names_of(style), checks, time_limit, backend)
    entrant_name(path)
    print(f"bakeoff: {path} will be executed now, with your rights", file=sys.stderr)
    with Console(stderr=True, highlight=False).status(f"{path}: starting", spinner="line") as line:

        def on_progress(style: str, check: str) -> None:
            line.update(f"{path} {style}: {check}, {CHECKS[check].about}")

        results = judge(path, options, on_progress)
    publish([document(path, options, results)])
    return int(any(result.outcome == "finding" for result in results))


def document(path: str, options: CheckOptions, results: Sequence[CheckResult]) -> Document:
    """Return the verdict on an entrant, a table of checks by style, and the findings."""
    from bench.check.judge import CHECKS
    from bench.check.subject import ERROR

    findings = [finding for result in results for finding in result.findings]
    outcomes = {(result.check, result.style): result.outcome for result in results}
    checks, styles = (dict.fromkeys(names) for names in zip(*outcomes, strict=True))
    rows = [
        Row((name, *(outcomes.get((name, style), "") for style in styles), CHECKS[name].about))
        for name in checks
    ]
    columns = [Column("check"), *(Column(style or "file") for style in styles)]
    table = Table((*columns, Column("what has to hold", needed=False)), tuple(rows))
    reasons = dict.fromkeys(r.not_run for r in results if r.not_run)
    sections = [Section("Checks", tuple(f"not run: {why}" for why in reasons), (table,))]
    for number, finding in enumerate(sorted(findings, key=lambda f: f.severity), 1):
        note = "" if finding.severity == ERROR else " (a note: the entrant may be measured)"
        title = f"{number}. {finding.check}, {finding.style or 'the file'}{note}"
        about = {"expected": finding.expected, "seen": finding.seen, "look at": finding.where}
        lines = (f"   {name:8}  {text}" for name, text in about.items())
        sections.append(Section(title, (title, *lines)))
    return Document(
        f"Check of {path}",
        headline=f"{path}: {verdict(path, options, findings)}",
        status="bad" if "finding" in outcomes.values() else "good",
        sections=tuple(sections),
    )


def verdict(path: str, options: CheckOptions, findings: Sequence[CheckFinding]) -> str:
    """Return in a sentence whether the entrant is equal, and what to do next."""
    from bench.check.judge import CHECKS
    from bench.check.subject import DONATES, ERROR

    if errors := [finding for finding in findings if finding.severity == ERROR]:
        first, many = errors[0], counted(len(errors), "finding")
        of = f" of {first.style}" if first.style else ""
        return f"not equal: {many}; begin with {first.check}{of} at {first.where}"
    if {*options.checks} != {*CHECKS}:
        return "no findings in these checks; run all checks before you measure it"
    command = f"pytest bench --entrant {shlex.quote(path)}"
    if options.styles:
        command += f" --style {','.join(options.styles)}"
    command += " --workload toy,seed"
    if any(finding.expected == DONATES for finding in findings):
        command += " --donate"
    return f"equal; to measure it: {command}"
