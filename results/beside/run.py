"""Trials of each tool on one task, into rows.jsonl; the tables of all rows.

    python results/beside/run.py --minutes 60      # the plan; continues where it was stopped
    python results/beside/run.py --tool pyperf --plant "+1 %" --seconds 30 --times 3
    python results/beside/run.py --table           # which `make results` puts into README.md

Trials are made in blocks: one of each tool, in random order, so that all have the
same hours. With `--times`, further trials go into a file of their own, and are shown
together with the published ones. Nothing else may run meanwhile. A failed trial only
loses its own row, which says why. The exit status is 1 if a trial failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from cpuinfo import get_cpu_info  # type: ignore[import-untyped]
from uv import find_uv_bin

from bench.wording import pluralise
from bench.worker.settings import ROOT
from results.beside.plan import (
    NAMES,
    OURS,
    PARTS,
    PLANTS,
    REQUIREMENTS,
    Trial,
    find_pins,
    list_trials,
)
from results.beside.scores import INTERVAL, ROWS, VARIATION, find_trial, read_rows
from results.beside.tables import describe_trials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from results.beside.scores import Record


HERE = Path(__file__).parent
ENVIRONMENTS = Path(".bakeoff/beside")
"""Folder of the tools' environments: this project's lock, and the tool."""
REPEATED = ENVIRONMENTS / "repeated.jsonl"
"""Rows of the last command with `--times`."""
TOOLS_LOCK = HERE / "tools.lock"
"""Versions of all that the tools bring; `make lock` makes it anew."""
PLAIN = "samples_in_pairs"
"""Tool whose environment has nothing but this project's lock: our own trials use it, too."""
STEP_SECONDS = 4.0
"""Seconds of calls that say how long a step takes, before a block."""
PATIENCE = 5
"""Multiple of a trial's seconds after which its tool counts as hanging."""
INSTALL_SECONDS = 600
"""Seconds after which the build of an environment counts as failed."""
EMPTY_LOOP = 10_000
"""Iterations of the loop whose time says how fast the machine is now."""
EMPTY_LOOPS = 1000
"""Number of empty loops before a trial: less than a tenth of a second in quiet hours."""
FAULTS = (subprocess.SubprocessError, OSError, ValueError, KeyError)
"""Errors of a tool, of its environment, or of what it printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = partial(parser.add_argument, metavar="NAME", action="append")
    add("--tool", choices=NAMES, help=f"{', '.join(NAMES)}; may be given again")
    plants = "; ".join(PLANTS).replace("%", "%%")
    add("--plant", choices=PLANTS, help=f"one of: {plants}; may be given again")
    workloads = [*dict.fromkeys(part.workload for part in PARTS)]
    add("--workload", choices=workloads, help=" or ".join(workloads))
    sizes = sorted({part.seconds for part in PARTS})
    parser.add_argument("--seconds", type=int, choices=sizes, help="of a trial")
    parser.add_argument("--times", type=int, metavar="N", help="make N of each, beside the plan")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--table", action="store_true", help="print the tables alone")
    options = parser.parse_args(arguments)
    if not any(is_wanted(trial, options) for trial in list_trials()):
        given = shlex.join(sys.argv[1:] if arguments is None else arguments)
        parser.error(f"the plan has no trial with {given}: see results/beside/README.md")
    if options.times is not None and options.times < 1:
        parser.error(f"--times {options.times}: at least 1")
    rows = read_rows(ROWS)
    published = [row for row in rows if is_wanted(find_trial(row), options)]
    if options.table:
        print("\n".join(describe_trials(published)))
        return 0
    others = {row["machine"] for row in rows} - {find_processor()}
    if options.times is None and others:
        parser.error(
            f"{ROWS.name} has trials of another machine ({', '.join(others)}): "
            "give --times N, whose trials go into a file of their own"
        )
    end = time.monotonic() + 60 * options.minutes
    trials, path = list_left(), ROWS
    if options.times is not None:
        trials, path = [t for t in set(list_trials()) for _ in range(options.times)], REPEATED
        path.unlink(missing_ok=True)
    trials = [trial for trial in trials if is_wanted(trial, options)]
    failures = 0
    while trials and time.monotonic() < end:
        failures += make_block(choose_block(trials), path, trials, end)
    if options.times is None:
        left = sum(is_wanted(trial, options) for trial in list_left())
        print(f"{pluralise(left, 'trial')} left")
    else:
        for title, shown in (("these trials", read_rows(path)), ("published", published)):
            print(f"\n# {title}\n")
            print("\n".join(describe_trials(shown)))
    return int(failures > 0)


def choose_block(left: Sequence[Trial]) -> list[Trial]:
    """Return a trial of each tool that has most of them left, of one plant, in random order."""
    plant = random.choice(left)[1:]  # noqa: S311 -- an order
    counts = Counter(trial for trial in left if trial[1:] == plant)
    most = max(counts.values())
    block = [trial for trial, count in counts.items() if count == most]
    return random.sample(block, len(block))


def make_block(block: Sequence[Trial], path: Path, left: list[Trial], end: float) -> int:
    """Make a block's trials, which all wait for the same share of a step, and write their rows.

    Return how many failed. If the step cannot be measured, the block is left out: all failed.
    """
    failures = 0
    try:
        step = measure_step(block[0].workload)
    except FAULTS as error:
        print(f"{block[0].workload}: no step was measured: {explain(error)}", flush=True)
        for trial in block:
            left.remove(trial)
        return len(block)
    for trial in block:
        if time.monotonic() > end:
            break
        record = make_trial(trial, step)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        left.remove(trial)
        failures += "failed" in record
        result = record.get("failed") or "; ".join(map(describe, record["outcomes"]))
        name = f"{trial.tool}, {trial.plant}, {trial.workload}, {trial.seconds} s"
        print(f"{name}: {result} ({record['took']:.0f} s)", flush=True)
    return failures


def is_wanted(trial: Trial, options: argparse.Namespace) -> bool:
    """Return whether the command's options leave a trial in."""
    chosen = (options.tool, options.plant, options.workload, options.seconds)
    return all(
        choice is None or (value in choice if isinstance(choice, list) else value == choice)
        for value, choice in zip(trial, chosen, strict=True)
    )


def describe(outcome: Record) -> str:
    """Return an outcome in a few words."""
    called = "called" if outcome["called"] else "not called"
    return f"{outcome['rule']}: {called}, {outcome['ratio']:.4f}"


def list_left() -> list[Trial]:
    """Return the plan's trials that rows.jsonl has not, with those that failed."""
    made = Counter(find_trial(row) for row in read_rows(ROWS) if "outcomes" in row)
    return list((Counter(list_trials()) - made).elements())


def measure_step(workload: str) -> float:
    """Return the seconds of a step, in the median of some seconds of calls."""
    variables = {"BESIDE_WORKLOAD": workload}
    given = [0.0, STEP_SECONDS]
    return median(json.loads(run_tool(PLAIN, "time_calls", given, 60, variables)))


def make_trial(trial: Trial, step: float) -> Record:
    """Return one trial's record."""
    plant = PLANTS[trial.plant]
    wait = 1e6 * step * plant.fraction + plant.microseconds
    loop, variation = time_empty_loops()
    record: Record = trial._asdict() | {"wait": wait, "loop": loop, VARIATION: variation}
    record |= {"when": time.strftime("%Y-%m-%dT%H:%M"), "machine": find_processor()}
    record["versions"] = {name: version(name) for name in ("jax", "jaxlib")}
    record["versions"] |= find_pins(trial.tool)
    start = time.monotonic()
    try:
        tool = trial.tool if trial.tool in REQUIREMENTS else PLAIN
        pythons = [str(build_environment(tool, number * plant.apart)) for number in (0, 1)]
        start = time.monotonic()
        variables = {"BESIDE_WORKLOAD": trial.workload}
        if plant.slower:
            turn = time.time() + trial.seconds / 2
            variables["BESIDE_SLOWER"] = f"{1e6 * step * plant.slower} {turn}"
        if plant.imported:
            variables["BESIDE_IMPORTED"] = "1"
        if trial.tool in REQUIREMENTS:
            sides = list(zip((0.0, wait), pythons, strict=True))
            record |= run_other(trial, sides, variables)
        else:
            record |= run_ours(trial, wait, variables, pythons if plant.apart else [])
    except FAULTS as error:
        record["failed"] = explain(error)
    return record | {"took": round(time.monotonic() - start, 1)}


def explain(error: Exception) -> str:
    """Return the end of what a command printed to stderr, or of the error's own words."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {error.timeout:.0f} s"
    return str(getattr(error, "stderr", "") or error).strip()[-300:]


def run_other(
    trial: Trial, sides: Sequence[tuple[float, str]], variables: Mapping[str, str]
) -> Record:
    """Return what another tool says, and how many processes called the step."""
    given = {"sides": sides, "seconds": trial.seconds}
    with tempfile.NamedTemporaryFile("r") as processes:
        variables = {**variables, "BESIDE_PROCESSES": processes.name}
        printed = run_tool(trial.tool, trial.tool, given, PATIENCE * trial.seconds, variables)
        return {"outcomes": json.loads(printed), "processes": len({*processes})}


def run_ours(
    trial: Trial, wait: float, variables: Mapping[str, str], pythons: Sequence[str]
) -> Record:
    """Return what this project says: in a folder of its own, by ../selftest/trial.py."""
    given: Record = {**OURS[trial.tool], "budget": trial.seconds, "workload": trial.workload}
    given["waits"] = [wait] if trial.tool == "arms" else [0.0, wait]
    if "BESIDE_SLOWER" in variables:
        given["plant"] = "slower_later()"
    if pythons:
        given["pythons"] = pythons
    with tempfile.TemporaryDirectory() as folder:
        script = ROOT / "results/selftest/trial.py"
        command = [sys.executable, "-P", str(script), json.dumps(given), "out.json"]
        run_command(command, PATIENCE * trial.seconds, Path(folder), variables)
        numbers = json.loads(Path(folder, "out.json").read_text())["numbers"]
    low, high = numbers.get("low") or 0.0, numbers.get("high") or math.inf
    row = {"rule": INTERVAL, "called": low > 1 or high < 1, "ratio": numbers["ratio"]}
    row |= {"base": numbers["base"] / 1e6, "low": low, "high": high if high < math.inf else None}
    return {"outcomes": [row], "processes": numbers["processes"]}


def run_tool(
    tool: str,
    function: str,
    given: object,
    timeout: float,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Run a function of tools.py in a tool's environment, and return what it prints."""
    command = [str(build_environment(tool)), "tools.py", function, json.dumps(given)]
    return run_command(command, timeout, HERE, variables or {})


def run_command(
    command: Sequence[str], timeout: float, folder: Path, variables: Mapping[str, str]
) -> str:
    """Return what a command prints; after `timeout` seconds it ends, with all that it has started.

    Raises:
        subprocess.SubprocessError: it fails, or takes too long.
    """
    env = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 -- this folder's commands
        command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    return out


def build_environment(tool: str, copy: int = 0) -> Path:
    """Return the Python of a tool's environment, or of a second one, built if it is not there."""
    folder = ENVIRONMENTS.absolute() / (f"{tool}-{copy}" if copy else tool)
    python = folder / "bin/python"
    ready, added, lock = folder / "ready", REQUIREMENTS[tool], ROOT / "requirements.lock"
    contents = f"{lock.read_text()}{TOOLS_LOCK.read_text()}{added}"
    if not ready.exists() or ready.read_text() != contents:
        print(f"building the environment of {tool}", file=sys.stderr)
        uv = find_uv_bin()
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        commands = [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            [*install, "-r", str(lock)],
            *([[*install, "-c", str(TOOLS_LOCK), *added]] if added else []),
        ]
        for command in commands:
            run_command(command, INSTALL_SECONDS, ROOT, {})
        ready.write_text(contents)
    return python


@cache
def find_processor() -> str:
    """Return the processor's name, and the number of its cores."""
    return f"{get_cpu_info()['brand_raw']}, {os.cpu_count()} cores"


def time_empty_loops() -> tuple[float, float]:
    """Return the microseconds of an empty loop, in the median, and by what fraction loops vary.

    They say how fast the machine is now, and how busy: the variation is half of the range that the
    middle two thirds of loops have, a standard deviation for most distributions.
    """
    times = []
    for _ in range(EMPTY_LOOPS):
        start = time.perf_counter()
        for _ in range(EMPTY_LOOP):
            pass
        times.append(1e6 * (time.perf_counter() - start))
    ends = quantiles(times, n=6)
    return round(median(times), 1), round((ends[-1] - ends[0]) / 2 / median(times), 4)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--table | head` ends without a traceback
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        print("stopped: without --times, the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
