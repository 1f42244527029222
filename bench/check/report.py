"""A judgement as text: a table of checks, the findings, and one sentence at the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.check.findings import CHECKS, ERROR, FILE

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.check.findings import Finding, Judgement

WIDE = 100
"""Columns from which on there is room for what a check is about."""
COLOURS = {"ok": "green", "note": "yellow", "not run": "dim", "finding": "bold red"}


def report(judgement: Judgement, width: int) -> Group:
    """Return an entrant's judgement for a terminal of so many columns."""
    parts: list[RenderableType] = [Text(judgement.path, style="bold"), _table(judgement, width)]
    reasons: dict[str, dict[str, None]] = {}
    for outcome in judgement.outcomes:
        if outcome.not_run:
            reasons.setdefault(outcome.not_run, {})[outcome.check] = None
    for reason, checks in reasons.items():
        parts.append(Text(f"not run: {', '.join(checks)} ({reason})", style="dim"))
    for number, finding in enumerate(sorted(judgement.findings, key=lambda f: f.severity), 1):
        parts.append(_finding(number, finding))
    style = "bold red" if judgement.errors else "bold green"
    return Group(*parts, Text(_verdict(judgement), style=style), Text(""))


def _table(judgement: Judgement, width: int) -> Table:
    """Return a row for each check, and a column for the file and for each style."""
    columns = (FILE, *judgement.styles)
    out = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    out.add_column("check", no_wrap=True)
    if width >= WIDE:
        out.add_column("what has to hold")
    for name in columns:
        out.add_column(name or "file")
    words = {(outcome.check, outcome.style): outcome.word for outcome in judgement.outcomes}
    for check in dict.fromkeys(outcome.check for outcome in judgement.outcomes):
        cells = [words.get((check, style), "") for style in columns]
        about = [CHECKS[check].about] if width >= WIDE else []
        out.add_row(check, *about, *(Text(word, style=COLOURS.get(word, "")) for word in cells))
    return out


def _finding(number: int, finding: Finding) -> Group:
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


def _verdict(judgement: Judgement) -> str:
    if errors := judgement.errors:
        first, checks = errors[0], len({finding.check for finding in errors})
        return (
            f"{_counted(len(errors), 'finding')} in {_counted(checks, 'check')}; the first one to "
            f"look at is {first.check}{f' of {first.style}' if first.style else ''}"
            f"{f' at {first.where}' if first.where else ''}"
        )
    missing = any(o.not_run.startswith(("needs", "stops")) for o in judgement.outcomes)
    if missing or not judgement.complete:
        return "no finding in what was checked; run all checks before it is measured"
    command = f"pytest bench --entrant {shlex.quote(judgement.path)} --workload toy,seed"
    return f"equal: it may be measured: {command}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
