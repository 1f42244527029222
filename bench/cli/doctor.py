"""`bakeoff doctor`: can this machine be measured on?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.doctor.finding import Finding

EXAMPLES = """Examples:\n
bakeoff doctor\n
bakeoff doctor --seconds 30\n
bakeoff doctor --strict && pytest bench --benchmark-json=run.json"""
MOST_SECONDS = 3600.0


def doctor(
    seconds: Annotated[float, typer.Option(help="To look at what the machine does.")] = 3.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 if there is a warning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Say what this machine offers, what is missing, and what makes its timings unreliable.

    It changes nothing. Let nothing else run meanwhile: that is what it looks for.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise BakeoffError(
            f"--seconds is {seconds:g}; more than 0 and at most {MOST_SECONDS:g} are allowed: "
            "give another one"
        )
    from rich.console import Console

    from bench.doctor.advice import findings
    from bench.doctor.finding import Level
    from bench.doctor.look import look
    from bench.doctor.report import report

    with Console(stderr=True).status(f"looking at this machine for {seconds:g} s", spinner="line"):
        found = list(findings(look(seconds)))
    if as_json:
        print(json.dumps(rows(found), indent=2))
    else:
        console = Console(highlight=False, file=sys.stdout)
        console.print(report(found))
    return int(strict and any(finding.level is Level.WARNING for finding in found))


def rows(found: list[Finding]) -> list[dict[str, str]]:
    """Return findings as JSON has them."""
    from dataclasses import asdict

    return [{name: str(value) for name, value in asdict(finding).items()} for finding in found]
