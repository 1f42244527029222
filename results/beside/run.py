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
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from bench.report.markdown import table_lines
from bench.worker.settings import ROOT
from results.beside.scores import BUDGET, PLANTS, ROWS, make_table, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from results.beside.scores import Record


HERE = Path(__file__).parent
ENVIRONMENTS = Path(".bakeoff/beside")
"""Folder of the tools' environments: this project's lock, and the tool."""
PATIENCE = 5
"""Budgets after which a tool is taken to hang."""
EMPTY_LOOP = 10_000
"""Turns of the loop whose time says how fast the machine is now."""


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


def plan(
    tool: str | None, plant: str | None, times: int | None, budget: int = BUDGET
) -> Iterator[tuple[str, str]]:
    """Yield tools and plants in random order: what the plan has and rows.jsonl has not."""
    made = [(row["tool"], row["plant"]) for row in read_rows(ROWS) if row["budget"] == budget]
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


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on") from None
