"""What trials of tools come to: false calls, finds, errors and time, as a table and charts."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import binomtest, bootstrap

from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, percent
from results.beside.plan import MAIN, NAMES, PARTS, PLANTS, Trial, list_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
INTERVAL = "interval"
"""Rule of this project: a difference is called where the interval excludes none."""
VARIATION = "loops vary by"
"""Field of a row: the fraction by which empty loops vary before the trial."""
CHART_ROW = 22
"""Pixels of a row of a chart."""
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
    repeated: bool
    """Whether a rule of the tool that stands before it has the same estimates."""
    covered: tuple[int, int]
    """Intervals that hold what was planted, and all intervals."""
    width: float
    """Median of half an interval's length, as a fraction: infinite where it has no end, 0 where the
    tool has none."""
    seconds: float
    """Median of what a trial took."""

    @property
    def error(self) -> float:
        """Root of the mean square of errors."""
        return math.sqrt(fmean(e * e for e in self.errors))

    def find_seconds(self) -> tuple[float, float, float] | None:
        """Return the seconds in which the tool finds 1 % in nine runs of ten.

        By a test of its estimates with false calls in 5 of 100, or by its own interval where that
        is longer than the errors ask for. Both shrink with the root of the time. The second and
        third number are the ends of the 95 % interval, by the bootstrap of the errors' squares
        (BCa, Efron 1987), as errors have heavy tails. None from too few trials.
        """
        if len(self.errors) < FEWEST_ESTIMATES:
            return None
        squares = [e * e for e in self.errors]
        ends = bootstrap((squares,), np.mean, rng=0).confidence_interval
        middle, low, high = (
            self.seconds * max(square * POWER_ERRORS**2, (self.width * POWER_WIDTHS) ** 2) / 1e-4
            for square in (fmean(squares), float(ends.low), float(ends.high))
        )
        return middle, low, high


def score_trials(rows: Sequence[Record], part: Part = MAIN) -> list[Score]:
    """Return a score for each rule of each tool, from one part of the plan, the fastest first."""
    return sorted(
        _score_rules(rows, part), key=lambda score: (score.find_seconds() or [math.inf])[0]
    )


def _score_rules(rows: Sequence[Record], part: Part) -> Iterator[Score]:
    size = part.workload, part.seconds
    for tool in part.tools:
        rows_of_tool = [
            row
            for row in rows
            if (row["tool"], row["workload"], row["seconds"]) == (tool, *size) and "outcomes" in row
        ]
        known_errors = set()
        for rule in dict.fromkeys(o["rule"] for row in rows_of_tool for o in row["outcomes"]):
            pairs = [(row, o) for row in rows_of_tool for o in row["outcomes"] if o["rule"] == rule]
            calls = {}
            for name, plant in PLANTS.items():
                called = [
                    o["called"] and (o["ratio"] > 1 or not plant.is_slower)
                    for row, o in pairs
                    if row["plant"] == name
                ]
                calls[name] = sum(called), len(called)
            known = [(row, o) for row, o in pairs if row["plant"] not in DESIGNS]
            truths = [1 + 1e-6 * row["wait"] / o["base"] for row, o in known]
            outcomes = [o for _, o in known]
            errors = [abs(o["ratio"] / t - 1) for o, t in zip(outcomes, truths, strict=True)]
            widths = [((o["high"] or math.inf) - o["low"]) / 2 for o in outcomes if "low" in o]
            ends = [(o, t) for o, t in zip(outcomes, truths, strict=True) if "low" in o]
            held = sum(o["low"] <= t <= (o["high"] or math.inf) for o, t in ends)
            repeated = tuple(errors) in known_errors
            known_errors.add(tuple(errors))
            yield Score(
                f"{NAMES[tool]}: {rule}" if rule != INTERVAL else NAMES[tool],
                calls,
                tuple(errors),
                repeated,
                (held, len(ends)),
                median(widths) if widths else 0.0,
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
            yield from describe_plants(rows, part)
    main = [row for row in rows if find_trial(row)[2:] == MAIN[:2]]
    if main:
        limit = median(row[VARIATION] for row in main)
        hours = {
            "quieter": [row for row in main if row[VARIATION] <= limit],
            "busier": [row for row in main if row[VARIATION] > limit],
        }
        most = f"quieter: before a trial, empty loops varied by at most {percent(limit)}"
        size = f"A step at `{MAIN.workload}`, {MAIN.seconds} seconds"
        yield f"**{size}, in quieter and busier hours** ({most}):\n"
        yield from table_lines(make_hours_table(main, hours))
        yield ""
        yield from describe_goal({"in all hours": main} | hours)
    designs = make_table(score_trials(rows), DESIGNS)
    if designs.rows:
        yield "**What more time does not mend:**\n"
        yield from table_lines(designs)
        yield ""
    if rows:
        yield " ".join(describe_conditions(rows))


def describe_goal(hours: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Yield, for hours, how many times the seconds of `ab` each other tool takes to find 1 %."""
    for name, rows in hours.items():
        times = {score.name: score.find_seconds() for score in score_trials(rows)}
        base = times.pop(NAMES["sides"], None)
        shares = {tool.partition(":")[0]: t[0] / base[0] for tool, t in times.items() if base and t}
        if shares:
            each = ", ".join(f"{tool} {share:.2g}" for tool, share in shares.items())
            yield f"To find 1 %, in times of the seconds of `ab`, {name}: {each}.\n"


def describe_plants(rows: Sequence[Record], part: Part) -> Iterator[str]:
    """Yield of how much of the tools' own steps a wait was that is a fraction of a step."""
    for name in part.trials:
        waits = [
            1e-6 * row["wait"] / outcome["base"]
            for row in rows
            if find_trial(row)[1:] == (name, part.workload, part.seconds) and PLANTS[name].fraction
            for outcome in row.get("outcomes", ())
        ]
        if waits and name not in DESIGNS:
            ends = dict.fromkeys(
                percent(end).removesuffix(" %") for end in (min(waits), max(waits))
            )
            shares = f"{' to '.join(ends)} % of the base side's time, as tools measured it"
            yield f"What is planted as {name} was {shares}.\n"


def describe_conditions(rows: Sequence[Record]) -> Iterator[str]:
    """Yield how much of the plan is done, when, and on which machine in which hours."""
    made, planned = Counter(map(find_trial, rows)), Counter(list_trials())
    done = (made & planned).total()
    days = sorted({row["when"][:10] for row in rows})
    period = " to ".join(dict.fromkeys((days[0], days[-1])))
    machines = dict.fromkeys(f"{r['machine']}, jax {r['versions']['jax']}" for r in rows)
    yield f"{done} of {planned.total()} planned trials so far, {period}, on {'; '.join(machines)}."
    failed = Counter(NAMES[row["tool"]] for row in rows if "failed" in row)
    if failed:
        yield f"Failed: {', '.join(f'{count} of {name}' for name, count in failed.items())}."
    loops = sorted(row["loop"] for row in rows)
    yield (
        f"An empty loop of 10,000 turns took {loops[0]:.0f} to {loops[-1]:.0f} µs, "
        f"{median(loops):.0f} in the median."
    )
    varied = [row[VARIATION] for row in rows]
    yield (
        f"Before a trial, it varied by {percent(min(varied))} to {percent(max(varied))}, "
        f"{percent(median(varied))} in the median."
    )


def make_table(scores: Sequence[Score], plants: Sequence[str] | None = None) -> Table:
    """Return a row for each score: false calls, finds and errors, or calls of some plants alone."""
    kept = plants or [name for name in PLANTS if name not in DESIGNS]
    lines = []
    for score in scores:
        cells = {"tool and rule": score.name}
        cells |= {} if plants else {"to find 1 %": describe_times(score)}
        cells |= {name: describe_share(*score.calls[name]) for name in kept}
        if plants is None:
            cells |= describe_errors(score)
            cells["seconds"] = f"{score.seconds:.0f}"
        if any([*cells.values()][1:]):
            lines.append(cells)
    first, *others = lines[0] if lines else ("",)
    heads = ("false calls" if name == "nothing" else name for name in others)
    columns = (Column(first), *(Column(head, number=True) for head in heads))
    rows = tuple(Row(tuple(cells.values())) for cells in lines)
    return Table(columns, rows).drop_empty_columns()


def make_hours_table(rows: Sequence[Record], hours: Mapping[str, Sequence[Record]]) -> Table:
    """Return false calls, and the time to find 1 %, in quieter and in busier hours."""
    cells: dict[str, dict[str, str]] = {score.name: {} for score in score_trials(rows)}
    for name, chosen in hours.items():
        for score in score_trials(chosen):
            row = cells[score.name]
            row[f"false calls, {name}"] = describe_share(*score.calls["nothing"])
            row[f"to find 1 %, {name}"] = describe_times(score)
    heads = [f"{what}, {name}" for what in ("false calls", "to find 1 %") for name in hours]
    columns = (Column("tool and rule"), *(Column(head, number=True) for head in heads))
    lines = [Row((name, *(row.get(head, "") for head in heads))) for name, row in cells.items()]
    kept = (line for line in lines if any(line.cells[1:]))
    return Table(columns, tuple(kept)).drop_empty_columns()


def describe_times(score: Score) -> str:
    """Return the time to find 1 % with its interval; nothing where it is not known, or known."""
    times = score.find_seconds()
    if times is None or score.repeated:
        return ""
    middle, low, high = map(describe_time, times)
    return middle if low == high else f"{middle} ({low} to {high})"


def describe_errors(score: Score) -> dict[str, str]:
    """Return a score's errors and intervals: column → cell."""
    held, intervals = score.covered
    errors = score.errors and f"{percent(score.error)} ({percent(median(score.errors))})"
    ends = f"{held} of {intervals} (±{percent(score.width)})"
    return {
        "error (half within)": errors or "",
        "intervals hold": ends if intervals else "",
    }


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


def draw_charts(rows: Sequence[Record]) -> dict[str, Record]:
    """Return the charts of false calls, and of the seconds to find 1 %, in Vega-Lite."""
    data: list[Record] = []
    for score in score_trials(rows):
        about: Record = {"tool": score.name.replace("`", "")}
        calls, count = score.calls["nothing"]
        if count:
            low, high = find_share(calls, count)
            about |= {"false": calls / count, "false low": low, "false high": high}
        if (seconds := score.find_seconds()) and not score.repeated:
            about |= dict(zip(("seconds", "seconds low", "seconds high"), seconds, strict=True))
        data.append(about)
    share = {"scale": {"domain": [0, 1]}, "axis": {"format": "%"}}
    times = {"scale": {"type": "log"}, "axis": {"tickCount": 5}}
    about_times = "seconds to find 1 % in nine runs of ten (extrapolated)"
    return {
        "false-calls": draw_chart(data, "false", "called although nothing was planted", share),
        "seconds": draw_chart(data, "seconds", about_times, times),
    }


def draw_chart(data: Sequence[Record], field: str, title: str, x: Record) -> Record:
    """Return a chart of a field of each tool that has it, with its interval, in Vega-Lite."""
    rows = [about for about in data if field in about]
    x = x | {"type": "quantitative"}
    low, high = ({"field": f"{field} {end}"} for end in ("low", "high"))
    return {
        "height": CHART_ROW * len(rows),
        "data": {"values": rows},
        "encoding": {"y": {"field": "tool", "type": "nominal", "sort": None, "title": None}},
        "layer": [
            {"mark": "rule", "encoding": {"x": x | low | {"title": title}, "x2": high}},
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {"x": x | {"field": field}},
            },
        ],
    }
