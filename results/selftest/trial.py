"""One trial. `trials.py` runs this file with an engine's root first on Python's path.

    PYTHONPATH=ENGINE python -P results/selftest/trial.py '{"run": "arms", "budget": 20}' OUT.json

It runs in an empty folder.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from bench.cells import Arm, Cell
from bench.engine.measurement import measure
from bench.engine.process import Interpreter
from bench.engine.task import Environment, Task
from bench.environments import ask_environment
from bench.estimates import Verdict, find_detectable_difference
from bench.metrics import HOST, HOST_PER_ARRAY, STEP
from bench.options import Options
from bench.report.sentences import LARGEST_LIMIT
from bench.runfile import EnvironmentInfo, Results
from bench.runfile.reader import read
from bench.track.comparison import BASE, NEW, Comparison, Status
from bench.track.run_files import compare
from bench.worker.settings import ROOT
from results.selftest import plants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.estimates import Estimate
    from bench.options import CoreChoice
    from bench.runfile.reader import Run
    from bench.samples import Sample

    type Numbers = dict[str, Any]

PLANTED, OTHER = (Arm("planted", style).make_cell("seed", "cpu") for style in ("pure", "other"))
STEP_AT_SEED = ("--workload=seed", "--metric=step")
COLD = ("trace", "lower", "compile")
SETTLED = 13
"""Styles at `seed` that a default run has to settle: all but two."""


def main(given: str, out: str) -> None:
    """Run a trial, and write what it says; null stands for what is infinite."""
    arguments = json.loads(given)
    trials = {trial.__name__: trial for trial in (step, arms, sides, runs, default, libraries)}
    numbers = trials[arguments.pop("run")](**arguments)
    # what an engine does not say is left out
    known = {n: v if math.isfinite(v) else None for n, v in numbers.items() if v is not None}
    Path(out).write_text(json.dumps({"root": str(ROOT), "numbers": known}), "utf-8")


def run(command: Sequence[str], **options: Any) -> tuple[int, str]:
    """Run a command, which may end by itself after Ctrl-C; return its status and last words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(  # noqa: S603 -- this project's commands
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, **options
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        said.seek(0)
        return process.returncode, " ".join(said.read().split("\n")[-6:]).strip()


def run_file(command: Sequence[str], option: str, python: str = sys.executable) -> Run:
    """Return the run that a command of this engine writes."""
    path = Path("run.json")
    path.unlink(missing_ok=True)
    _, said = run([python, "-m", *command, f"{option}={path}"])
    if not path.exists():
        raise SystemExit(said)
    return read(path)


def bench(*options: str, python: str = sys.executable) -> Run:
    """Run `pytest bench` of this engine."""
    command = ["pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q", "-p", "no:cacheprovider"]
    return run_file([*command, *options], "--benchmark-json", python)


def step_seconds(samples: Iterable[Sample], cell: Cell, environment: str = "") -> float:
    """Return the median of what stood for a cell's step in blocks."""
    wanted = STEP, cell, environment
    return median(s.value for s in samples if (s.metric, s.cell, s.environment) == wanted)


def list_ratios(results: Results) -> list[Estimate]:
    """Return ratios; where two run files are compared, not those that each has in itself."""
    ratios = [row for row in results.estimates if row.form == "ratio"]
    return [row for row in ratios if not results.base or row.against == results.base]


def ratio_of(results: Results, cell: Cell, metric: str = STEP) -> Estimate:
    """Return an arm's ratio: of new to base where two sides are compared, else to plain JAX."""
    for row in list_ratios(results):
        if (row.metric, row.cell.arm) == (metric, cell.arm):
            return row
    raise SystemExit(f"the run has no estimate of {cell.arm}'s {metric}")


def numbers_of(results: Results, row: Estimate, truth: float, base: float) -> Numbers:
    """Return what a run says of a planted ratio, and how many rows without a plant are called.

    Args:
        results: Of the run.
        row: The ratio.
        truth: What was planted.
        base: Seconds of what it is compared with.
    """
    low, high = row.low or 0.0, math.inf if row.high is None else row.high
    rows = [r for r in list_ratios(results) if r.standard_error]
    rows = [r for r in rows if r.cell.entrant != PLANTED.entrant] + [row] * (truth == 1)
    return {
        "right": low > 1 if truth > 1 else high < 1 if truth < 1 else low <= 1 <= high,
        "ratio": row.value,
        "half width": row.half_width,
        "low": low,
        "high": high,
        "truth": truth,
        "base": 1e6 * base,
        "workers": row.workers,
        "blocks": row.blocks,
        "processes": results.spent.processes,
        "seconds": results.spent.wall_seconds,
        "rows": len(rows),
        "false": sum(r.differs for r in rows),
    }


def step(budget: float, cores: str) -> Numbers:
    """Measure plain JAX's step, in microseconds."""
    alone = "--entrant=pure_jax", "--style=pure", f"--budget={budget}", f"--cores={cores}"
    return {"base": 1e6 * step_seconds(bench(*STEP_AT_SEED, *alone).samples, PLANTED.baseline)}


def arms(
    budget: float, waits: Sequence[float] = (0.0,), workload: str = "seed", *, first: bool = False
) -> Numbers:
    """Compare plain JAX with an arm that waits for some microseconds before each call.

    Or compare two arms: in each round, the arm that comes first does not wait, the other does.
    """
    styles = {"pure": f"wait({waits[0]:.2f})"}
    if first:
        styles = {"pure": "first_of_round(0)", "other": "first_of_round(1)"}
        os.environ[plants.MICROSECONDS] = str(waits[0])
        os.environ[plants.COUNTS] = str(counts := Path("counts").resolve())
    path = plants.write_entrant(Path("planted.py"), styles)
    chosen = f"--workload={workload}", "--metric=step"
    made = bench(f"--entrant={path}", *chosen, f"--budget={budget}")
    baseline = PLANTED.baseline._replace(workload=workload)
    base, row = step_seconds(made.samples, baseline), ratio_of(made.results, PLANTED)
    if not first:
        return numbers_of(made.results, row, 1 + 1e-6 * waits[0] / base, base)
    other = ratio_of(made.results, OTHER)
    value = row.value / other.value
    half = math.hypot(row.half_width, other.half_width)  # as if they shared no noise
    ends = {"low": value * math.exp(-half), "high": value * math.exp(min(half, 700.0))}
    row = msgspec.structs.replace(row, value=value, **ends)
    return numbers_of(made.results, row, 1.0, base) | shares_of_first(counts)


def shares_of_first(counts: Path) -> Numbers:
    """Return how often each of two came first: about half of the time, or nothing was planted."""
    return dict(zip(("base first", "new first"), plants.shares_of_first(counts), strict=True))


def sides(
    budget: float,
    waits: Sequence[float] = (0.0, 0.0),
    plant: str = "wait_of_side()",
    pythons: Sequence[str] = (),
    workload: str = "seed",
    *,
    arrays: bool = False,
) -> Numbers:
    """Compare two sides, as `bakeoff ab` does once its environments are built.

    Args:
        budget: Seconds.
        waits: Microseconds of the base side and of the new one.
        plant: Style of both.
        pythons: Interpreters of the two sides; this one if none.
        workload: Name of the size whose step is compared.
        arrays: Whether the cost of an array is compared, in place of a step.
    """
    path = plants.write_entrant(Path("planted.py").resolve(), {"pure": plant})
    both, outside, counts = {}, {"planted": str(path)}, path.with_name("counts")
    for number, side in enumerate((BASE, NEW)):
        place = Interpreter.from_python(pythons[number], ROOT) if pythons else Interpreter()
        planted = {plants.MICROSECONDS: str(waits[number])}
        if "first" in plant:
            planted |= {plants.COUNTS: str(counts), plants.SIDE: str(number)}
        place = replace(place, variables={**place.variables, **planted})
        environment = Environment(place, EnvironmentInfo(spec=side))
        both[side] = ask_environment(environment, ("planted",), outside)
    cell = PLANTED._replace(workload=workload)
    cells: Mapping[Cell, str] = {cell: STEP}
    if arrays:
        cells = {PLANTED._replace(workload=size): HOST for size in ("toy", "depth12")}
    task = Task(
        kind="ab",
        arguments=(),
        needed={side: {cell: frozenset({m}) for cell, m in cells.items()} for side in both},
        sides=both,
        options=Options(budget=budget, cores="one"),
        groups=[(BASE, NEW)],
        base=BASE,
        outside=outside,
    )
    measured = measure(task)
    measured.journal.remove()
    row = ratio_of(measured.results, PLANTED, HOST_PER_ARRAY if arrays else STEP)
    level = measured.results.table.amount(row.cell, HOST_PER_ARRAY)
    base = level.value if arrays and level else step_seconds(measured.samples, cell, BASE)
    numbers = numbers_of(measured.results, row, 1 + 1e-6 * (waits[1] - waits[0]) / base, base)
    return numbers | (shares_of_first(counts) if "first" in plant else {})


def runs(
    budget: float,
    waits: Sequence[float],
    workload: str = "seed",
    pythons: Sequence[str] = (),
    cores: CoreChoice = "auto",
) -> Numbers:
    """Compare two runs, one after the other, as `bakeoff compare` does: half of the time each.

    Args:
        budget: Seconds of both.
        waits: Microseconds of the base run's planted arm and of the new one's.
        workload: Name of the size.
        pythons: Interpreters of the two runs; this one if none.
        cores: Cores of workers, as `pytest bench` has them.
    """
    path = plants.write_entrant(Path("planted.py"), {"pure": "wait_of_side()"})
    chosen = f"--entrant={path}", f"--workload={workload}", "--metric=step", f"--cores={cores}"
    both = []
    for number, wait in enumerate(waits):
        os.environ[plants.MICROSECONDS] = str(wait)
        python = pythons[number] if pythons else sys.executable
        both.append(bench(*chosen, f"--budget={budget / 2}", python=python))
    cell = PLANTED._replace(workload=workload)
    base = step_seconds(both[0].samples, cell)
    results = compare(both[:1], both[1])
    truth = 1 + 1e-6 * (waits[1] - waits[0]) / base
    numbers = numbers_of(results, ratio_of(results, cell), truth, base)
    return numbers | {"processes": sum(run.results.spent.processes for run in both)}


def default(budget: float) -> Numbers:
    """Make a default run: what it tells of steps, and of what happens once, at `seed`."""
    results = bench(f"--budget={budget}").results
    rows = {
        metric: [
            row
            for row in results.estimates
            if (row.metric, row.form, row.cell.workload) == (metric, "ratio", PLANTED.workload)
            and not row.cell.is_control
        ]
        for metric in (STEP, *COLD)
    }
    settled = sum(row.verdict not in (None, Verdict.INCONCLUSIVE) for row in rows[STEP])
    numbers: Numbers = {
        "right": settled >= SETTLED,
        "settled": settled,
        "of": len(rows[STEP]),
        "detectable": find_detectable_difference(rows[STEP]),
        "seconds": results.spent.wall_seconds,
    }
    for metric, several in rows.items():
        widths = [row.half_width for row in several if row.half_width < math.inf] or [math.inf]
        numbers |= {f"±{metric}": median(widths), f"widest ±{metric}": max(widths)}
        numbers[f"styles with {metric}"] = sum(width < math.inf for width in widths)
        numbers[f"{metric} workers"] = max((row.workers for row in several), default=0)
    return numbers


def libraries(budget: float) -> Numbers:
    """Compare this environment's libraries with themselves, to see which change would show."""
    current = "--base=current", "--new=current", f"--budget={budget}"
    results = run_file(["bench.cli", "ab", *current, *STEP_AT_SEED], "--output").results
    rows = [row for row in results.estimates if (row.metric, row.against) == (STEP, BASE)]
    limit, status = find_detectable_difference(rows), Comparison(results).status
    return {
        "right": limit <= LARGEST_LIMIT and status is not Status.CANNOT_SAY,
        "detectable": limit,
        "±step": median([row.half_width for row in rows] or [math.inf]),
        "workers": max((row.workers for row in rows), default=0),
        "seconds": results.spent.wall_seconds,
        "rows": len(rows),
        "false": sum(row.differs for row in rows),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
