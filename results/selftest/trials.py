"""Trials on real runs of one engine or two: planted differences, identical programs, whole runs.

    python results/selftest/trials.py --part arms-1 --part ab-1 --repeat 10 --beside ../a38445f

Each trial is a line of `engine.jsonl`, appended when it ends. What an engine's commit has there
counts: `--repeat 10` goes on until there are ten, after Ctrl-C too, and `--repeat 0` writes the
table of `engine.md` alone. `--beside` is a checkout of another commit of this project, which runs
in its own `.venv` if it has one; which of the two is first is drawn for each turn. Nothing else
should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import chdir
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from uv import find_uv_bin

from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, percent
from bench.runfile.reader import processor_model
from results.selftest.trial import COLD, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    type Record = dict[str, Any]

RECORDS, TABLES = "engine.jsonl", "engine.md"
ROOT = Path(__file__).resolve().parents[2]
CODE = ("bench", "common", "impls")
"""Folders of an engine: its commit is the last one that changed them."""
STEP_BUDGET = 10
"""Seconds in which plain JAX's step is measured, to plant parts of it."""
BUSY = 1.1
"""Median of an empty loop from which on an hour is busy, as a ratio to the least 10 % quantile on
that processor: in quiet hours the two differ by a few per cent."""
LOOPS, ITERATIONS = 300, 4000
"""Empty loops before a trial, of 40 µs each."""


@dataclass(frozen=True)
class Part:
    """Trials of one kind."""

    name: str
    """In the table; the budget is added."""
    run: str
    """Function of trial.py."""
    budget: float
    """Seconds."""
    cores: str = ""
    """Cores on which plain JAX's step is measured, of which parts are planted."""
    percent: tuple[float, ...] = ()
    """What is planted, in per cent of that step: in an arm, or on the base side and the new one."""
    given: Record = field(default_factory=dict)
    """Further arguments of that function."""
    apart: bool = False
    """Whether each side has an environment that was built for it."""
    alone: bool = False
    """Whether it needs plants that other engines may not have."""


def two_arms(percent: float, budget: float) -> Part:
    """Plant a difference between two arms of a run, on the cores that a run uses by itself."""
    return Part(f"two arms, {percent:g} %", "arms", budget, "auto", (percent,))


def ab(percent: float, budget: float) -> Part:
    """Plant a difference of a step between two sides."""
    return Part(f"ab, {percent:g} %", "sides", budget, "one", (0, percent))


ARRAYS = {"plant": "wait_of_side(per_array=True)", "waits": [0, 0.3], "arrays": True}
FIRST = {"plant": "first_of_round()"}
PARTS = {
    "arms-0": two_arms(0, 20),
    "arms-1": two_arms(1, 20),
    "arms-0.5": two_arms(0.5, 60),
    "ab-0": ab(0, 60),
    "ab-1": ab(1, 60),
    "ab-0-30": ab(0, 30),
    "ab-1-30": ab(1, 30),
    "ab-0.5": ab(0.5, 60),
    "arrays": Part("ab, 0.3 µs per array", "sides", 60, given=ARRAYS),
    "default": Part("default run", "default", 300),
    "libraries": Part("ab, all libraries", "libraries", 120),
    "apart": Part("ab, built apart, 0 %", "sides", 60, apart=True),
    "swapped": Part("ab, 1 % on the base side", "sides", 60, "one", (1, 0)),
    "first": Part("ab, 5 % for the first", "sides", 60, "one", (5, 5), FIRST, alone=True),
    "first-arms": Part("two arms, 5 % for the first", "arms", 60, "auto", (5,), alone=True),
}


@dataclass(frozen=True)
class Engine:
    """A checkout of this project."""

    root: Path

    @property
    def python(self) -> str:
        """Its interpreter, or this one."""
        own = self.root / ".venv/bin/python"
        return str(own) if own.exists() else sys.executable

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of its processes, which are no workers of a test's own pytest."""
        kept = {name: value for name, value in os.environ.items() if "XDIST" not in name}
        return kept | {"PYTHONPATH": str(self.root)}

    @property
    def commit(self) -> str:
        """The commit of its code; with a plus where that has changed since."""
        commit, changed = (
            subprocess.check_output(["git", "-C", self.root, *command, "--", *CODE], text=True)  # noqa: S603, S607
            for command in (("log", "-1", "--abbrev=7", "--format=%h"), ("status", "--porcelain"))
        )
        return commit.strip() + ("+" if changed else "")

    def run(self, **given: Any) -> Record:
        """Run a trial in a process of its own; return its numbers, or how it failed."""
        with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as folder, chdir(folder):
            script = str(Path(__file__).with_name("trial.py"))
            command = [self.python, "-P", script, json.dumps(given), "out.json"]
            status, said = run(command, env=self.variables)
            if status or not Path("out.json").exists():
                return {"failed": said.replace(f"{self.root}{os.sep}", "")[-300:], "numbers": {}}
            record: Record = json.loads(Path("out.json").read_text("utf-8"))
        if (used := Path(record.pop("root"))) != self.root:
            raise SystemExit(f"{used} was measured, not {self.root}: its packages are in the way")
        return record

    @cache  # noqa: B019 -- two engines live as long as this process
    def microseconds_of_step(self, cores: str, budget: float) -> float:
        """Return what plain JAX's step at `seed` takes on this machine."""
        record = self.run(run="step", budget=budget, cores=cores)
        if "failed" in record:
            raise SystemExit(f"plain JAX's step cannot be measured: {record['failed']}")
        return float(record["numbers"]["base"])

    def built_apart(self, folder: Path) -> list[str]:
        """Return the interpreters of two environments of its lock, built if they are not there."""
        places = [folder / self.commit / side for side in ("base", "new")]
        for place in places:
            if not place.exists():
                into = ["--python", str(place / "bin/python"), "--require-hashes"]
                for command in (
                    ["venv", "--quiet", "--python", self.python, str(place)],
                    ["pip", "sync", "--quiet", *into, str(self.root / "requirements.lock")],
                ):
                    subprocess.run([find_uv_bin(), *command], check=True)  # noqa: S603
        return [str(place / "bin/python") for place in places]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the records")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="again for more; all if none"
    )
    parser.add_argument("--repeat", type=int, default=1, help="trials of each part and engine")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="a checkout of another engine")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all budgets")
    options = parser.parse_args(arguments)
    engines = [Engine(ROOT), *([Engine(options.beside.resolve())] if options.beside else [])]
    if len({engine.commit for engine in engines}) < len(engines):
        parser.error(f"--beside {options.beside} has the code of this checkout's own commit")
    options.folder.mkdir(parents=True, exist_ok=True)
    path, status = options.folder / RECORDS, 0
    try:
        with tempfile.TemporaryDirectory(prefix="bakeoff-apart-") as folder:
            for turn in range(options.repeat):
                for name in options.part or PARTS:
                    take_turn(turn, PARTS[name], engines, path, options.scale, Path(folder))
    except KeyboardInterrupt:
        status = 130
    (options.folder / TABLES).write_text(markdown(read(path)), encoding="utf-8")
    return status


def take_turn(
    turn: int, part: Part, engines: Sequence[Engine], path: Path, scale: float, folder: Path
) -> None:
    """Let each engine make a trial, in random order, unless it has made more than `turn` of them.

    Args:
        turn: Number of the turn.
        part: What is tried.
        engines: This one, which says what is planted, and perhaps another one.
        path: The file of records.
        scale: Factor of budgets.
        folder: For environments that are built.
    """
    budget = part.budget * scale
    trial = f"{part.name} in {budget:g} s"
    made = Counter(record["engine"] for record in read(path) if record["trial"] == trial)
    for engine in random.sample(engines, len(engines)):
        if made[engine.commit] > turn or (part.alone and engine is not engines[0]):
            continue
        given = {"run": part.run, "budget": budget, **part.given}
        if any(part.percent):
            step = engines[0].microseconds_of_step(part.cores, STEP_BUDGET * scale)
            waits = [each / 100 * step for each in part.percent]
            planted = {"waits": waits} if part.run == "sides" else {"wait": waits[0]}
            given |= {"first": waits[0]} if part.alone and part.run == "arms" else planted
        if part.apart:
            given["pythons"] = engine.built_apart(folder)
        about = {
            "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
            "processor": processor(),
            "engine": engine.commit,
            "loop": empty_loop(),
            "trial": trial,
            "planted": {name: given[name] for name in ("wait", "waits", "first") if name in given},
        }
        record = about | engine.run(**given)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record, ensure_ascii=False), flush=True)


def empty_loop() -> tuple[float, float]:
    """Return the 10 % quantile and the median of what empty loops take now, in microseconds."""
    taken = []
    for _ in range(LOOPS):
        start = time.perf_counter()
        for _ in range(ITERATIONS):
            pass
        taken.append(round(1e6 * (time.perf_counter() - start), 1))
    return sorted(taken)[LOOPS // 10], median(taken)


@cache
def processor() -> str:
    """Return this machine's processor and its number of cores."""
    return f"{processor_model(pytest_benchmark_generate_machine_info())}, {os.cpu_count()} cores"


def read(path: Path) -> list[Record]:
    """Return all records; those of before November 29, 2026 are given today's fields."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    for record in records:
        if "code" in record:
            planted = record.pop("planted", {})
            nothing = planted.get("microseconds") == 0
            ends = {end: planted[end] for end in ("low", "high") if end in planted}
            counts = {"truth": 1, "rows": 1, "false": not record["right"]} if nothing else {}
            record["numbers"] |= {"right": record["right"], **ends, **counts}
            record |= {"engine": record["code"], "processor": record["machine"]}
    return records


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all records."""
    hours = hours_of(records)
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record, hour in zip(records, hours, strict=True):
        groups[record["trial"], record["engine"], hour, record["processor"]].append(record)
    ratios, others = [], []
    for (trial, engine, hour, processor), several in groups.items():
        numbers: dict[str, list[float]] = defaultdict(list)
        for record in several:
            for name, value in record["numbers"].items():
                numbers[name].append(math.inf if value is None else value)
        loops = [record["loop"][1] for record in several if "loop" in record]
        hour += f", {median(loops):.0f} µs" if loops else ""
        first = (trial, engine, hour, str(len(several)), right(several, numbers))
        if "ratio" in numbers:
            ratios.append(Row((*first, *ratio_cells(several, numbers), processor)))
        else:
            others.append(Row((*first, ", ".join(other_words(several, numbers)), processor)))
    about = "trial", "engine", "hour", "runs", "right"
    titles = (
        "ratio",
        "off",
        "± its error",
        "half width",
        "covered",
        "false per 1,000 rows",
        "workers",
    )
    return "\n".join(
        [
            "# Trials on real runs\n",
            f"Made by trials.py and trial.py (kills are tests/test_kills.py); records: "
            f"[{RECORDS}]({RECORDS}). An hour is busy where the median of empty loops before a "
            f"trial was more than {BUSY:g} times the least 10 % quantile on that processor; the "
            "number is the median of these medians. Right: what was planted is called slower "
            "(faster, if on the base side), and nothing where nothing was planted; a default run "
            "settles 13 styles at `seed`; an A/B of all libraries has an answer. Off: mean of the "
            "ratios less what was planted, with its standard error; `*` where it is more than two "
            "of them. Covered: intervals that hold what was planted. False: rows without a plant "
            "that are called different.\n",
            *table_lines(table((*about, *titles, "processor"), ratios)),
            "",
            *table_lines(table((*about, "medians", "processor"), others)),
            "",
        ]
    )


def hours_of(records: Sequence[Record]) -> Iterator[str]:
    """Yield by record whether its hour was `quiet` or `busy`; empty where it is not known."""
    least: dict[str, float] = {}
    for record in records:
        quantile = record.get("loop", [math.inf])[0]
        least[record["processor"]] = min(quantile, least.get(record["processor"], math.inf))
    for record in records:
        slow = "loop" in record and record["loop"][1] > BUSY * least[record["processor"]]
        yield "" if "loop" not in record else "busy" if slow else "quiet"


def table(titles: Sequence[str], rows: Sequence[Row]) -> Table:
    """Return a table."""
    words = ("trial", "engine", "hour", "medians", "processor")
    return Table(tuple(Column(title, number=title not in words) for title in titles), tuple(rows))


def right(records: Sequence[Record], numbers: dict[str, list[float]]) -> str:
    """Return how many of some trials came out right, and how many had no result."""
    failed = sum("failed" in record for record in records)
    return f"{sum(numbers['right']):.0f}" + (f", {failed} failed" if failed else "")


def ratio_cells(records: Sequence[Record], numbers: dict[str, list[float]]) -> tuple[str, ...]:
    """Return what trials say of a planted ratio, as cells of the table."""
    known = [r["numbers"] for r in records if "truth" in r["numbers"]]
    off = [math.log(each["ratio"] / each["truth"]) for each in known]
    error = stdev(off) / math.sqrt(len(off)) if len(off) > 1 else math.inf
    covered = [
        each["low"] <= each["truth"] <= (math.inf if each["high"] is None else each["high"])
        for each in known
    ]
    rows = sum(numbers["rows"])
    return (
        f"{median(numbers['ratio']):.4f}",
        f"{100 * mean(off):+.2f} %{'*' * (abs(mean(off)) > 2 * error)}" if off else "",
        percent(error) if error < math.inf else "",
        percent(median(numbers["half width"])),
        f"{100 * mean(covered):.0f} %" if covered else "",
        f"{1000 * sum(numbers['false']) / rows:.0f} ({rows:.0f} rows)" if rows else "",
        f"{median(numbers['workers']):g}",
    )


def other_words(records: Sequence[Record], numbers: dict[str, list[float]]) -> Iterator[str]:
    """Yield the medians of other numbers, and reasons of failures."""
    widths = ("detectable", "half width", "step", *COLD)
    for name, values in numbers.items():
        if name != "right":
            width = name.removesuffix(", widest") in widths
            value = f"±{percent(median(values))}" if width else f"{median(values):.4g}"
            yield f"{name} {value}"
    yield from dict.fromkeys(f"failed: {r['failed']}" for r in records if "failed" in r)


if __name__ == "__main__":
    sys.exit(main())
