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

    type Record = dict[str, Any]
    """One trial: its four names, microseconds of waiting, the empty loop, and the outcome of each
    of the tool's rules. What was planted is a fraction of the tool's own base side."""

ROWS = Path(__file__).with_name("rows.jsonl")
FEWEST_ESTIMATES = 10
"""Estimates below which an error says too little of the time to find 1 %."""
POWER_ERRORS = 1.96 + 1.28
"""Standard errors that a difference has to be, to be found at 5 % in nine runs of ten."""
POWER_WIDTHS = POWER_ERRORS / 1.96
"""The same, in half lengths of a 95 % interval."""
NORMAL_DEVIATION = 1 / 0.6745
"""Standard deviations of a normal distribution in the median of its deviations."""
INTERVAL = "interval"
"""Rule of this project: a difference is called where the interval excludes none."""
RULES = {"U test of rounds": "single calls, U test"}
"""Rule that is not its tool's → its name: pytest-benchmark's rounds stand for anybody's calls."""
VARIATION = "loops vary by"
"""Field of a row: the fraction by which empty loops vary before the trial."""
DESIGNS = tuple(name for name, plant in PLANTS.items() if plant.without)
"""Plants that try how a tool is designed, where longer trials do not help."""


def read_rows(path: Path = ROWS) -> list[Record]:
    """Return the trials so far."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def find_trial(row: Record) -> Trial:
    """Return which trial of the plan a row is."""
    return Trial(*(row[name] for name in Trial._fields))


class Score(NamedTuple):
    """What the trials of one rule of one tool say."""

    name: str
    calls: dict[str, tuple[int, int]]
    """Plant → trials that called a difference, and all trials. Where the new side is slower, only
    its being slower is a find."""
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

    def find_seconds(self) -> tuple[float, float, float] | None:
        """Return the seconds in which the tool finds 1 % in nine runs of ten, and an interval.

        None from too few trials.
        """
        if len(self.errors) < FEWEST_ESTIMATES:
            return None
        middle, ends, _ = bootstrap_times(self.errors, self.widths)
        return self.seconds * middle, self.seconds * ends[0], self.seconds * ends[1]

    def find_seconds_by_median(self) -> float:
        """Return these seconds as the median of errors has them, for which tails count less."""
        errors = np.full(len(self.errors), NORMAL_DEVIATION * median(self.errors))
        widths = [np.array(self.widths)] if self.widths else []
        return self.seconds * float(find_times(errors, *widths))

    def compare_seconds(self, base: Score) -> tuple[float, float, float]:
        """Return how many times another's seconds to find 1 % these are, and an interval."""
        (middle, _, draws), (of_base, _, draws_of_base) = (
            bootstrap_times(score.errors, score.widths) for score in (self, base)
        )
        # both have the same random numbers: reversed, they are independent
        ratios = draws / draws_of_base[::-1]
        low, high = np.quantile(ratios, (0.025, 0.975))
        share = self.seconds / base.seconds
        return share * middle / of_base, share * float(low), share * float(high)


@cache
def bootstrap_times(
    errors: tuple[float, ...], widths: tuple[float, ...]
) -> tuple[float, tuple[float, float], NDArray[np.float64]]:
    """Return the time to find 1 % in nine runs of ten, in trials; its interval; and its draws.

    By a test of estimates with false calls in 5 of 100, or by the tool's own intervals where these
    are longer than the errors ask for. Both shrink with the root of the time. The interval of 95 %
    is that of the BCa bootstrap (Efron 1987), as errors have heavy tails.
    """
    samples = (errors, widths) if widths else (errors,)
    result = bootstrap(samples, find_times, paired=True, rng=0)
    ends = result.confidence_interval
    middle = float(find_times(*map(np.array, samples)))
    return middle, (float(ends.low), float(ends.high)), result.bootstrap_distribution


def find_times(
    errors: NDArray[np.float64], *widths: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    """Return the time to find 1 %, in trials, along an axis of trials."""
    needed = POWER_ERRORS**2 * np.mean(errors**2, axis=axis)
    for width in widths:
        needed = np.maximum(needed, (POWER_WIDTHS * np.median(width, axis=axis)) ** 2)
    return np.asarray(needed / 0.01**2)


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
                truth = 1 + 1e-6 * row["wait"] / outcome["base"]
                errors.append(abs(outcome["ratio"] / truth - 1))
                if "low" in outcome:
                    low, high = outcome["low"], outcome["high"] or math.inf
                    widths.append((high - low) / 2)
                    held += low <= truth <= high
            name = RULES.get(rule, f"{NAMES[tool]}: {rule}" if rule != INTERVAL else NAMES[tool])
            seconds = median(row["took"] for row, _ in pairs)
            repeated = tuple(errors) in known_errors
            known_errors.add(tuple(errors))
            yield Score(name, calls, tuple(errors), tuple(widths), held, repeated, seconds)
