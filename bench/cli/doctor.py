"""`bakeoff doctor`: can this machine be measured on?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from common.errors import BakeoffError

MOST_SECONDS = 3600.0
EXAMPLES = """Examples:\n
bakeoff doctor\n
bakeoff doctor --seconds 30\n
bakeoff doctor --strict && pytest bench --benchmark-json=run.json"""


def doctor(
    seconds: Annotated[float, typer.Option(help="For which the machine is watched.")] = 3.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if there is a warning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """List what this machine offers, what is missing, and what makes its timings unreliable.

    Nothing is changed. Other programs that run meanwhile are reported.
    """
    from rich.console import Console

    from bench.doctor.finding import Level, report
    from bench.doctor.probes import findings, look
    from common.config import check_rate

    check_rate("--seconds", seconds)
    if seconds > MOST_SECONDS:
        raise BakeoffError(f"--seconds is {seconds:g}; at most {MOST_SECONDS:g} are allowed")
    with Console(stderr=True).status(f"watching this machine for {seconds:g} s", spinner="line"):
        found = list(findings(look(seconds)))
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        Console(highlight=False, file=sys.stdout).print(report(found))
    return int(strict and any(finding.level is Level.WARNING for finding in found))
