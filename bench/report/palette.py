"""The colours of entrants and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6BB1",
    "#7F7F7F",
    "#882255",
    "#44AA99",
    "#999933",
    "#332288",
)
"""After Okabe and Ito, then Paul Tol; the first are told apart by the colour-blind too."""

OWN = (
    *("pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku"),
    *("keras", "numpy", "penzai", "stax", "torch", "trax"),
)
"""Entrants that have the first colours, whatever else a chart shows."""


def colours_of(entrants: Sequence[str]) -> list[str]:
    """Return a colour for each entrant: the project's own have the same in every chart."""
    others = [entrant for entrant in entrants if entrant not in OWN]
    order = [*OWN, *others]
    return [PALETTE[order.index(entrant) % len(PALETTE)] for entrant in entrants]
