"""Trials of the engine on real runs: planted differences, identical programs, budgets and kills.

    python -m bench.trials.engine --folder results/selftest --part two_arms,ab --repeat 10

Each trial is a record, a line of `engine.jsonl`, appended when it ends. The tables of `engine.md`
are written from all records, so a part that is given again adds to them; `--repeat 0` only writes
the tables. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pytest_benchmark.utils import get_commit_info

from bench.cells import BASELINE, Cell
from bench.compare.pairs import of_pairs
from bench.doctor.probes import of_cpuinfo
from bench.engine.actions import Options
from bench.engine.cores import one_core_lanes
from bench.engine.driver import Driver
from bench.engine.processes import Place
from bench.engine.sides_plan import AB, BASE, NEW
from bench.runfile.section import judged
from bench.trials.plants import PLANTED, write_entrant
from bench.trials.runs import (
    TrialFailedError,
    bench,
    load,
    run_killed,
    threshold,
    workers_killed,
)
from bench.trials.tables import markdown
from bench.worker.settings import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.trials.tables import Record

NAME = "engine.jsonl"
ITERATIONS = (5, 10, 20, 40)
"""Of planted work, whose cost is measured first."""
ESTIMATE = ("ratio", "low", "high", "standard_error")
STEP_AT_SEED = ("--workload=seed", "--metric=step")
EXACT = {
    "work(12)": ("hlo_instructions", "flops"),
    "layer(1)": ("python_starts", "python_calls"),
    "copy()": ("compilations_first", "python_calls"),
    "temp(65536)": ("temp_bytes", "bytes_accessed"),
}
"""What is planted, and the exact metrics that must rise."""
REFUSED = "retrace()"
"""What is planted, and must be refused: it compiles while it is timed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make trials; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument(
        "--loaded", action="store_true", help="beside a process that comes and goes"
    )
    given = parser.parse_args(arguments)
    parts = given.part.split(",")
    for name in parts:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; known: {', '.join(PARTS)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.repeat):
        for name in parts:
            with load(given.loaded, number):
                about = {"part": name, "loaded": given.loaded}
                try:
                    for record in PARTS[name](given.folder):
                        keep(given.folder, record | about)
                except TrialFailedError as error:
                    keep(given.folder, {"failed": str(error)} | about)
    (given.folder / "engine.md").write_text(markdown(read(given.folder), NAME), encoding="utf-8")
    return 0


def keep(folder: Path, record: Record) -> None:
    """Append a record, and print it."""
    about = {
        "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
        "cpu": processor(),
        "code": code(),
        "load": round(os.getloadavg()[0], 2),
    }
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | record) + "\n")
    print({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()}, flush=True)


def read(folder: Path) -> list[Record]:
    """Return all records; none of a new folder."""
    path = folder / NAME
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@cache
def code() -> str:
    """Return the commit of this code, as records have it."""
    return str(get_commit_info()["id"])[:7]


def processor() -> str:
    """Return the processor's name, where Linux tells it."""
    return of_cpuinfo(Path("/"), "model name") or "unknown"


# planted work


def calibration(folder: Path) -> Iterator[Record]:
    """Measure what planted work costs, as a fraction of a step at `seed`."""
    del folder
    plants = {f"work_{n}": f"work({n})" for n in ITERATIONS}
    run = bench(*STEP_AT_SEED, "--cores=one", "--budget=120", styles=plants)
    for iterations, cell in zip(ITERATIONS, run["planted"].values(), strict=True):
        step = cell["metrics"]["step"]
        yield {"iterations": iterations, **{name: step[name] for name in ESTIMATE}}


def iterations_of(percent: float, folder: Path) -> int:
    """Return the planted work that comes nearest to a slowdown, by a line through calibrations.

    Raises:
        SystemExit: the folder has no calibration of this code on this processor.
    """
    if not percent:
        return 0
    known = [
        record
        for record in read(folder)
        if record["part"] == "calibration"
        and (record["cpu"], record.get("code")) == (processor(), code())
        and "failed" not in record
    ]
    if not known:
        raise SystemExit(f"{folder} has no calibration here: run the part `calibration` first")
    x = np.array([r["iterations"] for r in known], float)
    y = np.array([r["ratio"] - 1 for r in known])
    weights = 1 / np.array([r["standard_error"] for r in known])
    slope, base = np.polyfit(x, y, 1, w=weights)
    return max(1, round((percent / 100 - base) / slope))


def two_arms(folder: Path) -> Iterator[Record]:
    """Plant 1 % in 20 s, 0.5 % in 60 s and nothing in either, on one core."""
    for percent, budget in ((0, 20), (1.0, 20), (0.5, 60), (0, 60)):
        yield arm(folder, percent, "one", budget)


def all_cores(folder: Path) -> Iterator[Record]:
    """Plant 2 % on all cores, in 60 s."""
    yield arm(folder, 2.0, "all", 60)


def plain(folder: Path) -> Iterator[Record]:
    """Compare with pytest-benchmark's own threshold, in turns: nothing, 2 and 5 %, 60 s each."""
    for percent in (0, 2.0, 5.0):
        yield arm(folder, percent, "all", 60)
        yield threshold(percent, iterations_of(percent, folder), 60)


def arm(folder: Path, percent: float, cores: str, budget: float) -> Record:
    """Make one run of two arms, and return what it called."""
    iterations = iterations_of(percent, folder)
    plant = f"work({iterations})" if iterations else "same()"
    options = (*STEP_AT_SEED, f"--cores={cores}", f"--budget={budget:g}")
    run = bench(*options, styles={"style": plant})
    about = {"percent": percent, "iterations": iterations, "cores": cores, "budget": budget}
    step = run["planted"]["style"]["metrics"]["step"]
    return about | called(step) | {"took": run["took"], "detectable": step.get("detectable")}


def called(step: Record) -> Record:
    """Return what a run says of a step."""
    direction = ("slower" if step["ratio"] > 1 else "faster") if step["differs"] else ""
    names = (*ESTIMATE, "df", "blocks", "processes")
    return {"called": direction, **{name: step[name] for name in names}}


def ab(folder: Path) -> Iterator[Record]:
    """Plant 1 % in 60 s and 0.5 % in 120 s on one side of an A/B, and nothing in 60 s.

    Both sides are this code; on one, an entrant has planted work. It is what `bakeoff ab` does once
    its environments are built, by the same plan and driver.
    """
    cell = Cell("planted", "pure", "seed", "cpu")
    for percent, budget in ((1.0, 60), (0, 60), (0.5, 120)):
        start, iterations = time.monotonic(), iterations_of(percent, folder)
        with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as here:
            path = write_entrant(Path(here) / "planted.py", {"pure": "of_side()"})
            sides = {BASE: 0, NEW: iterations}
            places = {
                name: Place(variables=environment() | {PLANTED: str(work)})
                for name, work in sides.items()
            }
            options = Options(budget, seed=random.SystemRandom().getrandbits(32))
            plan = AB([cell], {"step"}, options, 0.0, one_core_lanes())
            Driver(plan, places=places, outside={"planted": str(path)}).run()
        about: Record = {"percent": percent, "iterations": iterations, "budget": budget}
        found = of_pairs(plan.found(BASE), plan.found(NEW), cell, "step")
        if found is None:
            failure = plan.found(NEW).cells[cell].failure or plan.found(BASE).cells[cell].failure
            raise TrialFailedError(failure or "no pair came to its end")
        numbers = {"blocks": found.blocks, "processes": found.workers}
        step = judged(found, options.margin, None) | numbers
        yield about | called(step) | {"took": time.monotonic() - start}


def exact(folder: Path) -> Iterator[Record]:
    """Plant what exact metrics must catch, what must be refused, and the same program again.

    The values of a record are those of `same()` and of the plant; `same()` has plain JAX's.
    """
    del folder
    styles = {plant.partition("(")[0]: plant for plant in ("same()", *EXACT, REFUSED)}
    counts = ("--processes=2", "--blocks=2", "--rounds=1")  # the times are of no interest here
    run = bench("--workload=toy", "--metric=step", *counts, styles=styles)
    found = {style: cell["exact"] for style, cell in run["planted"].items()}
    [baseline] = [cell["exact"] for cell in run["cells"] if cell["entrant"] == BASELINE[0]]
    same = found["same"]
    other = {m: [baseline[m], v] for m, v in same.items() if m != "code_lines" and baseline[m] != v}
    yield {"plant": "same()", "caught": bool(other), "values": other}
    for plant, metrics in EXACT.items():
        planted = found[plant.partition("(")[0]]
        values = {metric: [same.get(metric) or 0, planted.get(metric) or 0] for metric in metrics}
        caught = all(new > old for old, new in values.values())
        yield {"plant": plant, "caught": caught, "values": values}
    failure = run["planted"][REFUSED.partition("(")[0]]["failure"] or ""
    yield {"plant": REFUSED, "caught": "compiled" in failure, "failure": failure}


# whole runs


def default(folder: Path) -> Iterator[Record]:
    """Make a default run: what it can detect, and how precisely it knows what the host costs."""
    del folder
    yield whole(bench())


def budgets(folder: Path) -> Iterator[Record]:
    """Ask all entrants for an answer in 30 and in 60 s."""
    del folder
    for budget in (30, 60):
        yield {"budget": budget} | whole(bench(f"--budget={budget}"))


def whole(run: Record) -> Record:
    """Return how much a run of all entrants has decided, and how precisely."""
    steps = {
        (c["entrant"], c["style"]): c["metrics"]["step"]
        for c in run["cells"]
        if c["workload"] == "seed" and c["metrics"].get("step", {}).get("ratio") is not None
    }
    hosts = {
        f"{c['entrant']} {c['style']}": c["metrics"]["host_cost"]["added"]
        for c in run["cells"]
        if c["metrics"].get("host_cost", {}).get("added")
    }
    wide = {
        name: (added["high"] - added["low"]) / 2
        for name, added in hosts.items()
        if (added["high"] - added["low"]) / 2 > max(3e-6, 0.02 * abs(added["seconds"]))
    }
    verdicts = [step["verdict"] for step in steps.values()]
    cold = [c["metrics"].get("first_step", {}).get("samples", 0) for c in run["cells"]]
    return {
        "took": run["took"],
        "budget": run["plan"]["budget_seconds"],
        "detectable": next((step.get("detectable") for step in steps.values()), None),
        "steps": len(steps),
        "settled": sum(verdict != "inconclusive" for verdict in verdicts),
        "host_costs": len(hosts),
        "host_costs_wide": wide,
        "sampling_share": run["spent"]["sampling_share"],
        "processes": run["spent"]["processes"],
        "cold_samples": max(cold, default=0),
        "warnings": run["warnings"],
    }


def kills(folder: Path) -> Iterator[Record]:
    """Kill a run with SIGKILL again and again, and the workers of another one."""
    del folder
    for kind, kill, budget in (("run", run_killed, 100), ("workers", workers_killed, 150)):
        with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as here:
            yield {"kind": kind} | kill(Path(here), 10, budget)


PARTS: dict[str, Callable[[Path], Iterator[Record]]] = {
    part.__name__: part
    for part in (calibration, two_arms, all_cores, ab, plain, exact, default, budgets, kills)
}


if __name__ == "__main__":
    sys.exit(main())
