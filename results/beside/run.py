"""Trials of each tool on one task, in random order, into rows.jsonl; the table of all rows.

    python results/beside/run.py --minutes 60                   # goes on where it was stopped
    python results/beside/run.py --tool pyperf --plant "+1 %" --times 3
    python results/beside/run.py --seconds 120 --tool sides --plant "+0.5 %" --times 10
    python results/beside/run.py --table          # which `make results` puts into README.md

Nothing else may run meanwhile. What fails costs its own row: the row says why.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from scipy.stats import binomtest
from uv import find_uv_bin

from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, percent
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    type Record = dict[str, Any]
    """One trial of a tool: its plant, microseconds of waiting, the empty loop, and the outcome of
    each of its rules. What was planted is a fraction of the tool's own base side."""

HERE = Path(__file__).parent
ROWS = HERE / "rows.jsonl"
ENVIRONMENTS = Path(".bakeoff/beside")
"""Folder of the tools' environments: this project's lock, and the tool."""
BUDGET = 30
"""Seconds of a trial, for two sides together."""
PATIENCE = 5
"""Budgets after which a tool is taken to hang."""
POWER_ERRORS = 1.96 + 1.28
"""Standard errors that a difference has to be, to be found at 5 % in nine runs of ten."""
CHART_ROW = 22
"""Pixels of a row of a chart."""
EMPTY_LOOP = 10_000
"""Turns of the loop whose time says how fast the machine is now."""


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
OTHERS = {
    "pytest_benchmark": (),
    "pyperf": ("pyperf==2.11.0",),
    "asv": ("asv==0.6.6", "virtualenv"),
    "pytest_codspeed": ("pytest-codspeed==5.0.4",),
    "google_benchmark": ("google-benchmark==1.9.5",),
    "samples_apart": (),
    "samples_in_pairs": (),
}
"""Function of tools.py → what its environment has beside this project's lock."""
OURS = ("arms", "sides")
"""Trials of ../selftest/trial.py: two arms of a run, and the two sides of `bakeoff ab`."""
NAMES = {
    "pytest_benchmark": "pytest-benchmark",
    "pytest_codspeed": "pytest-codspeed, walltime",
    "google_benchmark": "google-benchmark, interleaved",
    "samples_apart": "one process a side (hyperfine, benchstat)",
    "samples_in_pairs": "calls in pairs (tango's rule)",
    "arms": "this project, two arms",
    "sides": "this project, `ab`",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", choices=[*OTHERS, *OURS])
    parser.add_argument("--plant", choices=list(PLANTS))
    parser.add_argument("--times", type=int, help="trials of each, in place of the plan's")
    parser.add_argument(
        "--seconds", type=int, default=BUDGET, help="of a trial, two sides together"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if options.table:
        print("\n".join(table_lines(make_table(read_rows()))))
        return 0
    end, step = time.monotonic() + 60 * options.minutes, measure_step()
    print(f"a step takes {1e6 * step:.0f} µs")
    for tool, plant in plan(options.tool, options.plant, options.times, options.seconds):
        if time.monotonic() > end:
            break
        record = make_trial(tool, plant, step, options.seconds)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        shown = record.get("failed") or "; ".join(map(describe, record["outcomes"]))
        print(f"{tool}, {plant}: {shown} ({record['seconds']:.0f} s)", flush=True)
    return 0


def describe(outcome: Record) -> str:
    """Return an outcome in a few words."""
    called = "called" if outcome["called"] else "not called"
    return f"{outcome['rule']}: {called}, {outcome['ratio']:.4f}"


def read_rows() -> list[Record]:
    """Return the trials so far."""
    lines = ROWS.read_text("utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


def plan(
    tool: str | None, plant: str | None, times: int | None, budget: int = BUDGET
) -> Iterator[tuple[str, str]]:
    """Yield tools and plants in random order: what the plan has and rows.jsonl has not."""
    made = [(row["tool"], row["plant"]) for row in read_rows() if row["budget"] == budget]
    left = [
        (name, what)
        for name in (*OTHERS, *OURS)
        for what, about in PLANTS.items()
        if tool in (None, name) and plant in (None, what)
        if name != "arms" or not about.slower  # its baseline has no plant
        for _ in range(about.trials - made.count((name, what)) if times is None else times)
    ]
    random.shuffle(left)
    yield from left


def measure_step() -> float:
    """Return the seconds of the step, in the median of five seconds of calls."""
    return median(json.loads(run_tool("samples_apart", "time_calls", [0.0, 9.0], 60)))


def make_trial(tool: str, plant: str, step: float, budget: int) -> Record:
    """Return one trial's record."""
    about = PLANTS[plant]
    wait = 1e6 * step * about.fraction + about.microseconds
    record: Record = {
        "tool": tool,
        "plant": plant,
        "budget": budget,
        "wait": wait,
        "loop": time_empty_loop(),
        "when": time.strftime("%Y-%m-%dT%H:%M"),
    }
    start = time.monotonic()
    try:
        if tool in OTHERS:
            build_environment(tool)
        start, turn = time.monotonic(), time.time() + budget / 2
        slower = {"BESIDE_SLOWER": f"{1e6 * step * about.slower} {turn}"} if about.slower else {}
        if tool in OURS:
            outcomes = run_ours(tool, wait, budget, slower)
        else:
            given = {"waits": [0.0, wait], "seconds": budget}
            outcomes = json.loads(run_tool(tool, tool, given, PATIENCE * budget, slower))
        record["outcomes"] = outcomes
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        words = str(getattr(error, "stderr", "") or error).strip()
        record["failed"] = words[-300:]
    return record | {"seconds": round(time.monotonic() - start, 1)}


def run_ours(trial: str, wait: float, budget: int, slower: dict[str, str]) -> list[Record]:
    """Return what this project says: in a folder of its own, by ../selftest/trial.py."""
    waits = [wait] if trial == "arms" else [0.0, wait]
    with tempfile.TemporaryDirectory() as folder:
        plant = {"plant": "slower_later()"} if slower else {}
        given = json.dumps({"run": trial, "budget": budget, "waits": waits} | plant)
        command = [sys.executable, "-P", str(ROOT / "results/selftest/trial.py"), given, "out.json"]
        env = os.environ | slower | {"PYTHONPATH": str(ROOT)}
        options: dict[str, Any] = {"cwd": folder, "env": env, "timeout": PATIENCE * budget}
        subprocess.run(command, check=True, capture_output=True, text=True, **options)  # noqa: S603
        numbers = json.loads(Path(folder, "out.json").read_text())["numbers"]
    low, high = numbers.get("low") or 0.0, numbers.get("high") or float("inf")
    row = {"rule": "interval", "called": low > 1 or high < 1, "ratio": numbers["ratio"]}
    row["base"] = numbers["base"] / 1e6
    return [row | {"low": low, "high": high if high < float("inf") else None}]


def run_tool(
    tool: str,
    function: str,
    given: object,
    timeout: float,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a function of tools.py in a tool's environment, and return what it prints."""
    command = [str(build_environment(tool)), "tools.py", function, json.dumps(given)]
    env = os.environ | dict(variables or {}) | {"PYTHONPATH": str(ROOT)}
    options: dict[str, Any] = {"cwd": HERE, "timeout": timeout, "check": True, "env": env}
    return subprocess.run(command, capture_output=True, text=True, **options).stdout  # noqa: S603


def build_environment(tool: str) -> Path:
    """Return the Python of a tool's environment, which is built if it is not there."""
    folder = ENVIRONMENTS.absolute() / tool
    python = folder / "bin/python"
    ready = folder / "ready"
    if not ready.exists():
        uv, version = find_uv_bin(), f"{sys.version_info.major}.{sys.version_info.minor}"
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        commands = [
            [uv, "venv", "--quiet", "--clear", "--python", version, str(folder)],
            [*install, "-r", str(ROOT / "requirements.lock")],
            *([[*install, *OTHERS[tool]]] if OTHERS[tool] else []),
        ]
        for command in commands:
            subprocess.run(command, check=True)  # noqa: S603
        ready.touch()
    return python


def time_empty_loop() -> float:
    """Return the microseconds of an empty loop: how fast the machine is now."""
    start = time.perf_counter()
    for _ in range(EMPTY_LOOP):
        pass
    return round(1e6 * (time.perf_counter() - start), 1)


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
    for tool, budget in product((*OTHERS, *OURS), sorted({row["budget"] for row in rows})):
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
            name = f"{NAMES.get(tool, tool)}: {rule}{f', {budget} s' * (budget != BUDGET)}"
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


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on") from None
