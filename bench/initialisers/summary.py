"""From loss curves to steps to a target, final losses, and their intervals over seeds.

Intervals of medians are from order statistics: they assume nothing of the distribution, and a seed
that never gets there counts as one that takes longest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from scipy import stats

from bench.stats.family import ALPHA
from bench.stats.law import Range

if TYPE_CHECKING:
    from jaxtyping import Float

    from bench.initialisers.losses import Measurement, Start

SMOOTHED = 5
"""Epochs whose mean has to reach the target: each reads another part of the text."""
LAST = 10
"""Epochs whose mean is the final loss."""
MIN_PAIRS = 2
PARTS = (1 / 10, 1 / 3)
"""Of all epochs, after which the first start's median gives the targets, if none are given."""


def table(start: Start, epochs: int) -> Float[np.ndarray, "seeds epochs"]:
    """Return a start's losses by seed; infinite from where a training diverged."""
    rows = [start.losses[seed] for seed in sorted(start.losses)]
    return np.array([row + [math.inf] * (epochs - len(row)) for row in rows]).reshape(-1, epochs)


def smoothed(losses: Float[np.ndarray, "seeds epochs"]) -> Float[np.ndarray, "seeds ends"]:
    """Return means over `SMOOTHED` epochs, or over all if there are fewer, by their last epoch."""
    size = min(SMOOTHED, losses.shape[1])
    return np.lib.stride_tricks.sliding_window_view(losses, size, axis=1).mean(-1)


def steps_to(
    losses: Float[np.ndarray, "seeds epochs"], target: float, steps: int
) -> Float[np.ndarray, " seeds"]:
    """Return how many steps each seed takes to a target; infinite if it does not get there.

    Args:
        losses: By seed and epoch.
        target: That the mean over `SMOOTHED` epochs has to reach, in nats per character.
        steps: Of an epoch.
    """
    reached = smoothed(losses) <= target
    epochs = np.argmax(reached, axis=1) + min(SMOOTHED, losses.shape[1])
    return np.where(reached.any(1), epochs * steps, np.inf)


def final(losses: Float[np.ndarray, "seeds epochs"]) -> Float[np.ndarray, " seeds"]:
    """Return each seed's mean loss over the last epochs."""
    return np.asarray(losses[:, -LAST:].mean(1))


def median(values: Float[np.ndarray, " seeds"], comparisons: int = 1) -> Range:
    """Return the median and its 95 % interval: order statistics, by the binomial distribution.

    Args:
        values: May be infinite.
        comparisons: That hold together (Bonferroni).

    Returns:
        An end is infinite where there are too few values for it, or those are.
    """
    middle = np.sort(values)[(values.size - 1) // 2 : values.size // 2 + 1]
    level = 1 - ALPHA / comparisons
    ends = stats.quantile_test(values, q=0, p=0.5).confidence_interval(level)
    low = float(ends.low) if math.isfinite(ends.low) else -math.inf
    high = float(ends.high) if math.isfinite(ends.high) else math.inf
    return Range(float(middle.mean()), low, high)


def paired(start: Start, base: Start, epochs: int, comparisons: int) -> Range | None:
    """Return the mean difference of final losses of the same seeds, and its interval: Student's t.

    None where fewer than two seeds are in both, or one has diverged.

    Args:
        start: Compared with `base`.
        base: What is subtracted.
        epochs: Of each training.
        comparisons: That hold together (Bonferroni).
    """
    seeds = [seed for seed in start.losses if seed in base.losses]
    ends = [
        final(table(replace(each, losses={seed: each.losses[seed] for seed in seeds}), epochs))
        for each in (start, base)
    ]
    if len(seeds) < MIN_PAIRS or not np.isfinite(ends).all():
        return None
    ours, theirs = (each.tolist() for each in ends)
    found = stats.ttest_rel(ours, theirs).confidence_interval(1 - ALPHA / comparisons)
    return Range(float(np.mean(ends[0] - ends[1])), float(found.low), float(found.high))


def targets(measurement: Measurement) -> list[float]:
    """Return what the first start's median reaches after some parts of the epochs."""
    losses = table(measurement.starts[0], measurement.settings.epochs)
    if not losses.size:
        return []
    middle = np.median(smoothed(losses), axis=0)
    ends = [round(part * (middle.size - 1)) for part in PARTS]
    return list(dict.fromkeys(round(float(middle[end]), 2) for end in ends))
