"""`bakeoff selftest`: plant known differences, and count how often they are called."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from common.config import check_rate
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("calibrate", "trials", "exact", "precision", "kill")
EXACT_RUNS, PRECISION_RUNS, KILLS = 3, 5, 10
DEFAULT_BUDGET = 300.0
EXAMPLES = """Examples:\n
bakeoff selftest --folder results/selftest\n
bakeoff selftest --folder results/selftest --time-limit 3600\n
bakeoff selftest --folder /tmp/selftest --part exact"""


@dataclass
class Selftest:
    """What is done, and how much time there is for it."""

    folder: Path
    budget: float
    deadline: float
    console: Console

    def has(self, part: str) -> list[dict[str, Any]]:
        """Return the records of a part."""
        from bench.selftest.records import read

        return [record for record in read(self.folder) if record["part"] == part]

    def take(
        self, part: str, seconds: float, do: Callable[[], dict[str, Any]], **more: Any
    ) -> bool:
        """Do one thing and write it down; False where there is no time for it any more."""
        from bench.selftest.records import append

        if time.monotonic() + seconds > self.deadline:
            return False
        start = time.strftime("%Y-%m-%d %H:%M:%S")
        found = do()
        append(self.folder, {"part": part, "at": start, "cpu": cpu(), **more, "found": found})
        words = found.get("called", "")
        self.console.print(
            f"{start} {part} {' '.join(map(str, more.values()))} {words}", markup=False
        )
        return True


@cache
def cpu() -> str:
    """Return what this machine's processor is called."""
    from cpuinfo import get_cpu_info  # type: ignore[import-untyped]  # pytest-benchmark has it

    return str(get_cpu_info().get("brand_raw", ""))


def selftest(
    folder: Annotated[
        Path, typer.Option(help="Where trials are kept, and the report is written.")
    ] = Path("selftest"),
    part: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")
    ] = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What is measured on: cpu, gpu, tpu, …")
    ] = "cpu",
    budget: Annotated[float, typer.Option(help="Seconds of each trial.")] = 60.0,
    time_limit: Annotated[
        float,
        typer.Option(help="Seconds after which no further trial begins; the next call goes on."),
    ] = 8 * 3600.0,
) -> None:
    """Prove on this machine that runs see what is there and nothing else. Hours of measuring.

    Outcomes are written down as they come: Ctrl-C loses one trial at most, and the next call goes
    on where this one stopped. Nothing else should run meanwhile.
    """
    from bench.cli.where import require_backend
    from bench.selftest import report
    from bench.selftest.records import NAME, read
    from common.devices import Device

    check_rate("--budget", budget)
    check_rate("--time-limit", time_limit)
    for name in part or ():
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    if Device.of(backend).backend != backend:
        raise BakeoffError(
            f"--backend is {backend!r}, one device of it; give the backend alone: its first device "
            "is measured"
        )
    if backend != "cpu":
        require_backend(backend)
    # Of all runs below: they have this backend, and no other
    os.environ["JAX_PLATFORMS"] = backend
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BakeoffError(f"--folder {folder}: {error.strerror}; name another one") from error
    page = folder / "README.md"
    if page.exists() and not (folder / NAME).exists():
        raise BakeoffError(
            f"--folder {folder} has a README.md that no selftest wrote; name a folder of its own"
        )
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    test = Selftest(folder, budget, time.monotonic() + time_limit, console)
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run ends with its selftest
    try:
        for name in PARTS:
            if not part or name in part:
                with tempfile.TemporaryDirectory(prefix="bakeoff-selftest-") as scratch:
                    DO[name](test, Path(scratch))
    finally:
        records = read(folder)
        page.write_text(report.markdown(records), encoding="utf-8")
        report.picture(records, folder)
    print(page)


def calibrate(test: Selftest, scratch: Path) -> None:
    """What a per cent takes."""
    from bench.selftest import calibration, trials

    if not test.has("calibration"):
        test.take("about", 0, trials.about)
        seconds = 1.1 * test.budget * len(calibration.ITERATIONS)
        test.take("calibration", seconds, partial(calibration.calibrate, scratch, test.budget))


def run_trials(test: Selftest, scratch: Path) -> None:
    """False alarms and power, ours and the usual way."""
    from bench.selftest import trials
    from bench.selftest.calibration import as_asked, fit, points_of

    made = [record for record in test.has("trial") if record["budget"] == test.budget]
    if not test.has("calibration"):
        raise BakeoffError("trials need a calibration; do the part `calibrate` first")
    line = fit(points_of([*test.has("calibration"), *made]))
    iterations = {percent: line.iterations(percent / 100) for percent in trials.PERCENTS}
    entrant = trials.entrant_file(scratch, iterations)
    sized = [record for record in made if as_asked(record, line)]
    done = Counter(trials.Trial(r["percent"], r["way"], r["loaded"]) for r in sized)
    for number, trial in enumerate(trials.wanted(done), len(made)):
        do = partial(trials.perform, trial, entrant, test.budget, number)
        planted = iterations.get(trial.percent, 0)
        about = {**trial._asdict(), "iterations": planted, "budget": test.budget}
        if not test.take("trial", 1.1 * test.budget + 5, do, **about):
            return


def exact(test: Selftest, scratch: Path) -> None:
    """Plants that exact metrics, and times of imports and dispatch, have to catch."""
    from bench.selftest import faults

    for number in range(len(test.has("exact")), EXACT_RUNS):
        test.take("exact", 60, partial(faults.exact, scratch, number))
    for number in range(len(test.has("by_time")), EXACT_RUNS):
        do = partial(faults.by_time, scratch, number, test.budget)
        test.take("by_time", 2 * test.budget, do)


def precision(test: Selftest, scratch: Path) -> None:
    """Runs at the default budget."""
    from bench.selftest.trials import WORKLOAD, bench

    def once(number: int) -> dict[str, Any]:
        folder = scratch / str(number)
        folder.mkdir()
        start = time.monotonic()
        said = bench(folder)["bakeoff"]
        wall = time.monotonic() - start
        steps = {
            f"{cell['entrant']} {cell['style']}": cell["metrics"]["step"]
            for cell in said["cells"]
            if cell["workload"] == WORKLOAD and cell["metrics"].get("step", {}).get("low")
        }
        halves = {name: (s["high"] - s["low"]) / 2 / s["ratio"] for name, s in steps.items()}
        share = said["spent"]["sampling_share"]
        return {"half_widths": halves, "share": share, "wall": wall, "spent": said["spent"]}

    for number in range(len(test.has("precision")), PRECISION_RUNS):
        test.take("precision", 1.1 * DEFAULT_BUDGET, partial(once, number))


def kill(test: Selftest, scratch: Path) -> None:
    """A run that is killed at random moments."""
    from bench.selftest import faults

    if not test.has("killed"):
        do = partial(faults.killed, scratch, KILLS, 3 * test.budget, seed=0)
        test.take("killed", 6 * test.budget, do)


DO = {
    "calibrate": calibrate,
    "trials": run_trials,
    "exact": exact,
    "precision": precision,
    "kill": kill,
}
