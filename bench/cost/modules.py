"""Do modules explain a host cost better than arrays alone? Both laws, on models of neither fit.

The character RNN has a module for each array, so its depths cannot tell one from the other. Linear
layers alone have half as many. Fitted to both, a law gives each array and each module its part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.cells import Arm
from bench.report import wording
from bench.report.table import ADDED, EACH, Column, Row, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float

    from bench.cost.table import Checked, CostTable, StyleCost

LAYERS = "layers"
"""Kind of model that is in the second fit; it is `bench.cost.models`'s."""
CONTAINERS = {"equinox": 2, "flax_linen": 2, "flax_nnx": 3}
"""Modules of the RNN beside its cells and their layers: itself, the readout, and NNX's list."""
NOTE = (
    "Off by: the range of predicted over measured cost, less one, of perceptrons and transformers, "
    "which neither law was fitted to."
)


class WithModules(NamedTuple):
    """cost = fixed + array * arrays + module * modules, in seconds."""

    fixed: float
    array: float
    module: float

    def at(self, arrays: int, modules: int) -> float:
        """Return the cost of a model."""
        return self.fixed + self.array * arrays + self.module * modules


def fit(style: StyleCost, checked: list[Checked]) -> WithModules | None:
    """Fit a style's costs, each weighted by its size; None without models of linear layers."""
    layers = [each for each in checked if each.model.startswith(LAYERS)]
    if not layers:
        return None
    extra = CONTAINERS[style.entrant]
    rows = [(1, p.arrays, p.arrays - 2 + extra, p.seconds) for p in style.measured]
    rows += [(1, each.arrays, each.modules, each.seconds) for each in layers]
    table: Float[np.ndarray, "models 4"] = np.array(rows, float)
    weights = 1 / np.abs(table[:, 3])
    found, *_ = np.linalg.lstsq(table[:, :3] * weights[:, None], np.sign(table[:, 3]), rcond=None)
    return WithModules(*map(float, found))


def table(costs: CostTable) -> Table:
    """Return both laws of the styles that cost anything, and how far each of them is off."""
    columns = (
        Column("style"),
        *(Column(t, number=True) for t in ("each array", "each module", "fixed")),
        *(Column(t, number=True) for t in ("off by, arrays and modules", "off by, arrays alone")),
    )
    return Table(columns, tuple(rows(costs)), notes=(NOTE,))


def rows(costs: CostTable) -> Iterator[Row]:
    """Yield a row for each style whose cost of an array is known."""
    for style in sorted(costs.styles, key=lambda style: style.each):
        checked = [c for c in costs.checked if (c.library, c.style) == (style.entrant, style.style)]
        others = [each for each in checked if not each.model.startswith(LAYERS)]
        found = fit(style, checked) if style.known else None
        if found is not None and others:
            both = [found.at(c.arrays, c.modules) / c.seconds - 1 for c in others]
            alone = [style.law.at(c.arrays).value / c.seconds - 1 for c in others]
            yield Row(
                (
                    wording.name(Arm(style.entrant, style.style)),
                    Value(found.array, EACH),
                    Value(found.module, EACH),
                    Value(found.fixed, ADDED),
                    spread(both),
                    spread(alone),
                )
            )


def spread(off: list[float]) -> str:
    """Return the least and the largest of some deviations."""
    return f"{100 * min(off):+.0f} to {100 * max(off):+.0f} %"
