"""A judgement as text: a table of checks, the findings, and one sentence at the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.check.checks import CHECKS
from bench.check.findings import ERROR, FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from bench.check.findings import Judgement

WIDE = 100
"""Columns from which on there is room for what a check is about."""
COLOURS = {"ok": "green", "note": "yellow", "not run": "dim", "finding": "bold red"}


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
        grid.add_row("seen", Text(finding.seen))
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
    return f"equal; to measure it: {command}"
