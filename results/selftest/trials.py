"""Trials on real runs of one engine or two: planted differences, identical programs, whole runs.

    python results/selftest/trials.py --part arms-1 --part ab-1 --repeat 10 --beside ../a38445f

Each trial is a line of `engine.jsonl`, appended when it ends. What an engine's commit has there
counts: `--repeat 10` goes on until there are ten, after Ctrl-C too, and `--repeat 0` writes the
tables of `engine.md` alone. `--beside` is a checkout of another commit of this project, which runs
its own `trial.py` in its own `.venv`, if it has one; which of the two is first is drawn for each
turn. Nothing else should run meanwhile.
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
from functools import cache
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from uv import find_uv_bin

from bench.numbers import percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile.reader import Machine
from results.selftest.trial import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    type Record = dict[str, Any]

RECORDS, TABLES = "engine.jsonl", "engine.md"
ROOT = Path(__file__).resolve().parents[2]
CODE = ("bench", "common", "impls")
"""Folders of an engine: its commit is the last one that changed them."""
OTHERS = "is measuring on this machine"
"""Part of the message of a run that does not begin because another one measures: no trial."""
STEP_BUDGET = 10
"""Seconds in which plain JAX's step is measured, to plant parts of it."""
LOOPS, ITERATIONS = 300, 4000
"""Empty loops before a trial, of 40 µs each."""
BUSY = 1.2
"""Median of these loops above which an hour is busy, as a ratio to the shortest 10 % quantile on
that processor: in quiet hours it was up to 1.13, in a busy one 1.5 to 1.8."""


LAST_WORDS = 160
"""Characters of a failure's end that the table has: its reason, and where the journal is."""


class Part(NamedTuple):
    """Trials of one kind."""

    name: str
    """In the table; the budget is added."""
    run: str
    """Function of trial.py."""
    budget: float
    """Seconds."""
    percent: tuple[float, ...] = ()
    """What is planted, in per cent of plain JAX's step: in an arm, or on the base and new sides."""
    given: Mapping[str, Any] = {}
    """Further arguments of that function."""


ARRAYS = {"plant": "wait_of_side(per_array=True)", "waits": [0, 0.3], "arrays": True}
PARTS = {
    "arms-0": Part("two arms, 0 %", "arms", 20),
    "arms-1": Part("two arms, 1 %", "arms", 20, (1,)),
    "arms-0.5": Part("two arms, 0.5 %", "arms", 60, (0.5,)),
    "ab-0": Part("ab, 0 %", "sides", 60),
    "ab-1": Part("ab, 1 %", "sides", 60, (0, 1)),
    "ab-0-30": Part("ab, 0 %", "sides", 30),
    "ab-1-30": Part("ab, 1 %", "sides", 30, (0, 1)),
    "ab-0.5": Part("ab, 0.5 %", "sides", 60, (0, 0.5)),
    "arrays": Part("ab, 0.3 µs per array", "sides", 60, given=ARRAYS),
    "default": Part("default run", "default", 300),
    "libraries": Part("ab, all libraries", "libraries", 120),
    "apart": Part("ab, built apart, 0 %", "sides", 60),
    "swapped": Part("ab, 1 % on the base side", "sides", 60, (1, 0)),
    "first": Part("ab, 5 % for the first", "sides", 60, (5, 5), {"plant": "first_of_round()"}),
    "first-arms": Part("two arms, 5 % for the first", "arms", 60, (5,), {"first": True}),
}
ALONE = ("first", "first-arms")
"""Parts with plants that other engines may not have."""


class Engine(NamedTuple):
    """A checkout of this project."""

    root: Path

    @property
    def script(self) -> Path:
        """Its own trials' script, which knows its API; a38445f was run by that of a90616f."""
        return self.root / "results/selftest/trial.py"

    @property
    def python(self) -> str:
        """Its interpreter, or this one."""
        own = self.root / ".venv/bin/python"
        return str(own) if own.exists() else sys.executable

    def commit(self) -> str:
        """Return the commit of its code; with a plus where that has changed since."""
        commands = ("log", "-1", "--abbrev=7", "--format=%h"), ("status", "--porcelain")
        commit, changed = (
            subprocess.check_output(["git", "-C", self.root, *command, "--", *CODE], text=True)  # noqa: S603, S607
            for command in commands
        )
        return commit.strip() + ("+" if changed else "")

    def run(self, **given: Any) -> Record:
        """Run a trial in a process of its own; return its numbers, or how it failed."""
        variables = {name: value for name, value in os.environ.items() if "XDIST" not in name}
        with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as folder, chdir(folder):
            command = [self.python, "-P", str(self.script), json.dumps(given), "out.json"]
            status, said = run(command, env=variables | {"PYTHONPATH": str(self.root)})
            if OTHERS in said:
                raise SystemExit(said)
            if status or not Path("out.json").exists():
                return {"numbers": {}, "failed": said.replace(f"{self.root}{os.sep}", "")[-300:]}
            record: Record = json.loads(Path("out.json").read_text("utf-8"))
        if (used := Path(record.pop("root"))) != self.root:
            raise SystemExit(f"{used} was measured, not {self.root}: its packages are in the way")
        return record

    def built_apart(self, folder: Path) -> list[str]:
        """Return the interpreters of two environments of its lock, built if they are not there."""
        pythons = []
        for place in (folder / self.commit() / side for side in ("base", "new")):
            pythons.append(str(place / "bin/python"))
            if not place.exists():
                lock = ["--require-hashes", str(self.root / "requirements.lock")]
                for command in (
                    ["venv", "--python", self.python, str(place)],
                    ["pip", "sync", "--python", pythons[-1], *lock],
                ):
                    subprocess.run([find_uv_bin(), *command, "--quiet"], check=True)  # noqa: S603
        return pythons


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the records")
    parser.add_argument("--part", action="append", choices=PARTS, help="again for more; or all")
    parser.add_argument("--repeat", type=int, default=1, help="trials of each part and engine")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="a checkout of another engine")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all budgets")
    parser.add_argument(
        "--busy", action="store_true", help="something else runs meanwhile, on purpose"
    )
    options = parser.parse_args(arguments)
    engines = [Engine(ROOT), *([Engine(options.beside.resolve())] if options.beside else [])]
    if len({engine.commit() for engine in engines}) < len(engines):
        parser.error(f"{options.beside} has the same code as this checkout")
    for engine in engines:
        if not engine.script.exists():
            parser.error(f"{engine.root} has no {engine.script.name}: give a later commit")
    options.folder.mkdir(parents=True, exist_ok=True)
    path, status = options.folder / RECORDS, 0
    try:
        with tempfile.TemporaryDirectory(prefix="bakeoff-apart-") as folder:
            for turn in range(options.repeat):
                for name in options.part or PARTS:
                    about = {"busy": True} if options.busy else {}
                    take_turn(turn, name, engines, path, options.scale, Path(folder), about)
    except KeyboardInterrupt:
        status = 130
    (options.folder / TABLES).write_text(markdown(read(path)), encoding="utf-8")
    return status


def take_turn(
    turn: int,
    name: str,
    engines: Sequence[Engine],
    path: Path,
    scale: float,
    folder: Path,
    more: Mapping[str, bool],
) -> None:
    """Let each engine make a trial, in random order, unless it has made more than `turn` of them.

    Args:
        turn: Number of the turn.
        name: Of the part.
        engines: This one, which says what is planted, and perhaps another one.
        path: The file of records.
        scale: Factor of budgets.
        folder: For environments that are built.
        more: What else records say.
    """
    part = PARTS[name]
    budget = part.budget * scale
    trial = f"{part.name} in {budget:g} s"
    made = Counter(record["engine"] for record in read(path) if record["trial"] == trial)
    for engine in random.sample(engines, len(engines)):
        if made[engine.commit()] > turn or (name in ALONE and engine != engines[0]):
            continue
        given = {"run": part.run, "budget": budget, **part.given}
        if part.percent:
            cores = "auto" if part.run == "arms" else "one"
            step = microseconds_of_step(engines[0], cores, STEP_BUDGET * scale)
            given["waits"] = [each / 100 * step for each in part.percent]
        if name == "apart":
            given["pythons"] = engine.built_apart(folder)
        about = {
            "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
            "processor": processor(),
            "engine": engine.commit(),
            "loop": empty_loop(),
            "trial": trial,
            "budget": budget,
            "waits": given.get("waits", []),
            **more,
        }
        line = json.dumps(about | engine.run(**given), ensure_ascii=False)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


@cache
def microseconds_of_step(engine: Engine, cores: str, budget: float) -> float:
    """Return what plain JAX's step at `seed` takes on this machine."""
    record = engine.run(run="step", budget=budget, cores=cores)
    if "failed" in record:
        raise SystemExit(f"plain JAX's step cannot be measured: {record['failed']}")
    return float(record["numbers"]["base"])


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
    about = msgspec.convert(pytest_benchmark_generate_machine_info(), Machine)
    return f"{about.processor_model}, {os.cpu_count()} cores"


def read(path: Path) -> list[Record]:
    """Return all records; the oldest, which have a `code`, are given the others' fields."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    records: list[Record] = [json.loads(line) for line in lines]
    for record in records:
        if "code" in record:
            planted, right = record.pop("planted", {}), record["right"]
            nothing = planted.pop("microseconds", None) == 0
            counts = {"truth": 1, "rows": 1, "false": not right} if nothing else {}
            record["numbers"] |= {"right": right, **planted, **counts}
            record |= {"engine": record["code"], "processor": record["machine"]}
    return records


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all records: of ratios, and of whole runs."""
    least: dict[str, float] = {}
    for record in records:
        loop = min(record.get("loop", [math.inf])[0], least.get(record["processor"], math.inf))
        least[record["processor"]] = loop
    groups: dict[tuple[str, ...], dict[str, list[Record]]] = {}
    for record in records:
        hour = ""
        if loops := record.get("loop"):
            busy = "busy" in record or loops[1] > BUSY * least[record["processor"]]
            hour = "busy" if busy else "quiet"
        key = record["trial"], record["engine"], record["processor"]
        groups.setdefault(key, {}).setdefault(hour, []).append(record)
    for hours in groups.values():
        if len(hours) > 1:
            hours["both"] = [record for several in hours.values() for record in several]
    ratios, whole = [], []
    for (trial, engine, processor), hour, several in (
        (key, *item) for key, hours in groups.items() for item in hours.items()
    ):
        numbers: dict[str, list[float]] = defaultdict(list)
        for record in several:
            for name, value in record["numbers"].items():
                numbers[name].append(math.inf if value is None else value)
        loops = [record["loop"][1] for record in several if "loop" in record]
        when = f"{hour}, {median(loops):.1f} µs" if loops else ""
        first = trial, engine, when, str(len(several)), f"{sum(numbers['right']):.0f}"
        failed = [each["failed"] for each in several if "failed" in each]
        reasons = f"{len(failed)}, the first: {failed[0][-LAST_WORDS:]}" if failed else ""
        if "ratio" in numbers:
            ratios.append(Row((*first, *ratio_cells(several, numbers), reasons, processor)))
        else:
            numbers.pop("right")
            words = [f"{name} {median(values):.4g}" for name, values in numbers.items()]
            whole.append(Row((*first, ", ".join(words), reasons, processor)))
    about = ("trial", "engine", "hour", "runs", "right")
    titles = ("ratio", "off", "error", "half width", "covered", "false in 1,000", "workers")
    parts = [
        "# Trials on real runs",
        f"Made by trials.py from [{RECORDS}]({RECORDS}); trials of kills are now in "
        "tests/test_kills.py. *Hour*: the median time of empty loops before the trials. An hour is "
        f"busy if this median is more than {BUSY:g} times the shortest 10 % quantile on that "
        "processor, or if something else ran on purpose. *Right*: the planted difference was found "
        "with its sign, "
        "or none was found where none was planted; a default run settled 13 styles at `seed`; an "
        "A/B of all libraries had an answer. *Off*: the mean ratio minus the planted one; `!` if "
        "it is more than two standard errors from zero. *Error*: its standard error. *Covered*: "
        "intervals that contain the planted difference. *False*: rows without a planted difference "
        "that were reported as different.",
        table(ratios, *about, *titles, "failures", "processor"),
        table(whole, *about, "medians", "failures", "processor"),
    ]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row], *titles: str) -> str:
    """Return a table, with numbers from the fourth column on."""
    words = (*titles[:3], "failures", "medians", "processor")
    columns = tuple(Column(title, number=title not in words) for title in titles)
    return "\n".join(table_lines(Table(columns, tuple(rows))))


def ratio_cells(records: Sequence[Record], numbers: Mapping[str, list[float]]) -> list[str]:
    """Return what trials say of a planted ratio, as cells of the table."""
    off, error, covered, false = "", "", "", ""
    if known := [each["numbers"] for each in records if "truth" in each["numbers"]]:
        logs = [math.log(each["ratio"] / each["truth"]) for each in known]
        spread = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
        off = f"{100 * mean(logs):+.2f} %{' !' * (abs(mean(logs)) > 2 * spread)}"
        error = percent(spread) if spread < math.inf else ""
        held = [n["low"] <= n["truth"] and (n["high"] or math.inf) >= n["truth"] for n in known]
        covered = f"{100 * mean(held):.0f} %"
    if rows := sum(numbers.get("rows", ())):
        called = sum(numbers["false"])
        false = f"{1000 * called / rows:.0f} ({called:.0f} of {rows:.0f})"
    middle, width = f"{median(numbers['ratio']):.4f}", percent(median(numbers["half width"]))
    return [middle, off, error, width, covered, false, f"{median(numbers['workers']):g}"]


if __name__ == "__main__":
    sys.exit(main())
