"""The law of a model's structure: a part for each array, each module and each attribute of one.

The character RNN has as many modules as arrays, so its depths cannot tell one from the other. This
law is fitted to stacks of layers of several kinds, which can, and then checked on models that are
not in the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from bench.report.table import ADDED, EACH, Column, Row, Table, Value
from bench.stats.law import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float

    from bench.cost.table import Checked, CostTable, Counts, StyleCost

STACKS = ("linear", "bare", "norm", "nested")
"""Linear layers alone, linear layers without a bias, layer normalisations, and linear layers that
are each alone in a module: what the law is fitted to."""
CLOSE = 0.15
"""Of a measured cost: a prediction that is off by no more is close."""
LEAST = 4
"""Stacks, for as many unknowns."""
NOTE = (
    "Off by: predicted / measured - 1 over perceptrons and transformers, which are in no fit. "
    "First for steps that compute next to nothing, as the fit's do, then for whole ones: a CPU "
    "that computes evicts Python's data from its caches."
)


class Deviation(NamedTuple):
    """Predicted over measured cost, less one, of models that are in no fit: the least and most."""

    least: float
    most: float

    def around(self, value: float) -> Range:
        """Return a predicted cost, and the range in which it is, if it is off by as much."""
        low, high = (value / (1 + off) for off in (max(0.0, self.most), min(0.0, self.least)))
        return Range(value, low, high)

    def __str__(self) -> str:
        return f"{100 * self.least:+.0f} to {100 * self.most:+.0f} %"


class Structural(NamedTuple):
    """cost = fixed + array * arrays + module * modules + attribute * attributes, in seconds."""

    fixed: float
    array: float
    module: float
    attribute: float

    def at(self, counts: Counts) -> float:
        """Return the cost of a model."""
        return self.fixed + sum(part * count for part, count in zip(self[1:], counts, strict=True))


def fit(checked: Sequence[Checked]) -> Structural | None:
    """Fit the costs of stacks, each weighted by its size; None where there are too few.

    No part costs less than nothing (Lawson and Hanson 1974, non-negative least squares).
    """
    from scipy.optimize import nnls  # which takes a while to import

    stacks = [each for each in checked if each.kind in STACKS]
    if len(stacks) < LEAST:
        return None
    costs = np.array([each.seconds for each in stacks])
    counts: Float[np.ndarray, "stacks parts"] = np.array([(1, *each.counts) for each in stacks])
    found, _ = nnls(counts / np.abs(costs)[:, None], np.sign(costs))
    return Structural(*map(float, found))


def predicted(costs: CostTable, style: StyleCost, counts: Counts) -> Range:
    """Return what a style adds to a step, by the law of its structure or else of its arrays.

    The range is that of models which were in no fit; where there are none, the fit's own.

    Args:
        costs: The table.
        style: One of its styles.
        counts: Of the model; without modules, arrays alone count.
    """
    law = law_of(costs, style) if counts.modules else None
    if law is None:
        found = style.law.at(counts.arrays)
        deviation = off_by_arrays(costs, style)
    else:
        found = Range(*[law.at(counts)] * 3)
        deviation = off_by(costs, style, law.at)
    return deviation.around(found.value) if deviation else found


def law_of(costs: CostTable, style: StyleCost) -> Structural | None:
    """Return the law of a style that costs more than next to nothing, from measured stacks."""
    return fit(of_style(costs, style)) if style.known else None


def off_by_arrays(costs: CostTable, style: StyleCost) -> Deviation | None:
    """Return by how much the law of arrays alone is off."""
    return off_by(costs, style, lambda counts: style.law.at(counts.arrays).value)


def off_by(
    costs: CostTable,
    style: StyleCost,
    law: Callable[[Counts], float],
    whole: Sequence[bool] = (False, True),
) -> Deviation | None:
    """Return by how much a law is off, for a style that costs more than next to nothing.

    Args:
        costs: The table.
        style: One of its styles.
        law: Of counts, in seconds.
        whole: Which steps: whether they compute what the model does.
    """
    if not style.known:
        return None
    models = [each for each in held_out(costs, style) if each.whole in whole and each.low > 0]
    off = [law(each.counts) / each.seconds - 1 for each in models]
    return Deviation(min(off), max(off)) if off and min(off) > -1 else None


def of_style(costs: CostTable, style: StyleCost) -> list[Checked]:
    """Return what a style was measured to add to other models, in time of the table's machine."""
    name, host = (style.entrant, style.style), costs.host
    return [
        replace(c, seconds=c.seconds / host, low=c.low / host, high=c.high / host)
        for c in costs.checked
        if (c.library, c.style) == name
    ]


def held_out(costs: CostTable, style: StyleCost) -> list[Checked]:
    """Return what was measured of a style on models that are in no fit."""
    return [each for each in of_style(costs, style) if each.kind not in STACKS]


def table(costs: CostTable) -> Table:
    """Return the law of each style, and how far it is off beside the law of arrays alone."""
    columns = (
        Column("style"),
        *(Column(t, number=True) for t in ("each array", "each module", "each attribute", "fixed")),
        Column("off by", number=True, help="steps that compute next to nothing"),
        Column("off by,\nwhole", number=True, help="steps that compute what the model does"),
        Column("arrays alone,\noff by", number=True, help="the law of arrays, both kinds of step"),
    )
    rows = []
    for style in sorted(costs.styles, key=lambda style: style.each):
        law = law_of(costs, style)
        if law is not None:
            parts = (*(Value(part, EACH) for part in law[1:]), Value(law.fixed, ADDED))
            off = [off_by(costs, style, law.at, [whole]) for whole in (False, True)]
            off.append(off_by_arrays(costs, style))
            rows.append(Row((style.name, *parts, *(str(each or "") for each in off))))
    return Table(columns, tuple(rows), notes=(NOTE, *elsewhere(costs)))


def elsewhere(costs: CostTable) -> tuple[str, ...]:
    """Return what is to be said of a check on another machine than the table's."""
    if costs.host == 1.0:
        return ()
    return (
        f"Measured where Python takes {costs.host:.2f} times as long as on the table's machine, "
        "and divided by that.",
    )


def agreement(costs: CostTable) -> Table:
    """Return how many predictions of models that are in no fit are close to what was measured.

    A kind of stack is left out of the fit for that.
    """
    close: dict[str, list[tuple[bool, bool]]] = {name: [] for name in ("stack", "", "whole")}
    for style in costs.styles:
        stacks = [each for each in of_style(costs, style) if each.kind in STACKS]
        for each in of_style(costs, style) if style.known else ():
            law = fit([stack for stack in stacks if stack.kind != each.kind])
            if law is not None:
                said = law.at(each.counts), style.law.at(each.counts.arrays).value
                where = "stack" if each.kind in STACKS else "whole" * each.whole
                first, second = (abs(value / each.seconds - 1) <= CLOSE for value in said)
                close[where].append((first, second))
    titles = (
        "stacks of layers, the fit without their kind",
        "perceptrons and transformers, in steps that compute next to nothing",
        "perceptrons and transformers, whole",
    )
    rows = [
        Row((title, *(f"{sum(each)} of {len(found)}" for each in zip(*found, strict=True))))
        for title, found in zip(titles, close.values(), strict=True)
        if found
    ]
    within = f"within {CLOSE:.0%}".replace("%", " %")
    laws = ("arrays, modules and attributes", "arrays alone")
    columns = (Column(f"{law}: {within}", number=True) for law in laws)
    return Table((Column("models and styles"), *columns), tuple(rows))


def each_model(costs: CostTable) -> Table:
    """Return what was predicted, and measured, of each model and style that is in no fit."""
    rows = []
    for style in costs.styles:
        law = law_of(costs, style)
        if law is None:
            continue
        for each in held_out(costs, style):
            said = law.at(each.counts)
            rows.append(
                Row(
                    (
                        *(each.name, *map(str, each.counts), style.name),
                        *(Value(said, ADDED), Value(each.seconds, ADDED, each.low, each.high)),
                        f"{100 * (said / each.seconds - 1):+.0f} %",
                    )
                )
            )
    counts = (Column(title, number=True) for title in ("arrays", "modules", "attributes"))
    ends = (Column(title, number=True) for title in ("predicted", "measured", "off by"))
    columns = (Column("model"), *counts, Column("style"), *ends)
    rows.sort(key=lambda row: row.cells[:1])
    return Table(columns, tuple(rows), notes=elsewhere(costs))
