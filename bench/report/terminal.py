"""Tables of `bakeoff compare` and of the time line, until they are documents."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from bench.cells import BASELINE
from bench.report import wording
from bench.report.run import COMPARED, about
from bench.report.text import GAP, Fitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from bench.report.wording import Facts

__all__ = ["COMPARED", "GAP", "Fitted"]

COLOURS = {"slower": "red", "faster": "green"}
UNBROKEN = "\xa0"


@dataclass(frozen=True)
class Column:
    """A column of a table, with a cell for each row."""

    header: str
    cells: list[Text]

    @property
    def width(self) -> int:
        """Return the characters of its longest line."""
        return max(*map(len, self.header.split("\n")), *(cell.cell_len for cell in self.cells))


@dataclass(frozen=True)
class Group:
    """Columns that belong together."""

    name: str
    columns: list[Column]

    @property
    def width(self) -> int:
        """Return the characters that it adds to a table."""
        return sum(column.width + GAP for column in self.columns)

    def filled(self) -> Group:
        """Return the group without columns that have no cell."""
        return Group(self.name, [c for c in self.columns if any(cell.plain for cell in c.cells)])


def lines(
    texts: Sequence[tuple[str, int]], whole: Sequence[str] = (), style: str = ""
) -> RenderableType:
    """Return paragraphs that fit the width.

    Args:
        texts: Paragraphs, each with the indent of its second and later lines.
        whole: Names that are not to be broken at their spaces.
        style: Rich's name of a style.
    """

    def draw(width: int) -> Iterator[RenderableType]:
        for text, indent in texts:
            clean = wording.printable(text)
            for name in whole:
                clean = clean.replace(name, name.replace(" ", UNBROKEN))
            start = " " * (len(clean) - len(clean.lstrip(" ")) + indent)
            filled = textwrap.fill(clean, width, subsequent_indent=start, break_on_hyphens=False)
            # A Text is no markup: what comes from outside stays what it is.
            yield Text(filled.replace(UNBROKEN, " "), style=style)

    return Fitted(draw)


def ordered(rows: Sequence[Facts]) -> list[Facts]:
    """Return rows with an entrant's styles together, the baseline's first."""
    first = dict.fromkeys(row["entrant"] for row in rows)
    order = {entrant: place for place, entrant in enumerate(first)}
    return sorted(
        rows,
        key=lambda row: (
            row["entrant"] != BASELINE[0],
            order[row["entrant"]],
            row["style"] != BASELINE[1],
        ),
    )


def labels(rows: Sequence[Facts]) -> list[Text]:
    """Return the names of rows; styles are below their entrant, whose own row is its `pure`."""
    having = {row["entrant"] for row in rows if row["style"] == BASELINE[1]}
    return [
        Text(
            wording.printable(
                f"  {row['style']}"
                if row["entrant"] in having and row["style"] != BASELINE[1]
                else wording.name(row)
            )
        )
        for row in rows
    ]


def pack(groups: Sequence[Group], room: int) -> list[list[Group]]:
    """Return groups by table: each goes where it fits, and is split if it fits nowhere."""
    packed: list[list[Group]] = []

    def fits(*inside: Group) -> bool:
        return sum(group.width for group in inside) <= room

    for group in groups:
        if not group.columns:
            continue
        place = next((inside for inside in packed if fits(*inside, group)), None)
        if place is not None:
            place.append(group)
            continue
        for column in group.columns:
            one = Group(group.name, [column])
            if column is group.columns[0] or not fits(*packed[-1], one):
                packed.append([])
            packed[-1].append(one)
    return packed


def table(
    head: str, names: Sequence[Text], columns: Sequence[Column], kept: Sequence[bool]
) -> Table:
    """Return a table of those rows that are kept."""
    out = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    out.add_column(Text(head), no_wrap=True, vertical="bottom")
    for column in columns:
        out.add_column(Text(column.header), no_wrap=True, vertical="bottom")
    for keep, name, *cells in zip(kept, names, *(c.cells for c in columns), strict=True):
        if keep:
            out.add_row(name, *cells)
    return out


def title(rows: Sequence[Facts]) -> str:
    """Return what a table is about: the workload, its sizes, and how much was sampled."""
    return about(f"{rows[0]['workload']} on {rows[0]['backend']}", rows)
