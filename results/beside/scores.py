"""What trials of tools come to: false calls, finds, errors and time, as a table and charts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.stats import binomtest

from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, percent
from results.beside.plan import MAIN, NAMES, PARTS, PLANTS, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from results.beside.plan import Part

    type Record = dict[str, Any]
    """One trial: its four names, microseconds of waiting, the empty loop, and the outcome of each
    of the tool's rules. What was planted is a fraction of the tool's own base side."""

ROWS = Path(__file__).with_name("rows.jsonl")
POWER_ERRORS = 1.96 + 1.28
"""Standard errors that a difference has to be, to be found at 5 % in nine runs of ten."""
INTERVAL = "interval"
"""Rule of this project: a difference is called where the interval excludes none."""
CHART_ROW = 22
"""Pixels of a row of a chart."""
DESIGNS = tuple(name for name, plant in PLANTS.items() if plant.without)
"""Plants that try how a tool is designed, which no longer trial mends."""


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
    """Plant → trials that called a difference, and all trials."""
    error: float
    """Root of the mean square of the errors of estimates, as fractions; NaN without any."""
    covered: tuple[int, int]
    """Intervals that hold what was planted, and all intervals."""
    seconds: float
    """Median of what a trial took."""

    @property
    def seconds_to_find(self) -> float:
        """Seconds in which a test of the estimates finds 1 % in nine runs of ten.

        It has false calls in 5 of 100; the error shrinks with the root of the time.
        """
        return self.seconds * (POWER_ERRORS * self.error / 0.01) ** 2


def score_trials(rows: Sequence[Record], part: Part = MAIN) -> Iterator[Score]:
    """Yield a score for each rule of each tool, from one part of the plan."""
    size = part.workload, part.seconds
    for tool in part.tools:
        rows_of_tool = [
            row
            for row in rows
            if (row["tool"], row["workload"], row["seconds"]) == (tool, *size) and "outcomes" in row
        ]
        for rule in dict.fromkeys(o["rule"] for row in rows_of_tool for o in row["outcomes"]):
            pairs = [(row, o) for row in rows_of_tool for o in row["outcomes"] if o["rule"] == rule]
            calls = {}
            for plant in PLANTS:
                called = [o["called"] for row, o in pairs if row["plant"] == plant]
                calls[plant] = sum(called), len(called)
            known = [(row, o) for row, o in pairs if row["plant"] not in DESIGNS]
            truths = [1 + 1e-6 * row["wait"] / o["base"] for row, o in known]
            outcomes = [o for _, o in known]
            errors = [o["ratio"] / t - 1 for o, t in zip(outcomes, truths, strict=True)]
            ends = [(o, t) for o, t in zip(outcomes, truths, strict=True) if "low" in o]
            held = sum(o["low"] <= t <= (o["high"] or math.inf) for o, t in ends)
            yield Score(
                f"{NAMES[tool]}: {rule}" if rule != INTERVAL else NAMES[tool],
                calls,
                math.sqrt(fmean(e * e for e in errors)) if errors else math.nan,
                (held, len(ends)),
                median(row["took"] for row, _ in pairs),
            )


def describe_trials(rows: Sequence[Record]) -> Iterator[str]:
    """Yield the tables of all trials in Markdown, and in which hours they were made."""
    for part in PARTS:
        table = make_table(score_trials(rows, part))
        if table.rows:
            yield f"**A step at `{part.workload}`, {part.seconds} seconds for two sides:**\n"
            yield from table_lines(table)
            yield ""
    designs = make_table(score_trials(rows), DESIGNS)
    if designs.rows:
        yield "**What more time does not mend:**\n"
        yield from table_lines(designs)
        yield ""
    days = sorted({row["when"][:10] for row in rows})
    loops = sorted(row["loop"] for row in rows)
    if rows:
        period = " to ".join(dict.fromkeys((days[0], days[-1])))
        yield (
            f"{len(rows)} trials, {period}. An empty loop of 10,000 turns took "
            f"{loops[0]:.0f} to {loops[-1]:.0f} µs, {median(loops):.0f} in the median."
        )


def make_table(scores: Iterator[Score], plants: Sequence[str] | None = None) -> Table:
    """Return a row for each score: false calls, finds and errors, or calls of some plants alone."""
    kept = plants or [name for name in PLANTS if name not in DESIGNS]
    columns = [Column("tool and rule")]
    columns += [Column("false calls" if name == "nothing" else name, number=True) for name in kept]
    if plants is None:
        columns += [
            Column(name, number=True)
            for name in ("error", "intervals hold", "seconds", "to find 1 %")
        ]
    lines = []
    for score in scores:
        cells = [score.name, *(describe_share(*score.calls[name]) for name in kept)]
        if plants is None:
            held, intervals = score.covered
            cells += [
                "" if math.isnan(score.error) else percent(score.error),
                f"{held} of {intervals}" if intervals else "",
                f"{score.seconds:.0f}",
                "" if math.isnan(score.error) else describe_time(score.seconds_to_find),
            ]
        if any(cells[1:]):
            lines.append(Row(tuple(cells)))
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
        about: Record = {"tool": score.name.replace("`", ""), "seconds": score.seconds_to_find}
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
