"""What is left of a host cost where steps are not waited for, and how it grows with the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cells import BASELINE, CONTROL, Arm
from bench.report import wording
from bench.report.table import ADDED, Column, Row, Table, Value, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cost.table import CostTable
    from bench.runfile import BakeoffSection, Result

EXACT_ENOUGH = 0.5
"""Half of an interval of a hidden share that is worth printing."""
NOTE = (
    "Added to a call at the fewest arrays on one core, each call waited for; then per step of 50 "
    "in a row of which only the last is waited for, on all cores. Hidden is the part of the first "
    "that the second does not have; `?`: the second is known too roughly to say."
)


def by_width(section: BakeoffSection) -> Table:
    """Return what each style adds to a step at each workload of a run."""
    plain = {c.workload: c for c in section.cells if Arm(c.entrant, c.style) == Arm(*BASELINE)}
    arms = dict.fromkeys(Arm(c.entrant, c.style) for c in section.cells)
    cells = {(Arm(c.entrant, c.style), c.workload): c for c in section.cells}
    rows = [
        Row((wording.name(arm), *(added(cells[arm, at], plain[at], "step") for at in plain)))
        for arm in arms
        if arm not in (Arm(*BASELINE), Arm(*CONTROL))
    ]
    titles = map(wording.sized, plain)
    return Table((Column("style"), *(Column(t, number=True) for t in titles)), tuple(rows))


def table(section: BakeoffSection, costs: CostTable) -> Table:
    """Return what each style adds to a step that is waited for and to one that is not."""
    columns = (
        *(Column("style"), Column("workload")),
        *(Column(t, number=True) for t in ("host cost", "waited for", "in a row", "hidden")),
    )
    return Table(columns, tuple(rows(section, costs)), notes=(NOTE,))


def rows(section: BakeoffSection, costs: CostTable) -> Iterator[Row]:
    """Yield a row for each style at each workload, the dearest style last."""
    plain = {c.workload: c for c in section.cells if Arm(c.entrant, c.style) == Arm(*BASELINE)}
    for cell in sorted(section.cells, key=lambda cell: cell.workload):
        style = costs.by_style.get((cell.entrant, cell.style))
        if style and Arm(cell.entrant, cell.style) not in (Arm(*BASELINE), Arm(*CONTROL)):
            waited = added(cell, plain[cell.workload], "step")
            in_a_row = added(cell, plain[cell.workload], "step_pipelined")
            cost = style.measured[0]
            host = Value(cost.seconds, ADDED, cost.low, cost.high)
            name = wording.name(Arm(cell.entrant, cell.style))
            share = hidden(in_a_row, cost.seconds)
            yield Row((name, cell.workload, host, waited, in_a_row, share))


def added(cell: Result, plain: Result, metric: str) -> Value:
    """Return the seconds that a style adds to a step, with their interval."""
    found, base = cell.compared(metric), plain.measured(metric)
    if not found or not base or found.ratio is None:
        return Value(None, ADDED)
    low, high = (base.median * ((end or found.ratio) - 1) for end in (found.low, found.high))
    return Value(base.median * (found.ratio - 1), ADDED, low, high)


def hidden(in_a_row: Value, host: float) -> str:
    """Return which part of a host cost is not seen in a row, or that it is not known."""
    if in_a_row.number is None or in_a_row.low is None or in_a_row.high is None or host <= 0:
        return ""
    shares = [1 - end / host for end in (in_a_row.high, in_a_row.number, in_a_row.low)]
    if (shares[2] - shares[0]) / 2 > EXACT_ENOUGH:
        return "?"
    low, middle, high = (percent(min(1.0, max(0.0, share))) for share in shares)
    return f"{middle} ({low} to {high})"
