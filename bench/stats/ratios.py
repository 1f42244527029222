"""Ratios to the baseline, block by block: within a block, everything was interleaved."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ratio(NamedTuple):
    """A time relative to the baseline's, and how far single blocks are from it."""

    ratio: float
    """Exponential of the mean of the blocks' log-ratios of medians."""
    lowest: float
    """Smallest ratio of a block."""
    highest: float
    """Largest ratio of a block."""


def ratio_to_baseline(
    ours: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]
) -> Ratio:
    """Return the ratio of two entrants that were measured in the same blocks.

    Args:
        ours: Seconds, by block and round.
        baseline: The same of the baseline, in the same blocks.
    """
    logs = np.array(
        [np.log(np.median(a) / np.median(b)) for a, b in zip(ours, baseline, strict=True)]
    )
    return Ratio(*(float(np.exp(value)) for value in (logs.mean(), logs.min(), logs.max())))
