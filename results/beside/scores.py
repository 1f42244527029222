"""What trials of tools come to: false calls, finds, errors, and the time to find 1 %."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from results.beside.plan import MAIN, NAMES, PLANTS, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from results.beside.plan import Part

    type Numbers = tuple[float, ...]

    type Record = dict[str, Any]
    """One trial: its four names, microseconds of waiting, the empty loop, and the outcome of each
    of the tool's rules. What was planted is a fraction of the tool's own base side."""

ROWS = Path(__file__).with_name("rows.jsonl")
FEWEST_ESTIMATES = 10
"""Number of estimates below which errors say too little about the time to find 1 %."""
CALL_ERRORS = 1.96
"""Standard errors from which a difference is called, with false calls in 5 of 100."""
POWER_ERRORS = 1.28
"""Standard errors by which a difference has to be larger, to be called in nine runs of ten."""
NORMAL_DEVIATION = 1 / 0.6745
"""Standard deviations of a normal distribution in the median of its deviations."""
INTERVAL = "interval"
"""Rule of this project: a difference is called if the interval of the ratio excludes 1."""
RULES = {"U test of rounds": "single calls, U test"}
"""Rule that its tool does not have → its name: pytest-benchmark's rounds serve as single calls."""
VARIATION = "loops vary by"
"""Field of a row: the fraction by which empty loops vary before the trial."""
DESIGNS = tuple(name for name, plant in PLANTS.items() if plant.without)
"""Plants that some tools cannot have or cannot find: changes of more than a step."""


def read_rows(path: Path = ROWS) -> list[Record]:
    """Return the trials so far."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def find_trial(row: Record) -> Trial:
    """Return which trial of the plan a row is."""
    return Trial(*(row[name] for name in Trial._fields))


def find_truth(row: Record, outcome: Record) -> float:
    """Return the ratio of the sides that was planted, by the tool's own time of the base side."""
    return 1 + 1e-6 * float(row["wait"]) / float(outcome["base"])


def find_error(row: Record, outcome: Record) -> float:
    """Return by what fraction of the planted ratio an estimate is larger."""
    return float(outcome["ratio"]) / find_truth(row, outcome) - 1


class Score(NamedTuple):
    """What the trials of one rule of one tool say."""

    name: str
    calls: dict[str, tuple[int, int]]
    """Plant → trials that called a difference, and all trials. If the new side is slower, a trial
    counts only if it called that side slower."""
    errors: tuple[float, ...]
    """Errors of estimates with a known truth, as fractions, without their signs."""
    widths: tuple[float, ...]
    """Half lengths of the intervals of these trials, as fractions; none if the tool has none."""
    held: int
    """Intervals that hold what was planted."""
    repeated: bool
    """Whether a rule of the tool that stands before it has the same estimates."""
    seconds: float
    """Median of what a trial took."""
    base: float
    """Median of the seconds of the base side's step, as the tool measured it."""

    def find_seconds(self) -> tuple[float, float, float] | None:
        """Return the seconds in which the tool finds 1 % in nine runs of ten, and an interval.

        None from too few trials.
        """
        if len(self.errors) < FEWEST_ESTIMATES:
            return None
        middle, low, high = bootstrap_times((self.errors, self.widths))
        return self.seconds * middle, self.seconds * low, self.seconds * high

    def find_seconds_by_median(self) -> float:
        """Return these seconds, computed from the median error, so that tails count less."""
        errors = np.array([NORMAL_DEVIATION * median(self.errors)])
        return self.seconds * float(find_times(errors, np.array(self.widths)))

    def compare_seconds(self, base: Score) -> tuple[float, float, float]:
        """Return how many times another's seconds to find 1 % these are, and an interval."""
        samples = [(score.errors, score.widths) for score in (self, base)]
        middle, low, high = bootstrap_times(*samples)
        share = self.seconds / base.seconds
        return share * middle, share * low, share * high


@cache
def bootstrap_times(*samples: tuple[Numbers, Numbers]) -> tuple[float, float, float]:
    """Return the time to find 1 % in nine runs of ten, in trials, and its 95 % interval.

    A sample is the errors of a tool's estimates, and the half lengths of their intervals. With two
    samples, the result is the ratio of the first time to the second. The interval is that of the
    BCa bootstrap (Efron 1987), because errors have heavy tails.
    """

    def find_ratio(*indices: NDArray[np.int_], axis: int = -1) -> NDArray[np.float64]:
        times = [
            find_times(np.array(errors)[chosen], np.array(widths)[chosen if widths else ()], axis)
            for (errors, widths), chosen in zip(samples, indices, strict=True)
        ]
        return times[0] if len(times) == 1 else times[0] / times[1]

    # trials are drawn, not errors and lengths: these two belong together
    indices = [np.arange(len(errors)) for errors, _ in samples]
    ends = bootstrap(indices, find_ratio, rng=0).confidence_interval
    return float(find_ratio(*indices)), float(ends.low), float(ends.high)


def find_times(
    errors: NDArray[np.float64], widths: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Return the time to find 1 %, in trials, along an axis of trials.

    A difference is called from 1.96 standard errors on, or from the half length of the tool's own
    intervals, if it has any and that is more. Both shrink with the root of the time.
    """
    deviation = np.sqrt(np.mean(errors**2, axis=axis))
    called = CALL_ERRORS * deviation
    if widths.size:
        called = np.maximum(called, np.median(widths, axis=axis))
    return np.asarray(((called + POWER_ERRORS * deviation) / 0.01) ** 2)


def score_trials(rows: Sequence[Record], part: Part = MAIN) -> list[Score]:
    """Return a score for each rule of each tool, from one part of the plan, the fastest first."""
    return sorted(
        _score_rules(rows, part), key=lambda score: (score.find_seconds() or [math.inf])[0]
    )


def _score_rules(rows: Sequence[Record], part: Part) -> Iterator[Score]:
    for tool in part.tools:
        size = (tool, part.workload, part.seconds)
        rows_of_tool = [
            row
            for row in rows
            if (row["tool"], row["workload"], row["seconds"]) == size and "outcomes" in row
        ]
        known_errors = set()
        for rule in dict.fromkeys(o["rule"] for row in rows_of_tool for o in row["outcomes"]):
            pairs = [(row, o) for row in rows_of_tool for o in row["outcomes"] if o["rule"] == rule]
            calls: dict[str, tuple[int, int]] = dict.fromkeys(PLANTS, (0, 0))
            errors, widths, held = list[float](), list[float](), 0
            for row, outcome in pairs:
                count, trials = calls[row["plant"]]
                slower = outcome["ratio"] > 1 or not PLANTS[row["plant"]].is_slower
                calls[row["plant"]] = count + (outcome["called"] and slower), trials + 1
                if row["plant"] in DESIGNS:
                    continue
                errors.append(abs(find_error(row, outcome)))
                if "low" in outcome:
                    low, high = outcome["low"], outcome["high"] or math.inf
                    widths.append((high - low) / 2)
                    held += low <= find_truth(row, outcome) <= high
            name = RULES.get(rule, f"{NAMES[tool]}: {rule}" if rule != INTERVAL else NAMES[tool])
            seconds = median(row["took"] for row, _ in pairs)
            base = median(outcome["base"] for _, outcome in pairs)
            repeated = tuple(errors) in known_errors
            known_errors.add(tuple(errors))
            numbers = (tuple(errors), tuple(widths), held, repeated, seconds, base)
            yield Score(name, calls, *numbers)
