"""Trials beside other work: what is told must hold there, or not be told.

    python results/selftest/load.py --file ../models/mixer_nnx.py
    python results/selftest/load.py --subject starter --repeat 2

Each subject is measured by its command in a quiet hour, then beside three of the loads, then once
more without. Each run is a line of `load.jsonl`, appended when it ends; the tables are in
`load.md`. A subject that has its runs of this engine's commit is not measured again: after Ctrl-C,
the same command goes on, and `--repeat 0` writes the tables alone. Nothing else should run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import bench
from bench.metrics import METRICS
from bench.numbers import percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile.reader import read as read_run
from bench.workloads import is_skeleton
from results.selftest.trials import OTHERS, ROOT, Engine, empty_loop, processor, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.estimates import Estimate

    type Record = dict[str, Any]

RECORDS, TABLES = "load.jsonl", "load.md"
QUIET = "none"
LOADS = {
    "1 loop": (1, "endless"),
    "2 loops, in seconds": (2, "seconds"),
    "3 loops": (3, "endless"),
    "compilers": (2, "compiler"),
    "2 loops": (2, "endless"),
    "2 loops, in milliseconds": (2, "milliseconds"),
}
"""Name of a load → its processes, and what each does."""
PAUSES = {"seconds": (1.5, 0.7), "milliseconds": (0.012, 0.006), "compiler": (1.5, 0.5)}
"""Kind of load → the longest seconds in which it computes, and in which it sleeps."""
MEGABYTES = 64
"""Memory that a process like a compiler goes through, again and again: more than all caches."""
LOADS_OF_SUBJECT = 3
"""Loads beside which a subject is measured in a turn; the next one has the next ones."""
MOST_OFF = 0.25
"""Largest distance from the quiet value, as a fraction of it, of a row that does no harm."""
RELEASES = "--base flax==0.12.10 --new flax==0.12.12 --entrant flax_nnx --metric host_cost"
OWN_STEP = "--base equinox==0.13.2 --step my_equinox.py --style filter_jit"


class Subject(NamedTuple):
    """A command, and the seconds that it is given."""

    name: str
    command: str
    budget: int
    model: str = ""
    """Library of the starter that the command reads."""


def list_subjects(files: Sequence[Path]) -> list[Subject]:
    """Return what is measured: stacks, starters, people's models, two A/Bs, a default run."""
    libraries = "equinox", "flax_nnx", "flax_linen", "haiku", "pure_jax"
    starters = (Subject(f"starter {n}", f"cost my_{n}.py", 30, n) for n in libraries)
    return [
        Subject("stack", "cost --arrays 147 --model equinox", 25),
        *starters,
        *(Subject(path.stem, f"cost {path.resolve()}", 40) for path in files),
        Subject("ab", f"ab {RELEASES}", 40),
        Subject("ab --step", f"ab {OWN_STEP}", 40, "equinox"),
        Subject("default", "", 40),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the records")
    parser.add_argument("--file", type=Path, action="append", default=[], help="a step file, too")
    parser.add_argument("--subject", default="", help="only subjects whose name has this in it")
    parser.add_argument("--repeat", type=int, default=1, help="turns of each subject")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    path, status, engine = options.folder / RECORDS, 0, Engine(ROOT).commit()
    subjects = list_subjects(options.file)
    try:
        for turn in range(options.repeat):
            for place, subject in enumerate(subjects):
                if options.subject in subject.name:
                    take_turn(turn, place, subject, path, engine)
    except KeyboardInterrupt:
        status = 130
    (options.folder / TABLES).write_text(markdown(read(path)), encoding="utf-8")
    return status


def take_turn(turn: int, place: int, subject: Subject, path: Path, engine: str) -> None:
    """Measure a subject without load, beside some, and without; unless that was done."""
    names = [*LOADS]
    first = (place + turn) * LOADS_OF_SUBJECT
    chosen = [names[(first + n) % len(names)] for n in range(LOADS_OF_SUBJECT)]
    begun = [r for r in read(path) if (r["engine"], r["subject"]) == (engine, subject.name)]
    done = [record["load"] for record in begun if record["turn"] == turn]
    for load in [QUIET, *chosen, QUIET][len(done) :]:
        about = {
            "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
            "processor": processor(),
            "engine": engine,
            "subject": subject.name,
            "budget": subject.budget,
            "turn": turn,
            "load": load,
            "loop": empty_loop(),
        }
        record = about | measure(subject, load) | {"loop_after": empty_loop()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        print(json.dumps(record, ensure_ascii=False), flush=True)


def measure(subject: Subject, load: str) -> Record:
    """Return the rows that a command tells beside a load."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-load-") as name:
        folder = Path(name)
        if subject.model:
            run(["new", f"my_{subject.model}", "--model", subject.model], folder)
        command = [*subject.command.split(), f"--budget={subject.budget}", "-o", "run.json"]
        with begin_load(load):
            start = time.monotonic()
            made = run(command, folder) if subject.command else run_default(subject, folder)
            took = time.monotonic() - start
        if OTHERS in made.stderr:
            raise SystemExit(made.stderr)
        written = folder / "run.json"
        about = {"status": made.returncode, "seconds": round(took)}
        if not written.exists():
            lines = (made.stdout + made.stderr).replace(f"{ROOT}{os.sep}", "").split("\n")
            reason = [line for line in lines if "no run file" in line or line.startswith("bakeoff")]
            return about | {"rows": {}, "failed": "".join(reason[-1:])[:300]}
        results = read_run(written, samples=False).results
    rows = [row for row in results.estimates if is_told(row)]
    numbers = {name_row(row): [row.value, row.low, row.high, row.level or 0] for row in rows}
    return about | {"rows": numbers, "others": round(results.spent.others, 3)}


def is_told(row: Estimate) -> bool:
    """Tell whether a row is a comparison that a person reads, with an interval."""
    varies = METRICS[row.metric].varies and not row.is_noiseless
    compared = row.form == "added" or row.form == "ratio"
    has_ends = row.low is not None and row.high is not None
    is_known = has_ends and not row.is_unknown and not row.cell.is_control
    return varies and compared and is_known and row.metric != "dispatch"


def name_row(row: Estimate) -> str:
    """Return a name for a row that all runs of a subject share."""
    place = "" if is_skeleton(row.cell.workload) else f" {row.cell.workload}"
    return f"{row.metric} {row.cell.arm}{place}"


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of bakeoff in a folder."""
    return run_python(["-m", "bench.cli", *command], folder)


def run_default(subject: Subject, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks as `pytest bench` does."""
    path = str(Path(bench.__file__).parent)
    given = [path, f"--budget={subject.budget}", f"--benchmark-json={folder / 'run.json'}"]
    return run_python(["-m", "pytest", *given], ROOT)


def run_python(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python in a folder."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-P", *command]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603


# the loads


@contextmanager
def begin_load(load: str) -> Iterator[None]:
    """Have processes at work until the end of a block."""
    count, kind = LOADS.get(load, (0, ""))
    context = multiprocessing.get_context("spawn")
    works = [context.Process(target=work, args=(kind,), daemon=True) for _ in range(count)]
    for process in works:
        process.start()
    try:
        yield
    finally:
        for process in works:
            process.kill()
            process.join()


def work(kind: str) -> None:
    """Compute without end; on and off at random, or going through memory as a compiler does."""
    busy, pause = PAUSES.get(kind, (1.0, 0.0))
    rng, memory = np.random.default_rng(), bytearray(MEGABYTES << 20 if kind == "compiler" else 0)
    while True:
        end = time.monotonic() + rng.uniform(busy / 20, busy)
        while time.monotonic() < end:
            if memory:
                rng, memory = (
                    np.random.default_rng(),
                    bytearray(memory),
                )  # all of it is read and written
        if pause:
            time.sleep(rng.uniform(pause / 10, pause))


# the tables


class Judged(NamedTuple):
    """A number that was told beside a load, and without."""

    value: float
    low: float
    high: float
    quiet: float
    """Mean of the runs without load."""
    doubt: float
    """Half the width of the interval of that, with half of what its two runs differ by."""
    unit: float
    """What a distance is a fraction of: the quiet value, or plain JAX's time where it is a ratio
    to that."""

    @property
    def off(self) -> float:
        """Distance from the quiet value, as a fraction."""
        return (self.value - self.quiet) / self.unit

    @property
    def holds(self) -> bool:
        """Whether the interval contains the quiet value."""
        return self.low <= self.quiet <= self.high

    @property
    def agrees(self) -> bool:
        """Whether the interval of the difference from the quiet value contains zero."""
        end = self.high if self.value < self.quiet else self.low
        return abs(self.value - self.quiet) <= math.hypot(end - self.value, self.doubt)


class Comparison(NamedTuple):
    """A row of a subject, beside a load and without."""

    subject: str
    load: str
    row: str
    plain: Judged
    at_one_speed: Judged
    """The same, as a fraction of the call that each run saw."""


def judge(told: Sequence[float], quiet: Sequence[Sequence[float]], *, same_speed: bool) -> Judged:
    """Judge a row by those of two quiet runs: value, low, high, and the level of an added time."""
    is_ratio = not told[-1]
    rows = []
    for *numbers, level in (told, *quiet):
        scale = 1.0 if is_ratio or not same_speed else level
        rows.append([number / scale for number in numbers])
    (value, low, high), *others = rows
    middle = mean(row[0] for row in others)
    half = mean((row[2] - row[1]) / 2 for row in others) / math.sqrt(len(others))
    apart = max(abs(row[0] - middle) for row in others)
    unit = 1.0 if is_ratio else abs(middle)
    return Judged(value, low, high, middle, math.hypot(half, apart), unit)


def compare(records: Sequence[Record]) -> tuple[list[Comparison], list[tuple[str, str, str]]]:
    """Return the rows told beside loads, and those that are not known there but without load.

    All quiet runs of a turn have to tell a row; they come before and after those beside loads.
    """
    turns: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        turns[record["subject"], record["turn"]].append(record)
    compared, unknown = [], []
    for (subject, _), several in turns.items():
        quiet = [record["rows"] for record in several if record["load"] == QUIET]
        names = [name for name in quiet[0] if all(name in rows for rows in quiet)]
        for record in several if len(quiet) > 1 else ():
            for name in names if record["load"] != QUIET else ():
                if told := record["rows"].get(name):
                    known = [rows[name] for rows in quiet]
                    both = (judge(told, known, same_speed=same) for same in (False, True))
                    compared.append(Comparison(subject, record["load"], name, *both))
                else:
                    unknown.append((subject, record["load"], name))
    return compared, unknown


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all trials of each engine on each processor."""
    parts = [
        "# What is told beside other work",
        f"Made by load.py from [{RECORDS}]({RECORDS}). Each subject was measured without load, "
        "beside three loads, and without. *Quiet*: the mean of the two runs without load. *Holds*: "
        "the row's 95 % interval contains that. *Agrees*: the interval of the difference contains "
        "zero; the quiet value has its own doubt, and half of what its two runs differ by. *Off*: "
        "the distance from the quiet value, as a fraction of it; of a ratio, as a fraction of "
        "plain JAX's time. *At one speed*: the same for added times as fractions of the call that "
        "each run saw, since other guests of a host change its speed by up to 1.8 times from one "
        "minute to the next, which nothing inside of it shows. *Not known*: told without load, not "
        "told beside it. Loads: loops without end; on and off at random, up to 1.5 s or 12 ms; "
        "compilers go through 64 MB again and again, on and off in seconds.",
    ]
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"## {record['engine']}, {record['processor']}", []).append(record)
    for title, several in groups.items():
        compared, unknown = compare(several)
        if compared or unknown:
            parts += [title, summary(compared, unknown, several)]
            parts += [by_load(compared, unknown), table(compared)]
    return "\n\n".join(parts) + "\n"


def count(rows: Sequence[Judged]) -> str:
    """Return how many rows are right."""
    holds, agrees = (sum(getattr(row, name) for row in rows) for name in ("holds", "agrees"))
    far = sum(abs(row.off) > MOST_OFF for row in rows)
    parts = (percent(n / max(1, len(rows))) for n in (holds, agrees))
    held, agreed = (f"{n} ({part})" for n, part in zip((holds, agrees), parts, strict=True))
    return (
        f"the interval holds the quiet value in {held}, and agrees with it in {agreed}; off by "
        f"more than {percent(MOST_OFF)}: {far}"
    )


def summary(
    compared: Sequence[Comparison],
    unknown: Sequence[tuple[str, str, str]],
    records: Sequence[Record],
) -> str:
    """Return how many rows are right, as told and at one speed."""
    loaded = [record for record in records if record["load"] != QUIET]
    loops = [record["loop"][1] for record in records]
    return "\n".join(
        [
            f"* {len(loaded)} runs beside loads told {len(compared)} rows; {len(unknown)} that are "
            "told without load were not known",
            f"* as told: {count([row.plain for row in compared])}",
            f"* at one speed: {count([row.at_one_speed for row in compared])}",
            f"* empty loops before the runs took {min(loops):.0f} to {max(loops):.0f} µs (medians)",
        ]
    )


def by_load(compared: Sequence[Comparison], unknown: Sequence[tuple[str, str, str]]) -> str:
    """Return a row for each load."""
    rows = []
    for load in LOADS:
        those = [row.at_one_speed for row in compared if row.load == load]
        missing = sum(where == load for _, where, _ in unknown)
        if those or missing:
            counts = (sum(getattr(row, name) for row in those) for name in ("holds", "agrees"))
            worst = percent(max(abs(row.off) for row in those)) if those else ""
            rows.append(Row((load, f"{len(those)}", *map(str, counts), worst, f"{missing}")))
    titles = "load", "rows", "holds, at one speed", "agrees", "most off", "not known"
    return table_text(titles, rows)


def table(compared: Sequence[Comparison]) -> str:
    """Return a row for each number beside a load."""
    rows = []
    for row in compared:
        numbers = row.plain.value, row.plain.low, row.plain.high, row.plain.quiet
        if row.plain.unit == 1.0:
            value, low, high, quiet = (f"{number:.3f}" for number in numbers)
        else:
            value, low, high, quiet = (f"{1e6 * number:.4g} µs" for number in numbers)
        judged = []
        for it in (row.plain, row.at_one_speed):
            judged += [
                f"{100 * it.off:+.0f} %",
                "yes" * it.holds or "no",
                "yes" * it.agrees or "no",
            ]
        rows.append(Row((*row[:3], quiet, f"{value} ({low} to {high})", *judged)))
    same = "at one speed: off", "holds", "agrees"
    titles = ("subject", "load", "row", "quiet", "told", "off", "holds", "agrees", *same)
    return table_text(titles, rows, (3, 4, 5, 8))


def table_text(titles: Sequence[str], rows: Sequence[Row], numbers: Sequence[int] = ()) -> str:
    """Return a table in Markdown; `numbers` are the places of columns of numbers, or all but 0."""
    places = numbers or range(1, len(titles))
    columns = tuple(Column(title, number=n in places) for n, title in enumerate(titles))
    return "\n".join(table_lines(Table(columns, tuple(rows))))


if __name__ == "__main__":
    sys.exit(main())
