"""Trials on real runs: planted differences, identical programs, whole runs.

    python results/selftest/trials.py --part two_arms,ab --repeat 10

Each trial is a line of `engine.jsonl`, appended when it ends: what was tried, whether it came out
right, and numbers. The table of `engine.md` is written from all lines; `--repeat 0` writes it
alone. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import chdir
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.utils import get_commit_info

from bench.cells import Arm
from bench.engine.process import Place
from bench.engine.session import Side, Task, measure
from bench.environments.offers import offer
from bench.estimates import Verdict
from bench.metrics import HOST, HOST_PER_ARRAY, STEP, label
from bench.options import Options
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile import EnvironmentInfo
from bench.runfile.reader import processor_model, read
from bench.track.sides import DEEP
from bench.worker.settings import ROOT, environment
from results.selftest.plants import MICROSECONDS, write_entrant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.runfile import Results
    from bench.runfile.reader import Run

    type Record = dict[str, Any]

RECORDS, TABLES = "engine.jsonl", "engine.md"
PLANTED = Arm("planted", "pure").at("seed", "cpu")
STEP_AT_SEED = ("--workload=seed", "--metric=step")
TWO_ARMS: Sequence[tuple[float, int]] = ((1.0, 20), (0.5, 60), *[(0, 20)] * 4)
SIDES: Sequence[tuple[float, int]] = ((1.0, 30), (0.5, 90), *[(0, 30)] * 6)
"""Per cent that are planted, and the budget in seconds; nothing is planted more often, for a
share of false calls is small, and takes more runs to be known."""
ARRAYS: Sequence[tuple[float, int]] = ((0.3, 60), (0, 60))
"""Microseconds for each array that are planted, and the budget in seconds."""
GOOD = 0.015
"""Detectable difference at `seed` at most of a default run on a quiet machine."""


class TrialFailedError(Exception):
    """A run came to no result; its last words say why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args(arguments)
    for name in (names := options.part.split(",")):
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; known: {', '.join(PARTS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / RECORDS
    for name in names * options.repeat:
        try:
            for record in PARTS[name]():
                keep(path, record)
        except TrialFailedError as error:
            keep(path, {"trial": name, "right": False, "numbers": {}, "failed": str(error)})
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    (options.folder / TABLES).write_text(markdown(records), encoding="utf-8")
    return 0


def keep(path: Path, record: Record) -> None:
    """Append a record with the machine, the load and the code, and print it."""
    about = {
        "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
        "machine": machine(),
        "load": round(os.getloadavg()[0], 2),
        "code": str(get_commit_info()["id"])[:7],
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | record) + "\n")
    print(json.dumps(record), flush=True)


@cache
def machine() -> str:
    """Return this machine's processor and its number of cores."""
    return f"{processor_model(pytest_benchmark_generate_machine_info())}, {os.cpu_count()} cores"


def markdown(records: Sequence[Record]) -> str:
    """Return a table of all records: how often each trial came out right, on which code."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["trial"], record["machine"], record["code"]].append(record)
    rows = []
    for (trial, machine, code), several in groups.items():
        numbers: dict[str, list[float]] = defaultdict(list)
        for record in several:
            for name, value in record["numbers"].items():
                numbers[name].append(math.inf if value is None else value)
        came = [f"{name} {median(values):.5g}" for name, values in numbers.items()]
        came += [f"failed: {record['failed']}" for record in several if "failed" in record]
        right = sum(record["right"] for record in several)
        rows.append(Row((trial, str(len(several)), str(right), ", ".join(came), machine, code)))
    titles = "trial", "runs", "right", "medians", "machine", "commit"
    columns = tuple(Column(title, number=title in ("runs", "right")) for title in titles)
    parts = [
        "# Trials on real runs",
        f"Made by trials.py (kills now are tests/test_kills.py); records: [{RECORDS}]({RECORDS}). "
        "Right: what was planted is called slower, and nothing where nothing was planted (the 95 % "
        "interval leaves out 1); a default run detects 1.5 %; no journalled sample is lost.",
        "\n".join(table_lines(Table(columns, tuple(rows)))),
    ]
    return "\n\n".join(parts) + "\n"


def bench(*options: str, styles: Mapping[str, str] | None = None) -> Run:
    """Run `pytest bench` once, with an entrant `planted` of these plants by style, if any."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
        folder = Path(name)
        if styles:
            options = (f"--entrant={write_entrant(folder / 'planted.py', styles)}", *options)
        command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q"]
        command += ["-p", "no:cacheprovider", *options, f"--benchmark-json={folder / 'run.json'}"]
        done = subprocess.run(  # noqa: S603 -- this project's benchmarks
            command,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if "XDIST" not in name},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if not (folder / "run.json").exists():
            raise TrialFailedError(" ".join((done.stdout + done.stderr).splitlines()[-12:]))
        return read(folder / "run.json")


@cache
def microseconds_of_step(cores: str) -> float:
    """Return what plain JAX's step at `seed` takes on this machine, by a run of 10 s."""
    alone = "--entrant=pure_jax", "--style=pure", "--budget=10", f"--cores={cores}"
    run = bench(*STEP_AT_SEED, *alone)
    return 1e6 * median(s.value for s in run.samples if s.metric == STEP)


def planted(trial: str, results: Results, microseconds: float, metric: str = STEP) -> Record:
    """Return what a run says of a planted difference.

    Raises:
        TrialFailedError: it says nothing.
    """
    rows = [row for row in results.estimates if (row.metric, row.form) == (metric, "ratio")]
    row = next((row for row in rows if row.cell.arm == PLANTED.arm), None)
    if row is None:
        raise TrialFailedError(f"the run has no estimate of the planted {label(metric)}")
    numbers = {"ratio": row.value, "half width": row.half_width, "workers": row.workers}
    level = results.table.amount(row.cell, metric)
    if metric != STEP and level is not None:
        numbers |= {"base": 1e6 * level.value, "found": 1e6 * level.value * (row.value - 1)}
    right = (row.differs and row.value > 1) if microseconds else not row.differs
    planted = {"microseconds": microseconds, "low": row.low, "high": row.high}
    return {"trial": trial, "right": right, "numbers": numbers, "planted": planted}


def two_arms() -> Iterator[Record]:
    """Plant a difference between two arms of a run, on the cores that a run uses by itself."""
    for percent, budget in TWO_ARMS:
        wait = percent / 100 * microseconds_of_step("auto")
        run = bench(*STEP_AT_SEED, f"--budget={budget}", styles={"pure": f"wait({wait:.2f})"})
        yield planted(f"two arms, {percent:g} % in {budget} s", run.results, wait)


def sides_of(plant: str, wait: float, needed: Mapping[Cell, str], budget: float) -> Results:
    """Return an A/B of this environment with itself, of which one side's step waits for so long.

    It is what `bakeoff ab` does once its environments are built; the entrant's step waits for as
    long as a variable of its side says.

    Args:
        plant: The entrant's style.
        wait: Microseconds of the new side.
        needed: The metric that is measured of each cell.
        budget: Seconds.
    """
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name, chdir(name):
        path = write_entrant(Path(name) / "planted.py", {"pure": plant})
        sides, outside = {}, {"planted": str(path)}
        for side, microseconds in (("base", 0.0), ("new", wait)):
            place = Place(variables=environment() | {MICROSECONDS: str(microseconds)})
            offered = offer(("planted",), outside, place=place)
            sides[side] = Side(place, offered, EnvironmentInfo(versions=offered.versions))
        task = Task(
            kind="ab",
            arguments=(),
            needed={s: {cell: frozenset({m}) for cell, m in needed.items()} for s in sides},
            sides=sides,
            options=Options(budget=budget, cores="one"),
            groups=[("base", "new")],
            base="base",
            outside=outside,
        )
        measured = measure(task)
        measured.journal.remove()
        return measured.results


def ab() -> Iterator[Record]:
    """Plant a difference of a step between two sides."""
    for percent, budget in SIDES:
        wait = percent / 100 * microseconds_of_step("one")
        results = sides_of("wait_of_side()", wait, {PLANTED: STEP}, budget)
        yield planted(f"A/B, {percent:g} % in {budget} s", results, wait)


def arrays() -> Iterator[Record]:
    """Plant a difference of the host's cost for each parameter array between two sides."""
    cells = {PLANTED._replace(workload=workload): HOST for workload in ("toy", DEEP)}
    for wait, budget in ARRAYS:
        results = sides_of("wait_of_side(per_array=True)", wait, cells, budget)
        yield planted(f"A/B, {wait:g} µs per array in {budget} s", results, wait, HOST_PER_ARRAY)


def default() -> Iterator[Record]:
    """Make a default run: what it can detect, and where its time went."""
    results = bench().results
    detectable = results.table.detectable(STEP, "seed", PLANTED.backend)
    steps = [
        row
        for row in results.estimates
        if (row.metric, row.form, row.cell.workload) == (STEP, "ratio", "seed")
        and not row.cell.is_control
    ]
    numbers = {
        "detectable": detectable,
        "steps": len(steps),
        "settled": sum(row.verdict is not Verdict.INCONCLUSIVE for row in steps),
        "sampling share": results.spent.sampling_seconds / results.spent.wall_seconds,
        "seconds": results.spent.wall_seconds,
    }
    yield {"trial": "default run", "right": detectable <= GOOD, "numbers": numbers}


PARTS: dict[str, Callable[[], Iterator[Record]]] = {
    part.__name__: part for part in (two_arms, ab, arrays, default)
}


if __name__ == "__main__":
    sys.exit(main())
