"""What more devices are worth, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table

from bench.report import wording
from common.devices import Over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts

STRONG, WEAK = "the same", "as many on each"
LEGEND = (
    "Efficiency: 1 where n devices do n times the work of one in its time; 95 % intervals, each "
    "for itself. Of one device: the step that knows of no devices, beside the same over one.",
)


HEADS = ("style", "at", "streams", "devices", "step", "efficiency", "compile")


def table(rows: Sequence[Facts]) -> Table:
    """Return a row for each style and number of devices: strong scaling first, then weak."""
    out = Table(*HEADS[:3], box=SIMPLE, padding=(0, 1, 0, 0))
    for head in HEADS[3:]:
        out.add_column(head, justify="right", no_wrap=True)
    last: tuple[str, ...] = ()
    for row in texts(rows):
        out.add_row(*(row[:3] if row[:3] != last else ("", "", "")), *row[3:])
        last = row[:3]
    return out


def markdown(rows: Sequence[Facts]) -> str:
    """Return the same table in Markdown."""
    out = [f"| {' | '.join(HEADS)} |", "|---|---|---|--:|--:|--:|--:|"]
    out += [f"| {' | '.join(row)} |" for row in texts(rows)]
    return "\n".join([*out, "", *LEGEND])


def texts(rows: Sequence[Facts]) -> list[tuple[str, ...]]:
    """Return what each row says, under `HEADS`."""
    return [
        (
            name(row),
            place(row),
            WEAK if row["kind"] == "weak" else STRONG,
            str(row["devices"]),
            wording.seconds(row["seconds"]),
            efficiency(row),
            "" if row["compile_seconds"] is None else wording.seconds(row["compile_seconds"]),
        )
        for row in sorted(rows, key=order)
    ]


def order(row: Facts) -> tuple[str, str, str, str, int]:
    """Return what rows are sorted by."""
    return row["backend"], row["workload"], name(row), row["kind"], row["devices"]


def name(row: Facts) -> str:
    """Return the name of a style without its devices."""
    style = Over.of(row["style"]).style
    return row["entrant"] if style == "pure" else f"{row['entrant']} {style}"


def place(row: Facts) -> str:
    """Return where it was measured."""
    return f"{row['workload']} on {row['backend']}"


def efficiency(row: Facts) -> str:
    """Return an efficiency with its interval."""
    middle, low, high = (row[f"efficiency{end}"] for end in ("", "_low", "_high"))
    if middle is None:
        return ""
    if low is None or high is None:
        return f"{middle:.2f}"
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"
