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
MOST_OFF = 0.2
"""Of what was asked for; a plant that turned out to be further off is no trial of that size."""
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


def points_of(records: Sequence[dict[str, Any]]) -> list[Point]:
    """Return what all runs on the idle machine measured that had planted work: trials as well."""
    found = []
    for record in records:
        outcome = record["found"]
        if record["part"] == "calibration":
            found += [Point(int(n), float(r), float(e)) for n, r, e in outcome["points"]]
        elif planted_by_us(record) and not record["loaded"]:
            seen = outcome["ratio"], outcome["standard_error"]
            found.append(Point(record["iterations"], *seen))
    return found


def planted_by_us(record: dict[str, Any]) -> bool:
    """Tell whether a record is of one of our trials that had something planted."""
    ours = record["part"] == "trial" and record["way"] == "bakeoff"
    return ours and bool(record["iterations"])


def as_asked(record: dict[str, Any], line: Line) -> bool:
    """Tell whether what a trial planted is about the size that was asked for."""
    if not record["percent"]:
        return True
    slowdown, _ = line.at(record["iterations"])
    return abs(100 * slowdown / record["percent"] - 1) <= MOST_OFF
