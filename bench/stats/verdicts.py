"""What an interval allows to be said. Every answer is a property of the one interval that is shown.

All metrics are costs: a ratio above one is slower.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.stats.ratios import Contrasts, Estimate

TIMING, PROGRAM = "timing", "same program"
"""How a verdict was reached: by timing, or by a proof and a known host cost."""
WORKERS = 3
"""That an arm is measured in before it may get fewer turns."""
CLEAR = 2.0
"""Half widths between an interval and the margin of an arm that may get fewer turns."""


class Verdict(StrEnum):
    """What is said about an arm beside the reference."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """The interval is inside the margin, even where it leaves out 1."""
    INCONCLUSIVE = "inconclusive"


def verdict(estimate: Estimate, margin: float) -> Verdict:
    """Return what the interval says.

    Args:
        estimate: With its corrected interval.
        margin: Ratio minus one up to which two times are called equivalent.
    """
    bound = math.log1p(margin)
    if -bound <= estimate.low and estimate.high <= bound:
        return Verdict.EQUIVALENT
    if not estimate.differs:
        return Verdict.INCONCLUSIVE
    return Verdict.SLOWER if estimate.log_ratio > 0 else Verdict.FASTER


def decided(estimate: Estimate, margin: float) -> bool:
    """Return whether an arm may get fewer turns: no likely further datum changes its verdict.

    The interval has to be away from both ends of the margin by `CLEAR` times its half width. An arm
    without a difference gets there on the far side by an error of three half widths only, so that
    looking often costs next to nothing; the arm goes on in some blocks, and all its data count.

    Args:
        estimate: As it is now.
        margin: Ratio minus one up to which two times are called equivalent.
    """
    away = abs(abs(estimate.log_ratio) - math.log1p(margin))
    return estimate.workers >= WORKERS and away >= (1 + CLEAR) * estimate.half_width


def tied(contrasts: Contrasts, first: int, second: int) -> bool:
    """Return whether the corrected interval of the difference of two arms includes zero."""
    difference = abs(contrasts.log_ratio[first] - contrasts.log_ratio[second])
    return bool(difference <= contrasts.half_width[first, second])


def ties(contrasts: Contrasts) -> list[list[int]]:
    """Return arms from fast to slow, in groups in which any two are tied.

    A group begins with the fastest that is left, and takes in who follows as long as it is tied
    with all members. Neighbours of two groups may be tied; two of one group always are.
    """
    import numpy as np  # here, since the types of run files need verdicts, and no array

    known = np.flatnonzero(~np.isnan(contrasts.log_ratio))
    groups: list[list[int]] = []
    for arm in known[np.argsort(contrasts.log_ratio[known], kind="stable")].tolist():
        if groups and all(tied(contrasts, arm, member) for member in groups[-1]):
            groups[-1].append(arm)
        else:
            groups.append([arm])
    return groups
