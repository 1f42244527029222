"""What a style costs a model, predicted from the character RNN, and how far that is off.

What a step costs the host is what its Python does, so a model is taken to cost what the RNN costs
whose step runs as many lines of Python; where a model's lines are not known, the RNN that has as
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
    "Off by: predicted / measured - 1, least to most of the models that were checked; first for "
    "steps that compute next to nothing, then for whole ones, by arrays for both."
)


class Size(NamedTuple):
    """What is known of a model."""

    arrays: int
    """Of parameters."""
    lines: Mapping[str, int] = {}
    """Lines of Python that a step runs beyond those of plain JAX's, by style."""


class Deviation(NamedTuple):
    """Predicted over measured cost, less one, of other models than the RNN: the least and most."""

    least: float
    most: float

    def around(self, found: Range) -> Range:
        """Return a predicted cost, its interval wider by as much as others are off.

        Costs that were checked are above zero; of others nothing is known.
        """
        value, low, high = found
        if value <= 0:
            return found
        low = min(low, low / (1 + max(0.0, self.most)))
        return Range(value, low, high / (1 + min(0.0, self.least)))

    def __str__(self) -> str:
        return f"{round(100 * self.least):+d} to {round(100 * self.most):+d} %"


def predicted(costs: CostTable, style: StyleCost, size: Size) -> Range:
    """Return what a style adds to a step of a model, in seconds.

    The range is the RNN's own, wider by how far other models were off that were checked.
    """
    found = by_lines(style, size)
    deviation = off_by(costs, style, by_lines=found is not None)
    found = found or style.law.at(size.arrays)
    return deviation.around(found) if deviation else found


def by_lines(style: StyleCost, size: Size) -> Range | None:
    """Return what a style costs by the lines that a step runs; None where they are not known."""
    lines = size.lines.get(style.style)
    return None if lines is None else style.at_lines(lines)


def off_by(
    costs: CostTable, style: StyleCost, *, by_lines: bool, whole: Sequence[bool] = (False, True)
) -> Deviation | None:
    """Return by how much predictions of a style are off; None where it was not checked.

    Args:
        costs: The table.
        style: One of its styles.
        by_lines: Whether by lines, else by arrays.
        whole: Which steps: whether they compute what the model does.
    """
    models = (each for each in checked(costs, style) if each.whole in whole)
    found = [each.by_lines if by_lines else each.by_arrays for each in models]
    off = [each.value for each in found if each]
    return Deviation(min(off), max(off)) if off and min(off) > -1 else None


def checked(costs: CostTable, style: StyleCost) -> list[Checked]:
    """Return what was measured of a style on other models."""
    name = style.entrant, style.style
    return [each for each in costs.checked if (each.library, each.style) == name]


def table(costs: CostTable) -> Table:
    """Return what a line of Python costs in each style, and how far predictions are off."""
    columns = (
        Column("style"),
        Column("Python lines\nfor each array", number=True, help="of the character RNN"),
        Column("each line", number=True, help="the cost of an array, by its lines"),
        Column("by lines,\noff by", number=True),
        Column("by lines,\nwhole steps", number=True),
        Column("by arrays,\noff by", number=True),
    )
    rows = []
    for style in sorted(costs.styles, key=lambda style: style.each):
        lines = style.lines_of_an_array
        off = [off_by(costs, style, by_lines=True, whole=[whole]) for whole in (False, True)]
        off.append(off_by(costs, style, by_lines=False))
        if style.known and (lines or any(off)):
            cells = (f"{lines:.1f}", Value(style.each / lines, "s")) if lines else ("", "")
            rows.append(Row((style.name, *cells, *(str(each or "") for each in off))))
    notes = (NOTE, f"Measured on {costs.checked_machine}.") if costs.checked else ()
    return Table(columns, tuple(rows), notes=notes).without_empty()


def agreement(costs: CostTable) -> Table:
    """Return how many predictions are close, how many surely are, and how many surely are not.

    Of models and styles that are predicted both ways.
    """
    models = [each for style in costs.styles if style.known for each in checked(costs, style)]
    rows = []
    for whole, name in ((False, "steps that compute next to nothing"), (True, "whole steps")):
        both = [(e.by_lines, e.by_arrays) for e in models if e.whole == whole and e.by_lines]
        cells = [
            f"{sum(found(each) for each in own)} of {len(both)}"
            for own in zip(*both, strict=True)
            for found in (close, surely_close, surely_not_close)
        ]
        if both:
            rows.append(Row((name, *cells)))
    titles = (
        f"by {what}:\n{how}"
        for what in ("lines", "arrays")
        for how in (f"within {percent(CLOSE)}", "surely", "surely not")
    )
    columns = (Column(title, number=True) for title in titles)
    return Table((Column("models"), *columns), tuple(rows))


def close(found: Range) -> bool:
    """Tell whether a prediction is off by little."""
    return abs(found.value) <= CLOSE


def surely_close(found: Range) -> bool:
    """Tell whether all of the interval says that a prediction is off by little."""
    return max(abs(found.low), abs(found.high)) <= CLOSE


def surely_not_close(found: Range) -> bool:
    """Tell whether all of the interval says that a prediction is off by more than that."""
    return found.low > CLOSE or found.high < -CLOSE


def each_model(costs: CostTable) -> Table:
    """Return what was measured of each model and style, and how far predictions are off."""
    rows = []
    for style in costs.styles:
        for each in checked(costs, style):
            sizes = (Value(each.arrays, ""), Value(each.lines, ""))
            off = (in_percent(found) for found in (each.by_lines, each.by_arrays))
            rows.append(Row((each.name, style.name, *sizes, Value(each.seconds, ADDED), *off)))
    titles = ("arrays", "Python lines", "measured", "by lines,\noff by", "by arrays,\noff by")
    columns = (Column(title, number=True) for title in titles)
    rows.sort(key=lambda row: row.cells[:1])
    return Table((Column("model"), Column("style"), *columns), tuple(rows))


def in_percent(found: Range | None) -> str:
    """Return how far a prediction is off, with its interval."""
    if found is None:
        return ""
    value, low, high = (round(100 * each) for each in found)
    return f"{value:+d} % ({low} to {high})"
