"""What more devices are worth, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import wording
from bench.report.table import Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report.wording import Facts

STREAMS = {False: "the same", True: "as many on each"}
"""By whether a style scales weakly."""
LEGEND = (
    "Efficiency: 1 where n devices do n times the work of one in its time; 95 % intervals, each "
    "for itself. Of one device: the step that knows of no devices, beside the same over one."
)
COLUMNS = (
    *(Column(title) for title in ("style", "at", "streams")),
    *(Column(title, number=True) for title in ("devices", "step", "efficiency", "compile")),
)


def tables(section: Facts) -> Iterator[Table]:
    """Yield a table with a row for each style and number of devices, if there are several.

    Strong scaling stands first, then weak.
    """
    rows = sorted(section.get("scaling") or [], key=order)
    if rows:
        yield Table(COLUMNS, tuple(Row(cells(row)) for row in rows), notes=(LEGEND,))


def cells(row: Facts) -> tuple[str | Value, ...]:
    """Return what a row says."""
    place = f"{row['workload']} on {row['backend']}"
    compiled = row["compile_seconds"]
    return (
        name(row),
        place,
        STREAMS[row.get("weak", False)],
        str(row["devices"]),
        Value(row["seconds"], "s"),
        efficiency(row),
        "" if compiled is None else Value(compiled, "s"),
    )


def order(row: Facts) -> tuple[str, str, str, bool, int]:
    """Return what rows are sorted by."""
    return row["backend"], row["workload"], name(row), row.get("weak", False), row["devices"]


def name(row: Facts) -> str:
    """Return the name of a style without its devices."""
    return wording.name({"entrant": row["entrant"], "style": row["style"]})


def efficiency(row: Facts) -> Value:
    """Return an efficiency with its interval."""
    return Value(row["efficiency"], low=row["efficiency_low"], high=row["efficiency_high"])
