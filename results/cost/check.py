"""Check the results of `bakeoff cost` for 45 steps by a second method: truth.py.

    python results/cost/check.py
    python results/cost/check.py --model haiku --seconds 1 --folder try
    python results/cost/check.py --real

For each model of models.py, in random order, `bakeoff cost` measures its styles in one run, and
truth.py in several processes, two at the same time: half of the fewest before that run, the others
after it, until the mean is three times as certain as what was told, or there are enough. Each style
is a line of `check.jsonl`, appended when its model is done. Models that have lines of this engine's
commit are not measured again: after Ctrl-C, the same command continues. `--model none` only writes
`check.md`. Nothing else should run meanwhile.
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
from concurrent.futures import ThreadPoolExecutor
from operator import truediv
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import TYPE_CHECKING, Any

from bench.cells import WHOLE
from bench.numbers import percent
from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.runfile.reader import read as read_run
from bench.track.own_cost import OwnCost
from results.cost.models import IMPORTS, MODELS, Model
from results.selftest.trials import BUSY, OTHERS, ROOT, Engine, empty_loop, processor, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    type Record = dict[str, Any]

RECORDS, TABLES = "check.jsonl", "check.md"
TRUTH = Path(__file__).with_name("truth.py")
OPTIONS: dict[str, tuple[str, ...]] = {
    "skeleton": (),
    "one core": ("--real",),
    "two cores": ("--real", "--cores=2"),
}
"""Options of truth.py, by what it measures."""
SKELETON, ONE_CORE, TWO_CORES = OPTIONS
FEWEST_PROCESSES, MOST_PROCESSES = 8, 16
"""Processes of truth.py for each step that judges `bakeoff cost`: they differ by several per cent.
Other real steps have one process."""
TIMES_AS_CERTAIN = 3
"""Standard error of what is told, divided by that of truth.py's mean at which that is enough."""
LANES = 2
"""Processes of truth.py that run at the same time, each on one core, as workers of `bakeoff cost`
do: with a neighbour, calls take some per cent longer."""
RELATIVE, ABSOLUTE = 0.05, 2.0
"""Largest distance of a near result from the truth: a fraction of the truth, and microseconds."""
NORMAL = 1.96
"""Standard errors in half of a 95 % interval, about."""
PRECISE = 0.03
"""Largest half of an interval that is called precise, as a fraction of what is told."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check steps; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="", help="only models whose name has this in it")
    parser.add_argument("--budget", type=float, default=60, help="seconds of `bakeoff cost`")
    parser.add_argument("--real", action="store_true", help="time the real steps of all styles")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each process of truth.py")
    parser.add_argument("--folder", type=Path, default=TRUTH.parent, help="of the records")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    path, status = options.folder / RECORDS, 0
    engine = Engine(ROOT).commit()
    done = {record["model"] for record in read(path) if record["engine"] == engine}
    models = [m for m in MODELS if options.model in m.name and m.name not in done]
    try:
        for model in random.sample(models, len(models)):
            about = {
                "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
                "processor": processor(),
                "engine": engine,
                "model": model.name,
            }
            lines = [json.dumps(about | record) for record in check(model, options)]
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
            print(*lines, sep="\n", flush=True)
    except KeyboardInterrupt:
        status = 130
    text = markdown(read(path))
    (options.folder / TABLES).write_text(text, encoding="utf-8")
    print(text)
    return status


def judge_of(style: str) -> str:
    """Return which part of the truth judges a style: the file's own step has no skeleton."""
    return ONE_CORE if style == WHOLE else SKELETON


def check(model: Model, options: argparse.Namespace) -> list[Record]:
    """Return what `bakeoff cost` says of a model's styles, and what truth.py does."""
    judging = {
        kind: styles
        for kind in (SKELETON, ONE_CORE)
        if (styles := [style for style in model.styles if judge_of(style) == kind])
    }
    others = {kind: [*model.styles] for kind in (ONE_CORE, TWO_CORES) if options.real}
    truths: dict[str, list[Record]] = {kind: [] for kind in (*judging, *others)}
    with tempfile.TemporaryDirectory(prefix="bakeoff-check-") as name:
        folder = Path(name)
        (folder / f"{model.name}.py").write_text(model.file(), encoding="utf-8")

        def measure(kind: str, styles: Sequence[str], first: int = 0) -> list[Record]:
            return truth(model, styles, kind, options.seconds * len(styles), folder, first)

        def measure_lanes(kind: str) -> None:
            with ThreadPoolExecutor(LANES) as pool:
                works = [pool.submit(measure, kind, judging[kind], n) for n in range(LANES)]
                truths[kind] += [row for made in works for row in made.result()]

        for kind, styles in (judging | others).items():
            truth(model, styles, kind, 0, folder)  # which compiles
        for _ in range(FEWEST_PROCESSES // LANES // 2):
            for kind in judging:
                measure_lanes(kind)
        told = tell(model, options.budget, folder)
        for kind in judging:
            while not is_enough(truths[kind], told, judging[kind]):
                measure_lanes(kind)
        for kind, styles in others.items():
            left = [style for style in styles if style not in judging.get(kind, [])]
            truths[kind] += measure(kind, left)
    records = {style: {"style": style, **told[style]} for style in model.styles}
    for kind, made in truths.items():
        for style in model.styles:
            if of_style := [process for process in made if process["style"] == style]:
                records[style][kind] = {
                    "added": [round(process["added"], 2) for process in of_style],
                    "calls": [round(process["call"], 2) for process in of_style],
                    "rounds": [process["rounds"] for process in of_style],
                }
    return [*records.values()]


def is_enough(made: Sequence[Record], told: dict[str, Record], styles: Sequence[str]) -> bool:
    """Tell whether truth.py has had enough processes for some styles."""
    for style in styles:
        truths = [row["added"] / row["call"] for row in made if row["style"] == style]
        if len(truths) >= MOST_PROCESSES:
            return True
        error = stdev(truths) / math.sqrt(len(truths))
        error_told = half_interval(told[style]) / NORMAL * abs(mean(truths))  # infinite if not told
        if len(truths) < FEWEST_PROCESSES or math.inf > error_told < TIMES_AS_CERTAIN * error:
            return False
    return True


def truth(
    model: Model, styles: Sequence[str], kind: str, seconds: float, folder: Path, first: int = 0
) -> list[Record]:
    """Return what a process of truth.py prints; it reads the programs that an earlier one made.

    `first` is the place of its core, or of the first one.
    """
    arguments = [f"{model.name}.py", model.library, *styles, *OPTIONS[kind], f"--first={first}"]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / kind),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-P", str(TRUTH), *arguments, f"--seconds={seconds}"]
    made = run(command, folder, **cache)
    if made.returncode:
        raise SystemExit(f"truth.py {' '.join(arguments)} fails:\n{made.stderr[-2000:]}")
    return [json.loads(line) for line in made.stdout.splitlines()]


def tell(model: Model, budget: float, folder: Path) -> dict[str, Record]:
    """Return what `bakeoff cost` says of each style, in microseconds; or why it does not."""
    path, styles = folder / "run.json", model.styles
    options = [f"--style={','.join(styles)}", "--backend=cpu", f"--budget={budget}", f"-o{path}"]
    command = [sys.executable, "-m", "bench.cli", "cost", f"{model.name}.py", *options]
    before = empty_loop()
    made = run(command, folder, PYTHONPATH=str(ROOT))
    loop = max(before, empty_loop(), key=lambda times: times[1])
    if OTHERS in made.stderr:
        raise SystemExit(made.stderr)
    if not path.exists():
        failed = {"arrays": 0, "told": None, "failed": made.stderr[-300:], "loop": loop}
        return dict.fromkeys(styles, failed)
    results = read_run(path, samples=False).results
    it = OwnCost(results)
    light, real = (it.table.amount(cell, "parameter_arrays") for cell in (it.light, it.baseline))
    arrays = light or real
    about = {
        "arrays": arrays.value if arrays else 0,
        "loop": loop,
        "seconds": round(results.spent.wall_seconds),
    }
    records: dict[str, Record] = {style: about | {"told": None} for style in styles}
    for row in results.cells:
        if row.failure is not None and row.cell.style in records:
            records[row.cell.style]["failed"] = row.failure
    for style, cost in it.costs.items():
        told = [in_microseconds(value) for value in (cost.value, cost.low, cost.high)]
        records[style] |= {"told": told, "workers": cost.workers}
        records[style]["call"] = in_microseconds(cost.level)
    return records


def in_microseconds(seconds: float | None) -> float | None:
    """Return microseconds with two digits; None where there is no number."""
    return None if seconds is None else round(1e6 * seconds, 2)


def run(command: Sequence[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with some more variables."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | more
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def judged(record: Record, *, at_one_speed: bool = False) -> tuple[float, float, bool, bool]:
    """Return the truth, how far the told cost is off, and whether it is near and held.

    Held: the 95 % interval of the difference contains zero; the truth has an error, too. A style
    without a told cost is neither near nor held. At one speed, both are fractions of the plain call
    that each method saw, times the truth's: they were measured in different minutes, in which the
    machine's speed may differ, while such fractions stay.
    """
    truth = record[judge_of(record["style"])]
    level = mean(truth["calls"])
    fractions = map(truediv, truth["added"], truth["calls"])
    truths = [level * part for part in fractions] if at_one_speed else truth["added"]
    true = mean(truths)
    if not record["told"]:
        return true, math.nan, False, False
    speed = level / record["call"] if at_one_speed else 1.0
    value, low, high = (None if told is None else speed * told for told in record["told"])
    off = value - true
    near = abs(off) <= max(RELATIVE * abs(true), ABSOLUTE)
    if low is None and high is None:  # one worker alone has no interval
        return true, off, near, False
    end = low if off > 0 else high
    doubt = math.inf if end is None else end - value
    return true, off, near, abs(off) <= math.hypot(doubt, find_error(truths))


def find_error(truths: Sequence[float]) -> float:
    """Return half of the 95 % interval of the mean of truth.py's processes, by Student's t."""
    from scipy import special

    return float(special.stdtrit(len(truths) - 1, 0.975)) * stdev(truths) / math.sqrt(len(truths))


def half_interval(record: Record) -> float:
    """Return half of a told interval, as a fraction of what is told; infinite without one."""
    value, low, high = record["told"] or (math.nan, None, None)
    return math.inf if low is None or high is None else (high - low) / 2 / abs(value)


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all checks of each engine on each processor, and how many are right."""
    parts = [
        "# What `bakeoff cost` says, and what a second method says",
        f"Made by check.py from [{RECORDS}]({RECORDS}). *Told*: the time that a style adds to a "
        "call, as `bakeoff cost` reports it, with its 95 % interval. *Half*: half of that "
        "interval. *Truth*: the same time, measured on another skeleton by [truth.py](truth.py), "
        f"which shares no code with this project: the mean of several processes, with half of its "
        "95 % interval. The two were measured in different minutes, and the machine's speed may "
        "differ by half between these. *Call*: the time of a plain call in each measurement; *at "
        "one speed*, both methods' added times are compared as fractions of it. The file's own "
        "`step` has no skeleton, so both measure the real step, on one core. *One core*, *two "
        f"cores*: real steps, measured by truth.py. *Near*: within {percent(RELATIVE)} or "
        f"{ABSOLUTE:g} µs of the truth. *Held*: the 95 % interval of the difference contains zero. "
        "*Loop*: the median time of an empty loop, before or after, whichever is longer; it is "
        "longer in a busy hour.",
    ]
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"## {record['engine']}, {record['processor']}", []).append(record)
    for title, several in groups.items():
        parts += [title, summary(several), table(several)]
        if known := [record for record in several if {SKELETON, TWO_CORES} <= {*record}]:
            parts += [
                "How much more a style adds to a real step than to its skeleton: median (smallest "
                "to largest). truth.py measured both, and each is scaled to the speed of its "
                f"quietest process. {describe_all(known)}",
                distances(known, "arrays", lambda r: f"{r['arrays']:g}"),
                distances(known, "style", lambda r: f"{library_of(r)}/{r['style']}"),
            ]
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
        (near, held), (near_then, held_then) = (
            [sum(judged(r, at_one_speed=same)[place] for r in chosen) for place in (2, 3)]
            for same in (False, True)
        )
        precise = sum(half_interval(record) <= PRECISE for record in chosen)
        untold = sum(not record["told"] for record in chosen)
        lines.append(
            f"* {hour}, {len(chosen)} steps: within {percent(RELATIVE)} or {ABSOLUTE:g} µs: "
            f"{near} ({near_then} at one speed); the interval of the difference contains zero: "
            f"{held} ({held_then}); half an interval is at most {percent(PRECISE)}: {precise}"
            f"{f'; without a number: {untold}' * bool(untold)}"
        )
    lines.append(f"* the truth has {describe_certainty(records)}")
    spreads = [find_spread(record) for record in records]
    lines.append(
        f"* processes of truth.py differ from each other by {percent(median(spreads))} (standard "
        f"deviation, median over steps; the largest is {percent(max(spreads))})"
    )
    return "\n".join(lines)


def describe_certainty(records: Sequence[Record]) -> str:
    """Return how many processes steps have, and in how many their error is small enough."""
    counts, certain = [], 0
    for record in records:
        truth = record[judge_of(record["style"])]
        counts.append(len(truth["added"]))
        error = find_error([*map(truediv, truth["added"], truth["calls"])])
        mean_part = abs(mean(map(truediv, truth["added"], truth["calls"])))
        certain += TIMES_AS_CERTAIN * error <= half_interval(record) * mean_part
    return (
        f"{min(counts)} to {max(counts)} processes; its error is at most 1/{TIMES_AS_CERTAIN} of "
        f"what is told in {certain}"
    )


def find_spread(record: Record) -> float:
    """Return the standard deviation of truth.py's processes, as a fraction of their mean."""
    truths = record[judge_of(record["style"])]["added"]
    return stdev(truths) / abs(mean(truths))


def library_of(record: Record) -> str:
    """Return the library of a record's model."""
    return next(name for name in IMPORTS if name.removeprefix("flax_") in record["model"])


def find_distance(record: Record, kind: str) -> float:
    """Return how much more a real step adds than its skeleton, in per cent."""
    return 100 * (at_full_speed(record[kind]) / at_full_speed(record[SKELETON]) - 1)


def at_full_speed(truth: Record) -> float:
    """Return what truth.py's processes measured, scaled to the speed of the quietest.

    Their programs are the same, so plain calls show their speeds.
    """
    calls = truth["calls"]
    return min(calls) * mean(map(truediv, truth["added"], calls))


def describe_all(records: Sequence[Record]) -> str:
    """Return in words how far all real steps are from their skeletons; empty of a single one."""
    parts = []
    for kind in (ONE_CORE, TWO_CORES):
        far = [find_distance(record, kind) for record in records]
        if len(far) > 1:
            low, middle, high = quantiles(far, n=4)
            parts.append(f"{kind}: {middle:+.0f} %, half of them {low:+.0f} to {high:+.0f} %")
    return f"All {len(records)} steps: {'; '.join(parts)}." if parts else ""


def distances(records: Sequence[Record], title: str, name: Callable[[Record], str]) -> str:
    """Return a row for each group of steps: how far real ones are from their skeletons."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["arrays"], library_of(r), r["style"])):
        groups.setdefault(name(record), []).append(record)
    rows = []
    for group, several in groups.items():
        cells = []
        for kind in (ONE_CORE, TWO_CORES):
            far = [find_distance(record, kind) for record in several]
            cells.append(f"{median(far):+.0f} % ({min(far):+.0f} to {max(far):+.0f})")
        rows.append(Row((group, f"{len(several)}", *cells)))
    return table_text((title, "steps", ONE_CORE, TWO_CORES), range(1, 4), rows)


def table(records: Sequence[Record]) -> str:
    """Return a row for each check."""
    steps = [(model.name, style) for model in MODELS for style in model.styles]
    places = {step: place for place, step in enumerate(steps)}
    rows = []
    for record in sorted(records, key=lambda r: places.get((r["model"], r["style"]), len(steps))):
        true, off, _, held = judged(record)
        _, far_then, near_then, held_then = judged(record, at_one_speed=True)
        error = find_error(record[judge_of(record["style"])]["added"])
        told, far, half, calls = record.get("failed", "no number"), "", "", ""
        if record["told"]:
            value, *ends = record["told"]
            low, high = ("?" if end is None else signed(end) for end in ends)
            told = f"{signed(value)} µs ({low} to {high})"
            far = f"{signed(off)} µs ({100 * off / abs(true):+.0f} %)"
            plain = mean(record[judge_of(record["style"])]["calls"])
            calls = f"{record['call']:.0f}, {plain:.0f} µs"
            half = "?" if "?" in (low, high) else f"{100 * half_interval(record):.1f} %"
        row = (
            *(record["model"], record["style"], f"{record['arrays']:g}"),
            *(told, half, calls, f"{signed(true)} µs ± {error:.1f}", far),
            f"{signed(far_then)} µs ({100 * far_then / abs(true):+.0f} %)" * bool(record["told"]),
            *(
                f"{signed(mean(record[kind]['added']))} µs" if kind in record else ""
                for kind in (ONE_CORE, TWO_CORES)
            ),
            *("yes" if is_right else "no" for is_right in (near_then, held, held_then)),
            f"{record['loop'][1]:.0f} µs",
        )
        rows.append(Row(row))
    titles = (
        "model",
        "style",
        "arrays",
        "told",
        "half",
        "call",
        "truth",
        "off",
        "at one speed",
        ONE_CORE,
        TWO_CORES,
        "near",
        "held",
        "at one speed",
        "loop",
    )
    return table_text(titles, range(2, 11), rows)


def table_text(titles: Sequence[str], numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """Return a table in Markdown; `numbers` are the places of its columns of numbers."""
    columns = (Column(title, number=place in numbers) for place, title in enumerate(titles))
    return "\n".join(table_lines(Table(tuple(columns), tuple(rows))))


def signed(microseconds: float) -> str:
    """Return a number with its sign, and a digit after the point below 100."""
    return f"{microseconds:+.{1 if abs(microseconds) < 100 else 0}f}"


if __name__ == "__main__":
    sys.exit(main())
