"""What a style costs a model, predicted from the character RNN, and how far that is off.

What a step costs the host is what its Python does, so a model is taken to cost what the RNN costs
that makes as many Python calls a step; where a model's calls are not known, the RNN that has as
many arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.report.table import ADDED, Column, Row, Table, Value, percent
from bench.stats.law import Range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cost.table import Checked, CostTable, StyleCost

CLOSE = 0.15
"""Of a measured cost: a prediction that is off by no more is close."""
NOTE = (
    "Off by: predicted / measured - 1, least to most of perceptrons and transformers; first for "
    "steps that compute next to nothing, then for whole ones, by arrays for both."
)


class Size(NamedTuple):
    """What is known of a model."""

    arrays: int
    """Of parameters."""
    calls: Mapping[str, int] = {}
    """Python calls of a step beyond those of plain JAX's, by style."""


class Deviation(NamedTuple):
    """Predicted over measured cost, less one, of other models than the RNN: the least and most."""

    least: float
    most: float

    def around(self, value: float) -> Range:
        """Return a predicted cost, and the range in which it is, if it is off by as much."""
        ends = (value / (1 + off) for off in (max(0.0, self.most), min(0.0, self.least)))
        return Range(value, *sorted(ends))

    def __str__(self) -> str:
        return f"{100 * self.least:+.0f} to {100 * self.most:+.0f} %"


def predicted(costs: CostTable, style: StyleCost, size: Size) -> Range:
    """Return what a style adds to a step of a model, in seconds.

    The range is that of other models that were checked; where there are none, the RNN's own.
    """
    found = by_calls(style, size)
    deviation = off_by(costs, style, by_calls=found is not None)
    found = found or style.law.at(size.arrays)
    return deviation.around(found.value) if deviation else found


def by_calls(style: StyleCost, size: Size) -> Range | None:
    """Return what a style costs by a model's Python calls; None where they are not known."""
    calls = size.calls.get(style.style)
    return None if calls is None else style.at_calls(calls)


def off_by(
    costs: CostTable, style: StyleCost, *, by_calls: bool, whole: Sequence[bool] = (False, True)
) -> Deviation | None:
    """Return by how much predictions of a style are off; None where it was not checked.

    Args:
        costs: The table.
        style: One of its styles.
        by_calls: Whether of Python calls, else of arrays.
        whole: Which steps: whether they compute what the model does.
    """
    models = (each for each in checked(costs, style) if each.whole in whole)
    found = [each.by_calls if by_calls else each.by_arrays for each in models]
    off = [each.value for each in found if each]
    return Deviation(min(off), max(off)) if off and min(off) > -1 else None


def checked(costs: CostTable, style: StyleCost) -> list[Checked]:
    """Return what was measured of a style on other models."""
    name = style.entrant, style.style
    return [each for each in costs.checked if (each.library, each.style) == name]


def table(costs: CostTable) -> Table:
    """Return what a Python call costs in each style, and how far predictions are off."""
    columns = (
        Column("style"),
        Column("Python calls\nfor each array", number=True, help="of the character RNN"),
        Column("each call", number=True, help="the cost of an array, by its calls"),
        Column("by calls,\noff by", number=True),
        Column("by calls,\nwhole steps", number=True),
        Column("by arrays,\noff by", number=True),
    )
    rows = []
    for style in sorted(costs.styles, key=lambda style: style.each):
        calls = style.calls_of_an_array
        off = [off_by(costs, style, by_calls=True, whole=[whole]) for whole in (False, True)]
        off.append(off_by(costs, style, by_calls=False))
        if style.known and (calls or any(off)):
            cells = (f"{calls:.1f}", Value(style.each / calls, "s")) if calls else ("", "")
            rows.append(Row((style.name, *cells, *(str(each or "") for each in off))))
    notes = (NOTE, f"Measured on {costs.checked_machine}.") if costs.checked else ()
    return Table(columns, tuple(rows), notes=notes).without_empty()


def agreement(costs: CostTable) -> Table:
    """Return how many predictions are close to what was measured, and how many surely are not.

    Of models and styles that are predicted both ways.
    """
    models = [each for style in costs.styles if style.known for each in checked(costs, style)]
    rows = []
    for whole, name in ((False, "steps that compute next to nothing"), (True, "whole steps")):
        both = [(e.by_calls, e.by_arrays) for e in models if e.whole == whole and e.by_calls]
        cells = [
            f"{sum(found(each) for each in own)} of {len(both)}"
            for own in zip(*both, strict=True)
            for found in (close, surely_not_close)
        ]
        if both:
            rows.append(Row((name, *cells)))
    titles = (
        f"by {what}:\n{how}"
        for what in ("Python calls", "arrays")
        for how in (f"within {percent(CLOSE)}", "surely not")
    )
    columns = (Column(title, number=True) for title in titles)
    return Table((Column("models"), *columns), tuple(rows))


def close(found: Range) -> bool:
    """Tell whether a prediction is off by little."""
    return abs(found.value) <= CLOSE


def surely_not_close(found: Range) -> bool:
    """Tell whether all of the interval says that a prediction is off by more than that."""
    return found.low > CLOSE or found.high < -CLOSE


def each_model(costs: CostTable) -> Table:
    """Return what was measured of each model and style, and how far predictions are off."""
    rows = []
    for style in costs.styles:
        for each in checked(costs, style):
            sizes = (Value(each.arrays, ""), Value(each.calls, ""))
            off = (in_percent(found) for found in (each.by_calls, each.by_arrays))
            rows.append(Row((each.name, style.name, *sizes, Value(each.seconds, ADDED), *off)))
    titles = ("arrays", "Python calls", "measured", "by calls,\noff by", "by arrays,\noff by")
    columns = (Column(title, number=True) for title in titles)
    rows.sort(key=lambda row: row.cells[:1])
    return Table((Column("model"), Column("style"), *columns), tuple(rows))


def in_percent(found: Range | None) -> str:
    """Return how far a prediction is off, with its interval."""
    if found is None:
        return ""
    value, low, high = (100 * each for each in found)
    return f"{value:+.0f} % ({low:.0f} to {high:.0f})"
