"""A series in one line of text: noise looks flat, and what moves is seen to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

LEVELS = "▁▂▃▄▅▆▇"
"""An odd number: what wobbles around the middle stays in it."""


def sparkline(
    values: Float[np.ndarray, " points"],
    at: Int[np.ndarray, " points"],
    places: int,
    width: int,
    least: float,
) -> str:
    """Return values as a line of blocks, a blank where there is none.

    Several places share a character, as their mean, where there are more of them than width.

    Args:
        values: Positive for a logarithmic scale; NaN where there is none.
        at: The place of each value.
        places: Of the whole line.
        width: Most characters.
        least: Distance, of logarithms if they are taken, that fills the height at least.
    """
    there = np.isfinite(values)
    if not there.any():
        return ""
    heights = values[there]
    if (heights > 0).all():
        heights = np.log(heights)
    width = min(width, places)
    columns = at[there] * width // places
    counts = np.bincount(columns, minlength=width)
    sums = np.bincount(columns, heights, minlength=width)
    means = np.divide(sums, counts, out=np.full(width, np.nan), where=counts > 0)
    low, high = np.nanmin(means), np.nanmax(means)
    extra = max(0.0, least - (high - low)) / 2
    low, high = low - extra, high + extra
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    middle = (len(LEVELS) - 1) // 2 if not scale else 0
    return "".join(
        " " if np.isnan(mean) else LEVELS[middle + round((mean - low) * scale)] for mean in means
    )
