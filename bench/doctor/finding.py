"""Findings about a machine, and the tables that show them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing has to be done."""
    WARNING = "warning"
    """Timings are less reliable than they could be, or something cannot be used."""


class Area(StrEnum):
    """The subject of a finding; also the title of its table."""

    OFFERS = "this machine"
    MISSING = "missing"
    TIMING = "timing"


@dataclass(frozen=True)
class MachineFinding:
    """One line of the report."""

    area: Area
    name: str
    seen: str
    level: Level = Level.OK
    advice: str = ""
    """What to do; empty where there is nothing to do."""


STYLES = {Level.OK: "green", Level.NOTE: "", Level.WARNING: "bold red"}


def report(findings: Sequence[MachineFinding]) -> Group:
    """Return a table for each area, and a last line that says what to do first."""
    parts: list[Table | Text] = []
    for area in Area:
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), show_header=False, title_justify="left")
        table.title = Text(area, style="bold")
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        table.add_column(ratio=1, overflow="fold")
        for found in findings:
            if found.area is area:
                level = Text(found.level, STYLES[found.level])
                table.add_row(level, Text(f"{found.name}: {found.seen}"), Text(found.advice))
        if table.row_count:
            parts.append(table)
    warned = [found.name for found in findings if found.level is Level.WARNING]
    last = f"Before a run, look at: {', '.join(warned)}." if warned else "Ready to measure."
    return Group(*parts, Text(last))
