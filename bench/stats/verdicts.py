"""What an interval allows to be said. Every answer is a property of the one interval that is shown.

All metrics are costs: a ratio above one is slower.
"""

from __future__ import annotations

import math
from enum import StrEnum


class Verdict(StrEnum):
    """What is said about a value beside its reference."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    """The interval is inside the margin, even where it leaves out no difference."""
    INCONCLUSIVE = "inconclusive"


def verdict(log_ratio: float, low: float, high: float, margin: float) -> Verdict:
    """Return what an interval says.

    Args:
        log_ratio: Above zero: slower.
        low: Lower end of its interval.
        high: Upper end.
        margin: Ratio minus one up to which two times are called equivalent.
    """
    bound = math.log1p(margin)
    if -bound <= low and high <= bound:
        return Verdict.EQUIVALENT
    if low <= 0 <= high:
        return Verdict.INCONCLUSIVE
    return Verdict.SLOWER if log_ratio > 0 else Verdict.FASTER
