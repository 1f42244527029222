"""A comparison in a terminal: what it comes to, what changed, then every row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text

from bench.cells import BASELINE
from bench.compare import words
from bench.compare.comparison import Outcome, Status
from bench.metrics import label
from bench.report import wording
from bench.report.terminal import COLOURS, Column, Fitted, Group, lines, pack, table, title
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from bench.cells import Cell
    from bench.compare.comparison import Comparison, Failure, Row
    from bench.compare.words import Counted

MARKS = {Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}
STATUS = {Status.NOT_WORSE: "green", Status.WORSE: "bold red", Status.CANNOT_SAY: "yellow"}
IGNORED = "·"
"""Beside a ratio that the gate leaves out."""


def parts(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield what is printed, in order; each part fits itself to the console."""
    base = ", ".join(words.described(side) for side in comparison.bases)
    yield lines([(f"base: {base}", 6), (f"new:  {words.described(comparison.new)}", 6), ("", 0)])
    yield lines([(words.headline(comparison), 2)], style=STATUS[comparison.status])
    yield Text()
    yield from changes(comparison)
    for workload, backend in words.places(comparison):
        yield Fitted(partial(matrix, comparison, workload, backend))
    said = [*words.lacking(comparison), *(f"Differs: {d}" for d in comparison.differences)]
    if said:
        yield lines([*((text, 2) for text in said), ("", 0)])
    yield lines([(text, 2) for text in comparison.reading])
    if comparison.warnings:
        yield lines([("", 0), *((f"warning: {text}", 2) for text in comparison.warnings)])
    if precision := words.precision(comparison):
        yield lines([("", 0), (precision, 0)])


def changes(comparison: Comparison) -> Iterator[RenderableType]:
    """Yield a line for each thing that changed, what is worse first."""
    several = words.backends(comparison)
    out: list[tuple[bool, str, str]] = [
        (*failure(each), words.failed(each)) for each in comparison.failures
    ]
    for row in comparison.rows:
        if row.changed:
            style = "red" if row.worse else "green" if row.verdict is Verdict.FASTER else ""
            out.append((row.worse, style, slower(row, several=several)))
    for each in words.counted(row for row in comparison.exact if row.changed):
        style = "red" if each.row.worse else "green" if each.row.outcome is Outcome.BETTER else ""
        out.append((each.row.worse, style, count(each)))
    for worse, style, text in sorted(out, key=lambda line: not line[0]):
        yield lines([(f"{'!' if worse else ' '} {text}", 4)], style=style)
    if out:
        yield Text()


def failure(found: Failure) -> tuple[bool, str]:
    """Return whether a failed cell is worse, and its colour."""
    return found.worse, "red" if found.worse else "green" if found.new is None else ""


def slower(row: Row, *, several: bool) -> str:
    """Return a row that is slower or faster."""
    base, new = words.sides(row)
    where = f"{words.name(row.cell)} at {words.place(row.cell, several)}"
    said = f"{row.verdict}: {where}, {words.metric(row.metric)} {base} → {new}, {words.ratio(row)}"
    return f"{said}; {words.note(row)}" if row.note else said


def count(found: Counted) -> str:
    """Return exact numbers that changed."""
    row = found.row
    where = f"{words.name(row.cell)} at {wording.joined(found.workloads)}"
    numbers = f"{words.exact(row.base, row.metric)} → {words.exact(row.new, row.metric)}"
    said = f"{row.outcome}: {where}, {words.metric(row.metric)} {numbers}"
    return f"{said}; {words.note(row)}" if row.note else said


def matrix(
    comparison: Comparison, workload: str, backend: str, width: int
) -> Iterator[RenderableType]:
    """Yield tables of a workload's ratios, new to base, as many as the width asks for."""
    here = [r for r in comparison.rows if r.ratio and r.cell[2:] == (workload, backend)]
    cells = sorted(dict.fromkeys(row.cell for row in here), key=lambda cell: cell[:2] != BASELINE)
    names = [Text(wording.printable(words.name(cell))) for cell in cells]
    yield Text(title([cell_facts(cell) for cell in cells]) + ": new / base", style="bold")
    columns = []
    for metric in words.columns(here):
        by_cell = {row.cell: row for row in here if row.metric == metric}
        header = "\n".join(f"  {line}" for line in label(metric, "\n").split("\n"))
        columns.append(Column(header, [ratio(by_cell.get(cell)) for cell in cells]))
    for packed in pack([Group("", columns)], width - max(name.cell_len for name in names)):
        shown = [column for group in packed for column in group.columns]
        kept = [any(column.cells[i].plain for column in shown) for i in range(len(cells))]
        yield table("", names, shown, kept)
        yield Text()


def cell_facts(cell: Cell) -> wording.Facts:
    """Return as much of a cell as a title needs."""
    return {**cell._asdict(), "failure": None, "metrics": {}}


def ratio(row: Row | None) -> Text:
    """Return a ratio with its mark, in colour only if it is a finding."""
    if row is None:
        return Text()
    mark = IGNORED if row.ignored else MARKS.get(row.verdict or Verdict.INCONCLUSIVE, "")
    colour = COLOURS.get(row.verdict or "", "")
    return Text(f"{mark or ('!' if row.worse else ' ')} {words.ratio(row)}", style=colour)
