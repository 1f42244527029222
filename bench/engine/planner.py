"""How a budget is shared out: pure arithmetic on what things cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

MIN_VISITS = 3
"""Workers that measure a step before anything else gets time: with fewer, what a process adds to
an arm is a guess."""
MIN_COLD = 5
"""Cold samples of a cell, or none: two gave intervals such as 1 (0 to 9)."""
MOST_COLD = 15
COLD_SHARE, TRAINING_SHARE, COUNT_SHARE, HOST_SHARE, PREPARED_SHARE = 0.5, 0.15, 0.1, 0.2, 0.15
"""Of the time that is left after the fewest visits, where steps are measured too."""
ALONE = 0.95
"""The same share, where nothing else is asked for."""
LONG = 2.6
"""Seconds of blocks in a visit, for each second that it takes to open it. At `seed` a block varies
by 1.75 % within a worker and a worker by 0.65 %, so that on two cores anything from 1.5 to 4 is as
precise for the same time, and longer visits leave more of it to samples."""
OPEN_SHARE = 0.45
"""Of the budget: a further workload is proven only if that and what came before takes no more."""

PROVE_FIRST, PROVE_SHARE = 0.6, 0.42
"""Of the budget, after which the first workers prove no more arms of the first workload, and of the
others: they measure what they have."""


@dataclass(frozen=True)
class Guess:
    """Seconds that things take before they have been seen: a 2-core EPYC, one core each."""

    load: float = 3.0
    """To start a worker and import."""
    prove: float = 1.3
    """One arm at one workload, on one core."""
    prove_all_cores: float = 1.0
    cold: float = 3.2


class Length(NamedTuple):
    """How a time is cut into visits."""

    number: int
    each: float
    """Seconds of blocks in a visit, on one lane."""


def visits(seconds: float, opening: float, least: float, lanes: int = 1) -> Length:
    """Cut a time into visits.

    Args:
        seconds: What there is, on each lane.
        opening: Seconds that it takes to open a visit's workers.
        least: Seconds of one block of each turn.
        lanes: At the same time.

    Returns:
        None at all where the time is too short for one.
    """
    if seconds < opening + least:
        return Length(0, 0.0)
    each = max(least, LONG * opening)
    count = max(1, math.floor(seconds / (opening + each)))
    while count * lanes < MIN_VISITS and seconds / (count + 1) >= opening + least:
        count += 1
    return Length(count * lanes, seconds / count - opening)


def cold_count(seconds: float, sweep: float, asked: int | None = None) -> int:
    """Return how many samples of each cell fit into a time: at least five, or none.

    Args:
        seconds: What they may take.
        sweep: Seconds of one sample of each cell.
        asked: A number that was given, whatever it takes.
    """
    if asked is not None:
        return asked
    count = int(seconds / sweep) if sweep else 0
    return min(MOST_COLD, count) if count >= MIN_COLD else 0
