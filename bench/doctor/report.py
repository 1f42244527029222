"""Findings as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.doctor.finding import Area, Finding, Level

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLES = {Level.OK: "green", Level.NOTE: "", Level.WARNING: "bold red"}


def report(found: Sequence[Finding]) -> Group:
    """Return a table for each area, and a last line that says what to do first."""
    parts: list[Table | Text] = []
    for area in Area:
        rows = [finding for finding in found if finding.area is area]
        if not rows:
            continue
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), show_header=False, title_justify="left")
        table.title = Text(area.value, style="bold")
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        for finding in rows:
            style = STYLES[finding.level]
            table.add_row(
                Text(str(finding.level), style),
                f"{escape(finding.name)}: {escape(finding.seen)}",
                escape(finding.advice),
            )
        parts.append(table)
    parts.append(Text(verdict(found)))
    return Group(*parts)


def verdict(found: Sequence[Finding]) -> str:
    """Return in a sentence what to do first."""
    warned = [finding for finding in found if finding.level is Level.WARNING]
    if not warned:
        return "Nothing that has to be done before a run."
    names = ", ".join(finding.name for finding in warned)
    return f"Before a run, look at: {names}."
