"""What more devices are worth, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import Arm
from bench.report import wording
from bench.report.table import Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.runfile import BakeoffSection, Scaling

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


def tables(section: BakeoffSection) -> Iterator[Table]:
    """Yield a table with a row for each style and number of devices, if there are several.

    Strong scaling stands first, then weak.
    """
    found = sorted(
        section.scaling, key=lambda r: (r.backend, r.workload, name(r), r.weak, r.devices)
    )
    rows = [
        Row(
            (
                name(row),
                row.place,
                STREAMS[row.weak],
                str(row.devices),
                Value(row.seconds, "s"),
                efficiency(row),
                "" if row.compile_seconds is None else Value(row.compile_seconds, "s"),
            )
        )
        for row in found
    ]
    if rows:
        yield Table(COLUMNS, tuple(rows), notes=(LEGEND,))


def name(row: Scaling) -> str:
    """Return the name of a style without its devices."""
    return wording.name(Arm(row.entrant, row.style))


def efficiency(row: Scaling) -> Value:
    """Return an efficiency with its interval."""
    low, high = row.efficiency(row.high), row.efficiency(row.low)
    return Value(row.efficiency(row.ratio), low=low, high=high)
