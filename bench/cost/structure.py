"""The law of a model's structure: a part for each array, each module and each attribute of one.

The character RNN has as many modules as arrays, so its depths cannot tell one from the other. This
law is fitted to stacks of layers of several kinds, which can, and then checked on models that are
not in the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import nnls

from bench.cells import Arm
from bench.report import wording
from bench.report.table import ADDED, EACH, Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from bench.cost.table import Checked, CostTable, Counts

STACKS = ("linear", "bare", "norm", "nested")
"""Linear layers alone, such without a bias, layer normalisations alone, and linear layers that are
each alone in a module: what the law is fitted to."""
LEAST = 4
"""Stacks, for as many unknowns."""
NOTE = (
    "Off by: predicted over measured cost, less one, of perceptrons and transformers, which are in "
    "no fit; the range over them."
)


class Structural(NamedTuple):
    """cost = fixed + array * arrays + module * modules + field * fields, in seconds."""

    fixed: float
    array: float
    module: float
    field: float

    def at(self, counts: Counts) -> float:
        """Return the cost of a model."""
        return self.fixed + sum(part * count for part, count in zip(self[1:], counts, strict=True))


def fit(checked: Sequence[Checked]) -> Structural | None:
    """Fit the costs of stacks, each weighted by its size; None where there are too few.

    No part costs less than nothing (Lawson and Hanson 1974, non-negative least squares).
    """
    stacks = [each for each in checked if each.kind in STACKS]
    if len(stacks) < LEAST:
        return None
    costs = np.array([each.seconds for each in stacks])
    counts: Float[np.ndarray, "stacks parts"] = np.array([(1, *each.counts) for each in stacks])
    found, _ = nnls(counts / np.abs(costs)[:, None], np.sign(costs))
    return Structural(*map(float, found))


def laws(costs: CostTable) -> dict[tuple[str, str], Structural]:
    """Return the laws of styles that cost more than next to nothing, by library and style."""
    known = [style for style in costs.styles if style.known]
    own = {
        name: [c for c in costs.checked if (c.library, c.style) == name]
        for name in ((style.entrant, style.style) for style in known)
    }
    return {name: law for name, checked in own.items() if (law := fit(checked))}


def table(costs: CostTable) -> Table:
    """Return the law of each style, and how far it is off beside the law of arrays alone."""
    columns = (
        Column("style"),
        *(Column(t, number=True) for t in ("each array", "each module", "each attribute", "fixed")),
        *(Column(t, number=True) for t in ("off by", "arrays alone, off by")),
    )
    return Table(columns, tuple(rows(costs)), notes=(NOTE,))


def rows(costs: CostTable) -> Iterator[Row]:
    """Yield a row for each style that has a law, the dearest array last."""
    for (library, style), law in laws(costs).items():
        others = held_out(costs, library, style)
        alone = costs.by_style[library, style].law
        yield Row(
            (
                wording.name(Arm(library, style)),
                *(Value(part, EACH) for part in law[1:]),
                Value(law.fixed, ADDED),
                spread([law.at(c.counts) / c.seconds - 1 for c in others]),
                spread([alone.at(c.counts.arrays).value / c.seconds - 1 for c in others]),
            )
        )


def held_out(costs: CostTable, library: str, style: str) -> list[Checked]:
    """Return the models that are in no fit."""
    own = [each for each in costs.checked if (each.library, each.style) == (library, style)]
    return [each for each in own if each.kind not in STACKS]


def each_model(costs: CostTable) -> Table:
    """Return what was predicted, and measured, of each model and style that is in no fit."""
    rows = []
    for (library, style), law in laws(costs).items():
        for each in held_out(costs, library, style):
            said = law.at(each.counts)
            rows.append(
                Row(
                    (
                        *(each.name, *map(str, each.counts), wording.name(Arm(library, style))),
                        *(Value(said, ADDED), Value(each.seconds, ADDED, each.low, each.high)),
                        f"{100 * (said / each.seconds - 1):+.0f} %",
                    )
                )
            )
    counts = (Column(title, number=True) for title in ("arrays", "modules", "attributes"))
    ends = (Column(title, number=True) for title in ("predicted", "measured", "off by"))
    columns = (Column("model"), *counts, Column("style"), *ends)
    return Table(columns, tuple(sorted(rows, key=lambda row: row.cells[:1])))


def spread(off: list[float]) -> str:
    """Return the least and the largest of some deviations."""
    return f"{100 * min(off):+.0f} to {100 * max(off):+.0f} %" if off else ""
