"""What a budget can tell in this hour, by how much single calls vary in its first seconds."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from bench.cells import REFERENCE
from bench.estimates import ALPHA, POWER, grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.samples import Sample
    from bench.worker.protocol import WorkerSample

TAIL = 1.645
"""Standard deviations of a normal variable between its median and its 95 % quantile."""
EXCESS = 1.5
"""Factor by which estimates vary more than so many independent turns would: by blocks and workers,
and since half of the turns count."""


def variation(samples: Sequence[Sample | WorkerSample]) -> float:
    """Return how much single calls vary: the standard deviation of their logarithm.

    It is read off the median and the 95 % quantile of each block's calls, so that a rare long call
    does not count; the median over blocks and arms.
    """
    ratios = [s.p95 / s.median for s in samples if s.p95 and s.median]
    return math.log(statistics.median(ratios)) / TAIL if ratios else 0.0


def detectable_after(samples: Sequence[Sample], times: float, *, pairs: bool = False) -> float:
    """Return about which difference is found in four runs of five, with more samples like these.

    Args:
        samples: Of steps of one workload, of a first visit.
        times: How many times as many there will be.
        pairs: Whether two sides take turns; otherwise arms are compared with the references.

    Returns:
        A fraction; infinite where nothing is known.
    """
    arms = grouped(((s.environment, s.cell), s.calls) for s in samples)
    others = [key for key in arms if key[1].arm not in REFERENCE]
    if not others:
        return math.inf
    calls = times * statistics.median(sum(arms[key]) for key in others)
    references = 1 if pairs else max(1, len(arms) - len(others))
    return smallest(variation(samples), calls, len(others) // (1 + pairs), references)


def smallest(varies: float, calls: float, members: int, references: int = 2) -> float:
    """Return about which difference is found in four runs of five.

    Args:
        varies: By how much single calls do.
        calls: Timed ones of each arm.
        members: Arms that are compared together.
        references: Copies of what each is compared with.

    Returns:
        A fraction; infinite where nothing is known.
    """
    from scipy import special  # takes a third of a second to import

    needed = float(special.ndtri(1 - ALPHA / 2 / max(1, members)) + special.ndtri(POWER))
    found = EXCESS * needed * math.sqrt((1 + 1 / references) / max(1.0, calls)) * varies
    return found or math.inf
