"""The trials of tools as tables in Markdown, and as charts."""

from __future__ import annotations

import math
from collections import Counter
from statistics import fmean, median
from typing import TYPE_CHECKING

from scipy.stats import binomtest

from bench.numbers import amount, percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.wording import name_workload, pluralise
from results.beside.plan import MAIN, NAMES, OURS, PARTS, PLANTS
from results.beside.scores import DESIGNS, VARIATION, find_error, find_trial, score_trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from results.beside.plan import Part
    from results.beside.scores import Record, Score

OURS_COLOUR, OTHERS_COLOUR = "#0072B2", "#888888"
GOAL = 50
"""Least time of the next best tool to find 1 %, as a multiple of that of `ab`."""
CHART_ROW = 22
"""Pixels of a row of a chart."""
BUSY = 0.1
"""Variation of empty loops before a trial above which others use the machine: most trials have less
than 5 %."""


def describe_trials(rows: Sequence[Record]) -> Iterator[str]:
    """Yield the tables of all trials in Markdown, and in which hours they were made."""
    for part in PARTS:
        table = make_scores_table(score_trials(rows, part))
        if table.rows:
            place = name_workload(part.workload)
            yield f"**A step at {place}, {part.seconds} seconds for two sides:**\n"
            yield from table_lines(table)
            yield ""
            yield from describe_plants(rows, part)
    goal = make_goal_table(rows)
    if goal.rows:
        yield f"**Time to find 1 %, divided by that of `ab`** (goal: at least {GOAL}):\n"
        yield from table_lines(goal)
        yield ""
    designs = make_scores_table(score_trials(rows), DESIGNS)
    if designs.rows:
        yield "**Changes that affect more than the step:**\n"
        yield from table_lines(designs)
        yield ""
    if rows:
        yield " ".join(describe_conditions(rows))


def describe_answer(rows: Sequence[Record]) -> Iterator[str]:
    """Yield what these trials show, in three sentences: this project, the next tool and pyperf."""
    timed = [
        (score, describe_time(seconds[0]))
        for score in score_trials(rows)
        if (seconds := score.find_seconds()) and not score.repeated
    ]
    ours = next(row for row in timed if row[0].name == NAMES["sides"])
    nearest, *others = (row for row in timed if not row[0].name.startswith("this project"))
    named = [nearest, *(row for row in others if row[0].name.startswith("pyperf"))]
    times = [f"*{score.name.partition(':')[0]}* needs {time}" for score, time in named]
    first, *calls = ("{} of {}".format(*score.calls["nothing"]) for score, _ in (ours, *named))
    multiple = nearest[0].compare_seconds(ours[0])[0]
    goal = "reached" if multiple >= GOAL else "missed"
    yield (
        f"**In a training step, `bakeoff ab` finds a slow-down of 1 % in {ours[1]}; "
        f"{' and '.join(times)}.** With equal sides, `ab` reported a difference in {first} "
        f"trials, the other two in {' and '.join(calls)}. The goal is {goal}: the next tool needs "
        f"{describe_multiple(multiple)} times as long as `ab`; the goal was {GOAL} times."
    )


def make_answer_table(rows: Sequence[Record]) -> Table:
    """Return the main part's scores in five columns."""
    lines = [
        Row(
            (
                score.name,
                describe_times(score),
                *(describe_share(*score.calls[name]) for name in ("nothing", "+1 %")),
                describe_errors(score)["rms error (median)"],
            )
        )
        for score in score_trials(rows)
        if score.find_seconds() and not score.repeated
    ]
    heads = "to find 1 %", "false calls", "+1 %", "error"
    columns = Column("tool and rule"), *(Column(head, number=True) for head in heads)
    return Table(columns, tuple(lines))


def make_goal_table(rows: Sequence[Record]) -> Table:
    """Return how many times the seconds of `ab` each tool takes to find 1 %.

    The last column has the same by the medians of errors.
    """
    scores = {score.name: score for score in score_trials(rows) if score.find_seconds()}
    base = scores.pop(NAMES["sides"], None)
    lines = []
    for score in scores.values():
        if base and not score.repeated:
            middle, low, high = map(describe_multiple, score.compare_seconds(base))
            by_median = score.find_seconds_by_median() / base.find_seconds_by_median()
            times = f"{middle} ({low} to {high})", describe_multiple(by_median)
            lines.append(Row((score.name, *times)))
    columns = Column("times", number=True), Column("by median errors", number=True)
    return Table((Column("tool and rule"), *columns), tuple(lines))


def describe_range[T: (float, str)](values: Sequence[T], write: Callable[[T], str]) -> str:
    """Return the least and the largest value in words; one, if these are the same."""
    return " to ".join(dict.fromkeys(write(end(values)) for end in (min, max)))


def describe_multiple(times: float) -> str:
    """Return how many times something is another: with a digit after the point below ten."""
    return f"{times:.1f}" if round(times, 1) < 10 else f"{times:,.0f}"


def describe_plants(rows: Sequence[Record], part: Part) -> Iterator[str]:
    """Yield which fraction of the tools' own base steps each planted wait was."""
    for name in part.trials:
        if name in DESIGNS or not PLANTS[name].fraction:
            continue
        waits = [
            1e-6 * row["wait"] / outcome["base"]
            for row in rows
            if find_trial(row)[1:] == (name, part.workload, part.seconds)
            for outcome in row.get("outcomes", ())
        ]
        if waits:
            ends = describe_range(waits, lambda wait: percent(wait).removesuffix(" %"))
            shares = f"{ends} % of the base side's time, as the tools measured it"
            yield f"The wait for {name} was {shares}.\n"
    biases = [*describe_biases(rows, part)]
    if biases:
        yield f"Mean errors, without a wait and with one: {'; '.join(biases)}.\n"


def describe_biases(rows: Sequence[Record], part: Part) -> Iterator[str]:
    """Yield by how much this project's estimates are larger than what was planted, in the mean."""
    for tool in OURS:
        errors: dict[bool, list[float]] = {False: [], True: []}
        for row in rows:
            trial = find_trial(row)
            if (
                (trial.tool, *trial[2:]) == (tool, part.workload, part.seconds)
                and trial.plant not in DESIGNS
                and "outcomes" in row
            ):
                errors[row["wait"] > 0] += [find_error(row, o) for o in row["outcomes"]]
        if all(errors.values()):
            same, planted = (f"{100 * fmean(errors[key]):+.2f}" for key in (False, True))
            yield f"{NAMES[tool].removeprefix('this project, ')} {same} and {planted} %"


def describe_conditions(rows: Sequence[Record]) -> Iterator[str]:
    """Yield how many trials there are, made when, and on which machine in which hours."""
    made = sum("outcomes" in row for row in rows)
    period = describe_range([row["when"][:10] for row in rows], str)
    machines = dict.fromkeys(f"{r['machine']}, jax {r['versions']['jax']}" for r in rows)
    yield f"{pluralise(made, 'trial')}, {period}, on {'; '.join(machines)}."
    failed = Counter(NAMES[row["tool"]] for row in rows if "failed" in row)
    if failed:
        yield f"Failed: {', '.join(f'{count} of {name}' for name, count in failed.items())}."
    loops = [row["loop"] for row in rows]
    yield (
        f"An empty loop of 10,000 iterations took {describe_range(loops, '{:.0f}'.format)} µs "
        f"(median: {median(loops):.0f})."
    )
    varied = [row[VARIATION] for row in rows]
    busy = sum(variation > BUSY for variation in varied)
    yield (
        f"Before a trial, its time varied by {describe_range(varied, percent)} "
        f"(median: {percent(median(varied))}); "
        f"before {pluralise(busy, 'trial') if busy else 'none'}, by more than {percent(BUSY)}."
    )


def make_scores_table(scores: Sequence[Score], plants: Sequence[str] | None = None) -> Table:
    """Return a row for each score: false calls, finds and errors, or calls of some plants alone."""
    kept = plants or [name for name in PLANTS if name not in DESIGNS]
    lines = []
    for score in scores:
        cells = {"tool and rule": score.name}
        if plants is None:
            cells |= {"step": amount(score.base, "s"), "to find 1 %": describe_times(score)}
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


def describe_times(score: Score) -> str:
    """Return the time to find 1 %, and its interval; empty if an earlier rule has the same."""
    times = score.find_seconds()
    if times is None or score.repeated:
        return ""
    middle, low, high = map(describe_time, times)
    return middle if low == high else f"{middle} ({low} to {high})"


def describe_errors(score: Score) -> dict[str, str]:
    """Return a score's errors and intervals: column → cell."""
    errors = ends = ""
    if score.errors:
        rms = math.sqrt(fmean(e * e for e in score.errors))
        errors = f"{percent(rms)} ({percent(median(score.errors))})"
    if score.widths:
        ends = f"{score.held} of {len(score.widths)} (±{percent(median(score.widths))})"
    return {"rms error (median)": errors, "intervals hold": ends}


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
    trial = f"{MAIN.seconds} s, {name_workload(MAIN.workload)}"
    share = {"scale": {"domain": [0, 1]}, "axis": {"format": "%"}}
    times = {"scale": {"type": "log"}, "axis": {"values": [10, 100, 1000, 10_000]}}
    return {
        "false-calls": draw_chart(data, "false", f"False calls, share of trials ({trial})", share),
        "seconds": draw_chart(data, "seconds", f"Seconds to find 1 % ({trial})", times),
    }


def draw_chart(data: Sequence[Record], field: str, title: str, x: Record) -> Record:
    """Return a chart of a field of each tool that has it, with its interval, in Vega-Lite."""
    rows = [about | {"ours": "this project" in about["tool"]} for about in data if field in about]
    colours = {"domain": [True, False], "range": [OURS_COLOUR, OTHERS_COLOUR]}
    colour = {"field": "ours", "type": "nominal", "scale": colours, "legend": None}
    x = x | {"type": "quantitative"}
    low, high = ({"field": f"{field} {end}"} for end in ("low", "high"))
    return {
        "title": {"text": title, "anchor": "start", "color": "currentColor"},
        "height": CHART_ROW * len(rows),
        "data": {"values": rows},
        "encoding": {
            "y": {"field": "tool", "type": "nominal", "sort": None, "title": None},
            "color": colour,
        },
        "layer": [
            {
                "mark": "rule",
                "encoding": {"x": x | low | {"title": None}, "x2": high},
            },
            {
                "mark": {"type": "point", "filled": True},
                "encoding": {"x": x | {"field": field}},
            },
        ],
    }
