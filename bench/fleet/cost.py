"""What a comparison takes at least: a line through real runs, made by `bench.fleet.growth`.

The seconds below are of two cores of an EPYC, in 2026-11; `docs/scale.md` says how well the line
fits. What matters is how they grow: with cells, and more with cells over devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.fleet.plan import Comparison

BEGIN, CELL, OVER_DEVICES = 7.0, 2.3, 6.4


def least(comparison: Comparison) -> float:
    """Return the seconds that a comparison needs for the fewest blocks that give an interval."""
    over = comparison.cells - len(comparison.entrants) * len(comparison.styles)
    beside = 2  # the baseline, and the control
    return BEGIN + CELL * (comparison.cells + beside) + OVER_DEVICES * over
