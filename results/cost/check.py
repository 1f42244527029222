"""Check what `bakeoff cost` says of 45 steps by a second method, which truth.py is.

    python results/cost/check.py --repeat 1
    python results/cost/check.py --model haiku --budget 30 --seconds 2 --folder try

For each model of models.py, `bakeoff cost` measures its styles in one run, and truth.py each style
in several processes; the order is random. Each style is a line of `check.jsonl`, appended when its
model is done. What an engine's commit has there counts: `--repeat 2` goes on until each step was
checked twice, after Ctrl-C too, and `--repeat 0` writes `check.md` alone. All 45 steps take about
35 minutes in a quiet hour. Nothing else should run meanwhile.

A program that a process has just compiled can be slower than the same one from JAX's cache, where
most workers of `bakeoff cost` have theirs from. With `--cached`, truth.py has it from there, too.
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
from collections import Counter
from pathlib import Path
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

from bench.cost.step import OwnCost
from bench.metrics import HOST, STEP
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table, amount, percent
from bench.runfile.reader import read as read_run
from results.cost.models import MODELS, Model
from results.selftest.trials import BUSY, OTHERS, ROOT, Engine, empty_loop, processor, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    type Record = dict[str, Any]

RECORDS, TABLES = "check.jsonl", "check.md"
TRUTH = Path(__file__).with_name("truth.py")
PROCESSES = 3
"""Of truth.py for each style: what they differ by is the error of its figure."""
METHODS = {
    "truth": "by the median ratio of pairs of calls, times the baseline's quiet call",
    "quiet": "by the difference of both quiet calls",
}
"""How truth.py says what a style adds. Noise lengthens a short call by more of its time than a long
one, so that the first says less of styles that take several times as long."""
RELATIVE, ABSOLUTE = 0.1, 5.0
"""How far from the truth a told cost may be: a fraction of it, or so many microseconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check steps; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=1, help="checks of each step")
    parser.add_argument("--model", default="", help="only models whose name has this in it")
    parser.add_argument("--budget", type=float, default=60, help="seconds of `bakeoff cost`")
    parser.add_argument("--seconds", type=float, default=3, help="of each process of truth.py")
    parser.add_argument(
        "--cached", action="store_true", help="truth.py reads programs from JAX's cache"
    )
    parser.add_argument("--folder", type=Path, default=TRUTH.parent, help="of the records")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    path, status = options.folder / RECORDS, 0
    models, engine = [m for m in MODELS if options.model in m.name], Engine(ROOT).commit()
    try:
        for turn in range(options.repeat):
            for model in random.sample(models, len(models)):
                same = engine, model.name, options.cached
                made = Counter(r["style"] for r in read(path) if same_as(r) == same)
                if styles := [style for style in model.styles if made[style] <= turn]:
                    about = {
                        "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
                        "processor": processor(),
                        "engine": engine,
                        "loop": empty_loop(),
                        "model": model.name,
                        "cached": options.cached,
                    }
                    for record in check(model, styles, options):
                        line = json.dumps(about | record)
                        with path.open("a", encoding="utf-8") as file:
                            file.write(line + "\n")
                        print(line, flush=True)
    except KeyboardInterrupt:
        status = 130
    text = markdown(read(path))
    (options.folder / TABLES).write_text(text, encoding="utf-8")
    print(text)
    return status


def same_as(record: Record) -> tuple[str, str, bool]:
    """Return what has to be the same for a check to count."""
    return record["engine"], record["model"], record["cached"]


def check(model: Model, styles: Sequence[str], options: argparse.Namespace) -> list[Record]:
    """Return what `bakeoff cost` says of a model's styles, and what truth.py does."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-check-") as name:
        folder = Path(name)
        (folder / f"{model.name}.py").write_text(model.file(), encoding="utf-8")
        actions = ["", *(style for style in styles for _ in range(PROCESSES))]
        told: dict[str, Record] = {}
        truths: dict[str, list[Record]] = {style: [] for style in styles}
        for style in styles if options.cached else ():
            truth(model, style, 0, folder, cached=True)  # which compiles
        for style in random.sample(actions, len(actions)):
            if style:
                made = truth(model, style, options.seconds, folder, cached=options.cached)
                truths[style].append(made)
            else:
                told = tell(model, styles, options.budget, folder)
    return [
        {
            "style": style,
            **told[style],
            "truth": [round(each["added"], 2) for each in truths[style]],
            "quiet": [round(each["quiet"], 2) for each in truths[style]],
            "calls": [round(each["call"], 2) for each in truths[style]],
            "pairs": [each["pairs"] for each in truths[style]],
        }
        for style in styles
    ]


def truth(model: Model, style: str, seconds: float, folder: Path, *, cached: bool) -> Record:
    """Return what a process of truth.py prints."""
    arguments = [f"{model.name}.py", f"{model.library}/{style}", f"--seconds={seconds}"]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-P", str(TRUTH), *arguments]
    made = run(command, folder, **(cache if cached else {}))
    if made.returncode:
        raise SystemExit(f"truth.py {' '.join(arguments)} fails:\n{made.stderr[-2000:]}")
    return json.loads(made.stdout)


def tell(model: Model, styles: Sequence[str], budget: float, folder: Path) -> dict[str, Record]:
    """Return what `bakeoff cost` says of each style, in microseconds; or why it does not."""
    path = folder / "run.json"
    options = [f"--style={','.join(styles)}", "--backend=cpu", f"--budget={budget}", f"-o{path}"]
    made = run([sys.executable, "-m", "bench.cli", "cost", f"{model.name}.py", *options], folder)
    if OTHERS in made.stderr:
        raise SystemExit(made.stderr)
    if not path.exists():
        failed = {"arrays": None, "told": None, "failed": made.stderr[-300:]}
        return dict.fromkeys(styles, failed)
    results = read_run(path, samples=False).results
    it = OwnCost(results)
    step, arrays, call = (
        estimate.value if (estimate := it.table.amount(it.baseline, metric)) else None
        for metric in (STEP, "parameter_arrays", HOST)
    )
    about = {
        "arrays": arrays,
        "base": in_microseconds(call),
        "step ms": step and round(1e3 * step, 4),
        "seconds": round(results.spent.wall_seconds),
    }
    records: dict[str, Record] = {style: about | {"told": None} for style in styles}
    for row in results.cells:
        if row.failure is not None and row.cell.style in records:
            records[row.cell.style]["failed"] = row.failure
    for style, cost in it.costs.items():
        told = [in_microseconds(value) for value in (cost.value, cost.low, cost.high)]
        records[style] |= {"told": told, "workers": cost.workers}
    return records


def in_microseconds(seconds: float | None) -> float | None:
    """Return microseconds with two digits; None where there is no number."""
    return None if seconds is None else round(1e6 * seconds, 2)


def run(command: Sequence[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with some more variables."""
    env = os.environ | more
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def judged(record: Record, method: str = "truth") -> tuple[float, float, bool, bool]:
    """Return the truth, by how much the told cost is off, whether it is near, and in the interval.

    Of what was not told, neither is true. The method is `truth` or `quiet`.
    """
    true = mean(record[method])
    if not record["told"]:
        return true, math.nan, False, False
    value, low, high = record["told"]
    off = value - true
    bounds = low is not None or high is not None  # one worker alone has no interval
    near = abs(off) <= max(RELATIVE * abs(true), ABSOLUTE)
    held = bounds and (low is None or low <= true) and (high is None or true <= high)
    return true, off, near, held


def markdown(records: Sequence[Record]) -> str:
    """Return a table of all checks of each engine on each processor, and how many are right."""
    parts = [
        "# What `bakeoff cost` says, and what a second method says",
        f"Made by check.py; records: [{RECORDS}]({RECORDS}). All is of one core. Truth: "
        f"[truth.py](truth.py), which shares no code with this project; the mean of {PROCESSES} "
        "processes, with its standard error; quiet: by the difference of 10 % quantiles. "
        "Told: with the 95 % interval. Loop: median of empty loops before, 40 µs in a quiet hour.",
    ]
    groups: dict[str, list[Record]] = {}
    for record in records:
        how = " reads programs from a cache" if record["cached"] else ""
        title = f"## {record['engine']}, {record['processor']}; truth.py{how or ' compiles'}"
        groups.setdefault(title, []).append(record)
    for title, several in groups.items():
        parts += [title, summary(several), table(several)]
    return "\n\n".join(parts) + "\n"


def summary(records: Sequence[Record]) -> str:
    """Return how many checks are right, of all and by the hour."""
    quiet = BUSY * min(record["loop"][0] for record in records)
    hours = {
        "all": records,
        "quiet hours": [record for record in records if record["loop"][1] <= quiet],
        "busy hours": [record for record in records if record["loop"][1] > quiet],
    }
    lines = []
    for hour, chosen in hours.items():
        if not chosen:
            continue
        untold = sum(not record["told"] for record in chosen)
        for method, words in METHODS.items():
            near, held = (
                sum(judged(record, method)[place] for record in chosen) for place in (2, 3)
            )
            lines.append(
                f"* {hour}, {words}: within {percent(RELATIVE)} or {ABSOLUTE:g} µs: {near} of "
                f"{len(chosen)}; the interval holds it: {held} of {len(chosen)}"
                f"{f'; without a number: {untold}' * bool(untold)}"
            )
    return "\n".join(lines)


def table(records: Sequence[Record]) -> str:
    """Return a row for each check."""
    steps = [(model.name, style) for model in MODELS for style in model.styles]
    places = {step: place for place, step in enumerate(steps)}
    rows = []
    for record in sorted(records, key=lambda r: places.get((r["model"], r["style"]), len(steps))):
        true, off, near, held = judged(record)
        error = stdev(record["truth"]) / math.sqrt(len(record["truth"]))
        told, far = record.get("failed", "no number"), ""
        if record["told"]:
            value, *ends = record["told"]
            low, high = ("?" if end is None else signed(end) for end in ends)
            told = f"{signed(value)} µs ({low} to {high})"
            far = f"{signed(off)} µs ({100 * off / abs(true):+.0f} %)"
        row = (
            *(record["model"], record["style"], f"{record['arrays'] or 0:g}"),
            *(
                amount(1e-6 * median(record["calls"]), "s"),
                told,
                f"{signed(true)} µs ± {error:.1f}",
                f"{signed(mean(record['quiet']))} µs",
            ),
            *(far, "yes" if near else "no", "yes" if held else "no", f"{record['loop'][1]:.0f} µs"),
        )
        rows.append(Row(row))
    titles = (
        "model",
        "style",
        "arrays",
        "base call",
        "told",
        "truth",
        "quiet",
        "off",
        "near",
        "held",
        "loop",
    )
    columns = tuple(Column(title, number=2 <= place < 8) for place, title in enumerate(titles))
    return "\n".join(table_lines(Table(columns, tuple(rows))))


def signed(microseconds: float) -> str:
    """Return a number with its sign, and a digit after the point below 100."""
    return f"{microseconds:+.{1 if abs(microseconds) < 100 else 0}f}"


if __name__ == "__main__":
    sys.exit(main())
