"""Exact numbers that are others on the new side, or at the next moment: they need no test."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from bench.metrics import METRICS, Kind, label
from bench.report.table import Column, Row, Table, amount
from bench.report.wording import few, ordered

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.cells import Arm, Cell
    from bench.estimates import Estimate

SAME_LOSS = 0.01
"""Nats per character by which two losses may differ and still be called the same: a compiler may
change the last bits, and training makes more of them."""
NAMED = 3
"""Arms that are named where several moved alike; of more, their number is."""
ORDER = list(METRICS)
"""Metrics in the order in which they matter; lines of code are the last."""


class Move(NamedTuple):
    """An exact number that is not what it was."""

    before: Estimate
    after: Estimate

    @property
    def worse(self) -> bool:
        """Whether it is more of what costs."""
        return self.after.value > self.before.value and not METRICS[self.after.metric].neutral

    @property
    def values(self) -> str:
        """Both numbers."""
        return " → ".join(amount(row.value, row.unit) for row in self)


def is_exact(row: Estimate) -> bool:
    """Tell whether a row is a number that is the same every time: a count, or a loss."""
    return row.form == "amount" and row.kind in (Kind.EXACT, Kind.ONCE)


def moves(series: Iterable[Sequence[Estimate]]) -> list[Move]:
    """Return where exact numbers are others than just before: what costs more first.

    Args:
        series: Amounts of one cell and metric each, in their order.
    """
    several = [
        Move(before, after)
        for rows in series
        for before, after in pairwise(rows)
        if abs(after.value - before.value) > (SAME_LOSS if after.unit == "nats" else 0)
    ]
    return sorted(several, key=lambda move: (not move.worse, ORDER.index(move.after.metric)))


def moves_table(several: Sequence[Move], times: Mapping[str, str] | None = None) -> Table:
    """Return a row for all cells that moved alike.

    Args:
        several: In their order.
        times: What environments are called where they are moments; None for two sides.
    """
    alike: dict[tuple[str, str, str, str], list[Move]] = {}
    for move in several:
        between = move.before.environment, move.after.environment
        alike.setdefault((move.after.metric, move.values, *between), []).append(move)
    rows = []
    for (metric, values, before, after), group in alike.items():
        when = "" if times is None else f"{times[before]} to {times[after]}"
        where = cells_words([move.after.cell for move in group])
        rows.append(Row((label(metric), values, when, where), worse=group[0].worse))
    columns = (Column("metric"), Column("change"), Column("between"), Column("of", needed=False))
    return Table(columns, tuple(rows), "Exact counts that changed").without_empty()


def cells_words(cells: Sequence[Cell]) -> str:
    """Return cells as a list in a sentence, the workloads of each arm together."""
    arms: dict[Arm, list[str]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, []).append(cell.workload)
    names = [f"{arm.words} at {few(ordered(of), NAMED)}" for arm, of in arms.items()]
    return few(names, NAMED)
