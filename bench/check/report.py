"""A judgement in words: a table of checks, what was found, and one sentence at the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.check.checks import CHECKS
from bench.check.finding import ERROR, FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from bench.check.finding import Finding, Judged

WIDE = 100
"""Columns from which on there is room for what a check is about."""
COLOURS = {"ok": "green", "note": "yellow", "not run": "dim", "finding": "bold red"}


def report(judged: Judged, width: int, *, whole: bool) -> Group:
    """Return all that there is to say of an entrant, for so many columns.

    Args:
        judged: What was found.
        width: Columns of the terminal.
        whole: Whether all checks were asked for; without that, nobody can say that it is equal.
    """
    parts: list[RenderableType] = [Text(judged.path, style="bold"), table(judged, width)]
    parts += [Text(line, style="dim") for line in not_run(judged)]
    for number, finding in enumerate(sorted(judged.findings, key=lambda f: f.severity), 1):
        parts.append(shown(number, finding))
    style = "bold red" if judged.errors else "bold green"
    return Group(*parts, Text(sentence(judged, whole=whole), style=style), Text(""))


def table(judged: Judged, width: int) -> Table:
    """Return a row for each check, and a column for the file and for each style."""
    out = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    out.add_column("check", no_wrap=True)
    if width >= WIDE:
        out.add_column("what has to hold")
    for name in (FILE, *judged.styles):
        out.add_column(name or "file")
    words = {(outcome.check, outcome.style): outcome.word for outcome in judged.outcomes}
    for check in dict.fromkeys(outcome.check for outcome in judged.outcomes):
        cells = [words.get((check, style), "") for style in (FILE, *judged.styles)]
        about = [CHECKS[check].about] * (width >= WIDE)
        out.add_row(check, *about, *(Text(word, style=COLOURS.get(word, "")) for word in cells))
    return out


def not_run(judged: Judged) -> Iterator[str]:
    """Yield which checks were not run, by reason."""
    reasons: dict[str, list[str]] = {}
    for outcome in judged.outcomes:
        if outcome.not_run:
            reasons.setdefault(outcome.not_run, []).append(outcome.check)
    for reason, checks in reasons.items():
        yield f"not run: {', '.join(dict.fromkeys(checks))} ({reason})"


def shown(number: int, finding: Finding) -> Group:
    """Return a finding with its explanation."""
    kind = "" if finding.severity == ERROR else " (a note: no reason to refuse it)"
    title = Text(f"{number}. {finding.check}", style="bold")
    title.append(f", {finding.style or 'the file'}{kind}", style="not bold")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("expected", Text(finding.expected))
    grid.add_row("seen", Text(finding.seen))
    grid.add_row("look at", Text(finding.where))
    return Group(title, Padding(grid, (0, 0, 1, 3), expand=False))


def sentence(judged: Judged, *, whole: bool) -> str:
    """Return the verdict."""
    errors = judged.errors
    if errors:
        checks = len({finding.check for finding in errors})
        first = errors[0]
        where = f" at {first.where}" if first.where else ""
        return (
            f"{counted(len(errors), 'finding')} in {counted(checks, 'check')}; the first one to "
            f"look at is {first.check}{f' of {first.style}' if first.style else ''}{where}"
        )
    if not whole or any(outcome.not_run and needed(outcome.not_run) for outcome in judged.outcomes):
        return "no finding in what was checked; run all checks before it is measured"
    command = f"pytest bench --entrant {shlex.quote(judged.path)} --workload toy,seed"
    return f"equal: it may be measured: {command}"


def needed(reason: str) -> bool:
    """Return whether a check that was not run would have had something to say."""
    return reason.startswith(("needs", "stops"))


def counted(number: int, what: str) -> str:
    """Return how many, in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"
