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
from bench.metrics import HOST, METRICS
from bench.numbers import percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile.reader import read as read_run
from common.config import is_skeleton
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
            return about | {"rows": {}, "failed": (made.stdout + made.stderr)[-300:]}
        results = read_run(written, samples=False).results
    rows = [row for row in results.estimates if is_told(row)]
    levels = {f"call {row.cell.workload}": [row.level, None, None] for row in rows if row.level}
    numbers = {name_row(row): [row.value, row.low, row.high] for row in rows}
    return about | {"rows": numbers | levels, "others": round(results.spent.others, 3)}


def is_told(row: Estimate) -> bool:
    """Tell whether a row is a comparison that a person reads, with an interval."""
    varies = METRICS[row.metric].varies and not row.is_noiseless
    compared = row.form == "added" or row.form == "ratio"
    has_ends = row.low is not None and row.high is not None
    return varies and compared and has_ends and not row.is_unknown and row.metric != "dispatch"


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
    """A row beside a load, and the same without."""

    subject: str
    load: str
    row: str
    told: tuple[float, float | None, float | None]
    quiet: tuple[float, float]
    """Mean of the runs without load, and half the width of the interval of that."""
    scale: float
    """Value that a distance is a fraction of: of a ratio, 1."""

    @property
    def off(self) -> float:
        """Distance from the quiet value, as a fraction."""
        return (self.told[0] - self.quiet[0]) / self.scale

    @property
    def holds(self) -> bool:
        """Whether the interval contains the quiet value."""
        _, low, high = self.told
        return low is not None and high is not None and low <= self.quiet[0] <= high

    @property
    def agrees(self) -> bool:
        """Whether the interval of the difference from the quiet value contains zero."""
        value, low, high = self.told
        if low is None or high is None:
            return False
        half = high - value if value < self.quiet[0] else value - low
        return abs(value - self.quiet[0]) <= math.hypot(half, self.quiet[1])


def judge(records: Sequence[Record]) -> tuple[list[Judged], list[tuple[str, str, str]]]:
    """Return the rows beside loads, and those that are not known there but without load.

    Both quiet runs of a turn have to tell a row; they are the runs next to those beside loads.
    """
    turns: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        turns[record["subject"], record["turn"]].append(record)
    judged, unknown = [], []
    for (subject, _), several in turns.items():
        quiet = [record["rows"] for record in several if record["load"] == QUIET]
        for record in several:
            if record["load"] == QUIET or len(quiet) < 2:
                continue
            for name in quiet[0]:
                known = [rows[name] for rows in quiet if name in rows]
                if len(known) < len(quiet):
                    continue
                if name not in record["rows"]:
                    unknown.append((subject, record["load"], name))
                    continue
                middle = mean(row[0] for row in known)
                halves = [(row[2] - row[1]) / 2 for row in known if row[1] is not None]
                apart = abs(known[0][0] - known[1][0]) / 2
                half = math.hypot(mean(halves or [0.0]) / math.sqrt(2), apart)
                is_ratio = not name.startswith((HOST, "call"))
                told = tuple(record["rows"][name])
                scale = 1.0 if is_ratio else abs(middle)
                judged.append(Judged(subject, record["load"], name, told, (middle, half), scale))
    return judged, unknown


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all trials of each engine on each processor."""
    parts = [
        "# What is told beside other work",
        f"Made by load.py from [{RECORDS}]({RECORDS}). Each subject was measured without load, "
        "beside three loads, and without. *Holds*: the row's 95 % interval contains the mean of "
        "the two quiet values. *Agrees*: the interval of the difference contains zero, where the "
        "quiet values have their own doubt, and half of what they differ by: the machine's speed "
        "changes from minute to minute. *Off*: the distance from the quiet value, as a fraction of "
        "it; of a ratio, as a fraction of plain JAX's time. *Not known*: told without load, not "
        "told beside it. A *call* is plain JAX's, without an interval. Loads: loops without end; "
        "on and off at random, up to 1.5 s or 12 ms; compilers go through 64 MB again and again.",
    ]
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"## {record['engine']}, {record['processor']}", []).append(record)
    for title, several in groups.items():
        judged, unknown = judge(several)
        if judged or unknown:
            parts += [title, summary(judged, unknown, several), by_load(judged, unknown)]
            parts += [table(judged)]
    return "\n\n".join(parts) + "\n"


def summary(
    judged: Sequence[Judged], unknown: Sequence[tuple[str, str, str]], records: Sequence[Record]
) -> str:
    """Return how many rows are right."""
    rows = [row for row in judged if row.told[1] is not None]
    loaded = [record for record in records if record["load"] != QUIET]
    far = [row for row in judged if abs(row.off) > MOST_OFF]
    holds, agrees = (sum(getattr(r, name) for r in rows) for name in ("holds", "agrees"))
    calls = sum(name.startswith("call") for *_, name in unknown)
    loops = [record["loop"][1] for record in records]
    return "\n".join(
        [
            f"* {len(loaded)} runs beside loads told {len(rows)} rows: the interval holds the "
            f"quiet value in {holds} ({percent(holds / max(1, len(rows)))}), and agrees with it in "
            f"{agrees} ({percent(agrees / max(1, len(rows)))})",
            f"* {len(far)} of {len(judged)} rows and calls are off by more than "
            f"{percent(MOST_OFF)}",
            f"* {len(unknown) - calls} rows and {calls} calls are not known beside a load",
            f"* empty loops before the runs took {min(loops):.0f} to {max(loops):.0f} µs",
        ]
    )


def by_load(judged: Sequence[Judged], unknown: Sequence[tuple[str, str, str]]) -> str:
    """Return a row for each load."""
    rows = []
    for load in LOADS:
        those = [row for row in judged if row.load == load and row.told[1] is not None]
        missing = sum(where == load and not name.startswith("call") for _, where, name in unknown)
        if those or missing:
            counts = (sum(getattr(row, name) for row in those) for name in ("holds", "agrees"))
            worst = max((abs(row.off) for row in those), default=math.nan)
            ends = f"{percent(worst)}" if those else ""
            rows.append(Row((load, f"{len(those)}", *map(str, counts), ends, f"{missing}")))
    titles = "load", "rows", "holds", "agrees", "most off", "not known"
    return table_text(titles, rows)


def table(judged: Sequence[Judged]) -> str:
    """Return a row for each number beside a load."""
    rows = []
    for row in judged:
        value, low, high = row.told
        is_ratio = row.scale == 1.0
        told = write(value, is_ratio=is_ratio)
        if low is not None and high is not None:
            told += f" ({write(low, is_ratio=is_ratio)} to {write(high, is_ratio=is_ratio)})"
        quiet = write(row.quiet[0], is_ratio=is_ratio)
        words = ("", "") if low is None else ("yes" * row.holds or "no", "yes" * row.agrees or "no")
        off = f"{100 * row.off:+.0f} %"
        rows.append(Row((row.subject, row.load, row.row, quiet, told, off, *words)))
    return table_text(
        ("subject", "load", "row", "quiet", "told", "off", "holds", "agrees"), rows, (3, 4, 5)
    )


def write(value: float, *, is_ratio: bool) -> str:
    """Return a ratio, or microseconds."""
    return f"{value:.3f}" if is_ratio else f"{1e6 * value:.4g} µs"


def table_text(titles: Sequence[str], rows: Sequence[Row], numbers: Sequence[int] = ()) -> str:
    """Return a table in Markdown; `numbers` are the places of columns of numbers, or all but 0."""
    places = numbers or range(1, len(titles))
    columns = tuple(Column(title, number=n in places) for n, title in enumerate(titles))
    return "\n".join(table_lines(Table(columns, tuple(rows))))


if __name__ == "__main__":
    sys.exit(main())
