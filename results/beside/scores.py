"""What trials of tools come to: false calls, finds, errors and time, as a table and charts."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.stats import binomtest

from bench.report.table import Column, Row, Table, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    type Record = dict[str, Any]
    """One trial of a tool: its plant, microseconds of waiting, the empty loop, and the outcome of
    each of its rules. What was planted is a fraction of the tool's own base side."""

ROWS = Path(__file__).with_name("rows.jsonl")
BUDGET = 30
"""Seconds of a trial, for two sides together."""
POWER_ERRORS = 1.96 + 1.28
"""Standard errors that a difference has to be, to be found at 5 % in nine runs of ten."""
CHART_ROW = 22
"""Pixels of a row of a chart."""
NAMES = {
    "pytest_benchmark": "pytest-benchmark",
    "pyperf": "pyperf",
    "asv": "asv",
    "pytest_codspeed": "pytest-codspeed, walltime",
    "google_benchmark": "google-benchmark, interleaved",
    "samples_apart": "one process a side (hyperfine, benchstat)",
    "samples_in_pairs": "calls in pairs (tango's rule)",
    "arms": "this project, two arms",
    "sides": "this project, `ab`",
}
"""Tool → its name in the table, in the order of rows."""


class Plant(NamedTuple):
    """A difference of the new side, and how many trials each tool gets."""

    fraction: float
    microseconds: float
    trials: int
    slower: float = 0.0
    """Fraction of a step by which both sides are slower in the second half of the time."""


PLANTS = {
    "nothing": Plant(0.0, 0.0, 15),
    "+0.5 %": Plant(0.005, 0.0, 0),
    "+1 %": Plant(0.01, 0.0, 10),
    "+5 %": Plant(0.05, 0.0, 5),
    "+20 µs": Plant(0.0, 20.0, 5),
    "slower later": Plant(0.0, 0.0, 5, slower=0.05),
}
"""What is planted. Who measures one side after the other takes `slower later` for a difference."""


def read_rows(path: Path = ROWS) -> list[Record]:
    """Return the trials so far."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


class Score(NamedTuple):
    """What the trials of one rule of one tool say."""

    name: str
    calls: dict[str, tuple[int, int]]
    """Plant → trials that called a difference, and all trials."""
    error: float
    """Root of the mean square of the errors of estimates, as fractions; NaN without any."""
    covered: tuple[int, int]
    """Intervals that hold what was planted, and all intervals."""
    seconds: float
    """Median of a trial."""

    @property
    def seconds_to_find(self) -> float:
        """Seconds in which a test of the estimates finds 1 % in nine runs of ten.

        It has false calls in 5 of 100; the error shrinks with the root of the time.
        """
        return self.seconds * (POWER_ERRORS * self.error / 0.01) ** 2


def score_trials(rows: Sequence[Record]) -> Iterator[Score]:
    """Yield a score for each rule of each tool and each length of trials."""
    for tool, budget in product(NAMES, sorted({row["budget"] for row in rows})):
        mine = [r for r in rows if (r["tool"], r["budget"]) == (tool, budget) and "outcomes" in r]
        for rule in dict.fromkeys(o["rule"] for row in mine for o in row["outcomes"]):
            pairs = [(row, o) for row in mine for o in row["outcomes"] if o["rule"] == rule]
            calls = {}
            for plant in PLANTS:
                called = [o["called"] for row, o in pairs if row["plant"] == plant]
                calls[plant] = sum(called), len(called)
            steady = [pair for pair in pairs if not PLANTS[pair[0]["plant"]].slower]
            truths = [1 + 1e-6 * row["wait"] / o["base"] for row, o in steady]
            outcomes = [o for _, o in steady]
            errors = [o["ratio"] / t - 1 for o, t in zip(outcomes, truths, strict=True)]
            known = [(o, t) for o, t in zip(outcomes, truths, strict=True) if "low" in o]
            held = sum(o["low"] <= t <= (o["high"] or math.inf) for o, t in known)
            name = f"{NAMES[tool]}: {rule}{f', {budget} s' * (budget != BUDGET)}"
            yield Score(
                name,
                calls,
                math.sqrt(fmean(e * e for e in errors)) if errors else math.nan,
                (held, len(known)),
                median(row["seconds"] for row, _ in pairs),
            )


def make_table(rows: Sequence[Record]) -> Table:
    """Return a row for each rule of each tool: its false calls, finds and errors."""
    columns = [Column("tool and rule"), Column("false calls", number=True)]
    columns += [Column(name, number=True) for name in PLANTS if name != "nothing"]
    columns += [
        Column(name, number=True) for name in ("error", "intervals hold", "seconds", "to find 1 %")
    ]
    lines = []
    for score in score_trials(rows):
        held, intervals = score.covered
        lines.append(
            Row(
                (
                    score.name,
                    *(describe_share(*score.calls[plant]) for plant in PLANTS),
                    "" if math.isnan(score.error) else percent(score.error),
                    f"{held} of {intervals}" if intervals else "",
                    f"{score.seconds:.0f}",
                    "" if math.isnan(score.error) else describe_time(score.seconds_to_find),
                )
            )
        )
    return Table(tuple(columns), tuple(lines)).drop_empty_columns()


def describe_time(seconds: float) -> str:
    """Return seconds, minutes or hours in words."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def find_share(calls: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson 1934)."""
    ends = binomtest(calls, count).proportion_ci(method="exact")
    return float(ends.low), float(ends.high)


def describe_share(calls: int, count: int) -> str:
    """Return how many trials called a difference, of how many, and the interval of the share."""
    if not count:
        return ""
    low, high = find_share(calls, count)
    return f"{calls} of {count} ({100 * low:.0f} to {100 * high:.0f} %)"


def draw_charts(rows: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the charts of false calls, and of finds of 1 % against seconds, in Vega-Lite."""
    data: list[Record] = []
    for score in score_trials(rows):
        about: Record = {"tool": score.name, "seconds": score.seconds_to_find}
        for what, plant in (("false", "nothing"), ("found", "+1 %")):
            calls, count = score.calls[plant]
            if count:
                low, high = find_share(calls, count)
                about |= {what: calls / count, f"{what} low": low, f"{what} high": high}
        data.append(about)
    names = {"field": "tool", "type": "nominal", "sort": None, "title": None}
    share = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": "%"}}
    title = "called although nothing was planted"
    first, last = ({"field": f"false {end}"} for end in ("low", "high"))
    false_calls = {
        "height": CHART_ROW * len(data),
        "data": {"values": data},
        "encoding": {"y": names},
        "layer": [
            {"mark": "rule", "encoding": {"x": share | first | {"title": title}, "x2": last}},
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {"x": share | {"field": "false"}},
            },
        ],
    }
    time_axis = {"type": "quantitative", "scale": {"type": "log"}, "axis": {"tickCount": 5}}
    time_title = "seconds to find 1 % in nine runs of ten (extrapolated)"
    power = {
        "height": CHART_ROW * len(data),
        "data": {"values": data},
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {"y": names, "x": time_axis | {"field": "seconds", "title": time_title}},
    }
    return {"false-calls": false_calls, "seconds": power}
