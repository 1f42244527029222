"""What planted work costs: a line in its iterations, through every run that measured some."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.selftest.plants import write_entrant
from bench.selftest.trials import WORKLOAD, bench
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaxtyping import Float

ITERATIONS = (2, 10, 20, 40, 80, 160)
"""Of `plants.work`, each measured in a run of its own."""
LEAST = 2
"""From so many on, programs differ in their loop's trip count alone."""


class Point(NamedTuple):
    """What one run measured."""

    iterations: int
    ratio: float
    """To the baseline."""
    standard_error: float
    """Of its logarithm."""


class Line(NamedTuple):
    """Slowdown by iterations: weighted least squares, and what it does not know."""

    base: float
    """Of the loop itself, as a fraction of a step."""
    slope: float
    """Of each iteration."""
    covariance: Float[np.ndarray, "2 2"]

    def at(self, iterations: int) -> tuple[float, float]:
        """Return the slowdown, as a fraction, and its standard error."""
        row = np.array([1.0, iterations])
        return float(self.base + self.slope * iterations), math.sqrt(row @ self.covariance @ row)

    def iterations(self, slowdown: float) -> int:
        """Return how many iterations come nearest to a slowdown."""
        return max(LEAST, round((slowdown - self.base) / self.slope))


def fit(points: Sequence[Point]) -> Line:
    """Return the line through `points`.

    Standard errors count as they are, or larger where the points scatter more than they say.

    Raises:
        BakeoffError: fewer than three points, or all at one number of iterations.
    """
    if len(points) < 3 or len({point.iterations for point in points}) < 2:
        raise BakeoffError(
            f"a line needs three runs at two numbers of iterations; there are {len(points)}: "
            "do the part `calibrate` first"
        )
    iterations, ratio, error = (np.array(column, float) for column in zip(*points, strict=True))
    rows = np.stack([np.ones_like(iterations), iterations], axis=1)
    weights = (ratio * error) ** -2
    covariance = np.linalg.inv(rows.T @ (weights[:, None] * rows))
    line = covariance @ rows.T @ (weights * (ratio - 1))
    away = weights * (ratio - 1 - rows @ line) ** 2
    scatter = max(1.0, float(away.sum()) / (len(points) - 2))
    return Line(float(line[0]), float(line[1]), covariance * scatter)


def calibrate(folder: Path, budget: float) -> dict[str, Any]:
    """Measure what iterations of `work` cost, in runs made as trials are.

    Beside more arms, the baseline and what is added to it lose different shares of their speed,
    which once made the same work 20 % less of a step.

    Args:
        folder: Where to put the entrants and the runs.
        budget: Seconds of each run.
    """
    points = []
    for n in ITERATIONS:
        path = write_entrant(folder / f"work_{n}.py", {"work": f"work({n})"})
        options = [f"--entrant={path}", f"--workload={WORKLOAD}", "--metric=step"]
        cells = bench(folder, *options, f"--budget={budget:g}")["bakeoff"]["cells"]
        [step] = [cell["metrics"]["step"] for cell in cells if cell["entrant"] == path.stem]
        points.append(Point(n, step["ratio"], step["standard_error"]))
    return {"points": [list(point) for point in points]}


def points_of(found: dict[str, Any]) -> list[Point]:
    """Return the points of a calibration."""
    return [Point(int(n), float(ratio), float(error)) for n, ratio, error in found["points"]]
