"""Trials of the engine: planted differences, identical programs, budgets and kills, on real runs.

    python -m bench.trials.engine --folder results/selftest --part two_arms,ab --repeat 10

Each trial is a record, a line of `engine.jsonl`, written when it ends; the tables are made anew
from all records. A part that is given again adds to what is there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from bench.selftest.plants import write_entrant
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    type Record = dict[str, Any]

NAME = "engine.jsonl"
ITERATIONS = (2, 20, 40, 80)
"""Of planted work, whose cost is measured first."""
PERCENTS = (2.0, 1.0, 0.5)


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
    for name in given.part.split(","):
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; known: {', '.join(PARTS)}")
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.repeat):
        for name in given.part.split(","):
            with load(given.loaded, number):
                for record in PARTS[name](given.folder):
                    keep(given.folder, record | {"part": name, "loaded": given.loaded})
    (given.folder / "engine.md").write_text(markdown(read(given.folder)), encoding="utf-8")
    return 0


def keep(folder: Path, record: Record) -> None:
    """Append a record, and say it."""
    about = {
        "at": datetime.datetime.now(datetime.UTC).isoformat()[:19],
        "cpu": processor(),
        "load": round(os.getloadavg()[0], 2),
    }
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | record) + "\n")
    print({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()}, flush=True)


def read(folder: Path) -> list[Record]:
    """Return all records."""
    path = folder / NAME
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def processor() -> str:
    """Return the processor's name, where Linux tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


@contextmanager
def load(wanted: bool, seed: int) -> Iterator[None]:
    """Keep one core busy, on and off for a second or so, while this is open."""
    stop = threading.Event()

    def come_and_go() -> None:
        rng = random.Random(seed)  # noqa: S311 -- moments are no secret
        while not stop.is_set():
            with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                stop.wait(rng.uniform(0.5, 2))
                other.kill()
            stop.wait(rng.uniform(0.5, 2))

    thread = threading.Thread(target=come_and_go, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if wanted:
            thread.join()


def bench(folder: Path, *options: str) -> Record:
    """Run `pytest bench` once; return its section, with the seconds that it took."""
    path = folder / "run.json"
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q"]
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603 -- this project's benchmarks
        [*command, "-p", "no:cacheprovider", *options, f"--benchmark-json={path}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if not path.exists():
        return {"failed": " ".join((done.stdout + done.stderr).splitlines()[-3:]), "took": seconds}
    found: Record = json.loads(path.read_text("utf-8"))["bakeoff"]
    return found | {"took": seconds}


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
        yield Path(name)


# planted work


def calibration(folder: Path) -> Iterator[Record]:
    """Measure what planted work costs, as a fraction of a step at `seed`."""
    del folder
    with scratch() as here:
        styles = {f"work_{n}": f"work({n})" for n in ITERATIONS}
        path = write_entrant(here / "planted.py", styles)
        options = ("--workload=seed", "--metric=step", "--cores=one", "--budget=120")
        said = bench(here, f"--entrant={path}", *options)
        for cell in said["cells"]:
            if cell["entrant"] == "planted":
                step = cell["metrics"]["step"]
                yield {
                    "iterations": int(cell["style"].partition("_")[2]),
                    **{name: step[name] for name in ("ratio", "low", "high", "standard_error")},
                }


def planted(folder: Path) -> dict[float, int]:
    """Return the iterations that come nearest to each size, by a line through the calibrations."""
    known = [r for r in read(folder) if r["part"] == "calibration"]
    x = np.array([r["iterations"] for r in known], float)
    y = np.array([r["ratio"] - 1 for r in known])
    weights = 1 / np.array([r["standard_error"] for r in known])
    slope, base = np.polyfit(x, y, 1, w=weights)
    return {size: max(2, round((size / 100 - base) / slope)) for size in PERCENTS}


def two_arms(folder: Path) -> Iterator[Record]:
    """Plant 1 % in 20 s, 0.5 % in 60 s and nothing in either, on one core each; 2 % on all."""
    sizes = planted(folder)
    yield arm(0, 0, "one", 20)
    yield arm(1.0, sizes[1.0], "one", 20)
    yield arm(0.5, sizes[0.5], "one", 60)
    yield arm(0, 0, "one", 60)


def all_cores(folder: Path) -> Iterator[Record]:
    """Plant 2 % on all cores, in 60 s."""
    yield arm(2.0, planted(folder)[2.0], "all", 60)


def arm(percent: float, iterations: int, cores: str, budget: float) -> Record:
    """Make one run of two arms, and return what it called."""
    with scratch() as here:
        plant = f"work({iterations})" if iterations else "same()"
        path = write_entrant(here / "planted.py", {"style": plant})
        options = ["--workload=seed", "--metric=step", f"--cores={cores}", f"--budget={budget:g}"]
        said = bench(here, f"--entrant={path}", *options)
    about = {"percent": percent, "iterations": iterations, "cores": cores, "budget": budget}
    if "failed" in said:
        return about | said
    [step] = [c["metrics"]["step"] for c in said["cells"] if c["entrant"] == "planted"]
    return about | called(step) | {"took": said["took"], "detectable": step["detectable"]}


def called(step: Record) -> Record:
    """Return what was said of a step."""
    names = ("ratio", "low", "high", "standard_error", "df", "blocks", "processes")
    direction = ("slower" if step["ratio"] > 1 else "faster") if step["differs"] else ""
    return {"called": direction, **{name: step[name] for name in names}}


def ab(folder: Path) -> Iterator[Record]:
    """Plant 1 % in 60 s and 0.5 % in 120 s on one side of an A/B, and nothing in 60 s."""
    sizes = planted(folder)
    yield sides(1.0, sizes[1.0], 60)
    yield sides(0, 0, 60)
    yield sides(0.5, sizes[0.5], 120)


def sides(percent: float, iterations: int, budget: float) -> Record:
    """Make one A/B of this code with a copy of it, whose plain JAX has planted work.

    What `bakeoff ab` does once its environments are built, by the same plan and driver.
    """
    from bench.cells import BASELINE, Cell
    from bench.engine.actions import Options
    from bench.engine.cores import one_core_lanes
    from bench.engine.driver import Driver
    from bench.engine.processes import Place
    from bench.engine.sides_plan import AB, BASE, NEW
    from bench.track.paired import paired

    start = time.monotonic()
    cell = Cell(*BASELINE, "seed", "cpu")
    with scratch() as here:
        roots = {
            name: copied(here / name, iterations if name == NEW else 0) for name in (BASE, NEW)
        }
        places = {name: Place.of(sys.executable, root) for name, root in roots.items()}
        options = Options(budget, seed=random.SystemRandom().getrandbits(32))
        plan = AB([cell], {"step"}, options, 0.0, one_core_lanes())
        Driver(plan, places=places).run()
    about = {"percent": percent, "iterations": iterations, "budget": budget}
    found = paired(plan.found(BASE), plan.found(NEW), [cell]).get((cell, "step"))
    if found is None:
        failure = plan.found(NEW).cells[cell].failure or plan.found(BASE).cells[cell].failure
        return about | {"failed": failure or "no pair came to its end"}
    low, high = found.interval
    step = {
        "ratio": found.ratio,
        "low": low,
        "high": high,
        "standard_error": found.standard_error,
        "df": found.df,
        "blocks": found.blocks,
        "processes": found.workers,
        "differs": found.differs,
    }
    return about | called(step) | {"took": time.monotonic() - start}


PLANTED = """

from bench.selftest.plants import work as _work

STYLES = {**STYLES, "pure": _work(%d)}
"""


def copied(root: Path, iterations: int) -> Path:
    """Copy the code that workers run; of plain JAX, the step may have planted work."""
    root.mkdir()
    for name in ("bench", "common", "impls"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("*.json", "tests"))
    if iterations:
        source = root / "impls" / "pure_jax.py"
        plants = root / "bench" / "selftest" / "plants.py"
        # The plant is made of plain JAX's own model, which has another name in the copy.
        shutil.copy(source, root / "impls" / "plain.py")
        text = plants.read_text("utf-8").replace("impls.pure_jax", "impls.plain")
        plants.write_text(text, encoding="utf-8")
        source.write_text(source.read_text("utf-8") + PLANTED % iterations, encoding="utf-8")
    return root


# whole runs


def default(folder: Path) -> Iterator[Record]:
    """Make a default run: what it can detect, and how well it knows what the host costs."""
    del folder
    with scratch() as here:
        yield whole(bench(here))


def budgets(folder: Path) -> Iterator[Record]:
    """Ask all entrants for an answer in 30 and in 60 s."""
    del folder
    for budget in (30, 60):
        with scratch() as here:
            yield {"budget": budget} | whole(bench(here, f"--budget={budget}"))


def whole(said: Record) -> Record:
    """Return what a run of all entrants came to."""
    if "failed" in said:
        return said
    steps = {
        (c["entrant"], c["style"]): c["metrics"]["step"]
        for c in said["cells"]
        if c["workload"] == "seed" and c["metrics"].get("step", {}).get("ratio") is not None
    }
    hosts = {
        f"{c['entrant']} {c['style']}": c["metrics"]["host_cost"]["added"]
        for c in said["cells"]
        if c["metrics"].get("host_cost", {}).get("added")
    }
    wide = {
        name: (added["high"] - added["low"]) / 2
        for name, added in hosts.items()
        if (added["high"] - added["low"]) / 2 > max(3e-6, 0.02 * abs(added["seconds"]))
    }
    verdicts = [step["verdict"] for step in steps.values()]
    compiled = [c["metrics"].get("compile", {}).get("samples", 0) for c in said["cells"]]
    return {
        "took": said["took"],
        "budget": said["plan"]["budget_seconds"],
        "detectable": next((step["detectable"] for step in steps.values()), None),
        "steps": len(steps),
        "settled": sum(verdict != "inconclusive" for verdict in verdicts),
        "host_costs": len(hosts),
        "host_costs_wide": wide,
        "sampling_share": said["spent"]["sampling_share"],
        "processes": said["spent"]["processes"],
        "cold_samples": max(compiled, default=0),
        "warnings": said["warnings"],
    }


# kills


def kills(folder: Path) -> Iterator[Record]:
    """Kill a run with SIGKILL again and again, and the workers of another one."""
    from bench.selftest.faults import killed

    del folder
    with scratch() as here:
        yield {"kind": "run"} | killed(here, 10, 100, random.SystemRandom().getrandbits(32))
    with scratch() as here:
        yield {"kind": "workers"} | workers_killed(here, 10, 150)


def workers_killed(folder: Path, times: int, budget: float) -> Record:
    """Kill random workers of one run; return what was lost."""
    path, killed = folder / "run.json", 0
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q"]
    command += ["-p", "no:cacheprovider", "--entrant=equinox,haiku", "--workload=seed"]
    command += ["--metric=step,compile", f"--budget={budget:g}", f"--benchmark-json={path}"]
    rng = random.Random()  # noqa: S311 -- moments are no secret
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)  # noqa: S603
        end = time.monotonic() + 0.8 * budget
        while killed < times and run.poll() is None and time.monotonic() < end:
            time.sleep(rng.uniform(2, 0.12 * budget))
            workers = [
                child
                for child in psutil.Process(run.pid).children(recursive=True)
                if "bench.worker" in " ".join(child.cmdline())
            ]
            if workers:
                with suppress(psutil.Error):
                    os.kill(rng.choice(workers).pid, signal.SIGKILL)  # a worker of our own run
                    killed += 1
        run.wait()
    if not path.exists():
        return {"kills": killed, "failed": (folder / "said").read_text("utf-8")[-300:]}
    found = json.loads(path.read_text("utf-8"))["bakeoff"]
    lacking = [
        f"{c['entrant']} {c['style']} {metric}"
        for c in found["cells"]
        for metric in ("step", "compile")
        if c["failure"] or c["metrics"].get(metric, {}).get("median") is None
    ]
    return {"kills": killed, "cells_without_a_number": lacking}


PARTS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "calibration": calibration,
    "two_arms": two_arms,
    "all_cores": all_cores,
    "ab": ab,
    "default": default,
    "budgets": budgets,
    "kills": kills,
}


# tables


def markdown(records: Sequence[Record]) -> str:
    """Return tables of all records."""
    out = [
        "# Trials of the engine",
        "Made by `python -m bench.trials.engine`; every record is in "
        f"[{NAME}]({NAME}). Called: the interval leaves out 1.",
    ]
    cpus = sorted({record["cpu"] for record in records})
    days = sorted({record["at"][:10] for record in records})
    out.append(f"{', '.join(days)}, on {', '.join(cpus)}, {os.cpu_count()} cores.")
    rows = [
        "| trial | budget | planted | runs | called | median half width | median ratio |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if record["part"] in ("two_arms", "all_cores", "ab") and "failed" not in record:
            where = f"two arms, {record['cores']} core" if "cores" in record else "A/B, one core"
            where += "s" if record.get("cores") == "all" else ""
            where += ", loaded" if record["loaded"] else ""
            groups.setdefault((where, record["budget"], record["percent"]), []).append(record)
    for (where, budget, percent), some in sorted(groups.items()):
        hits = sum(r["called"] == "slower" if percent else bool(r["called"]) for r in some)
        half = float(np.median([(r["high"] - r["low"]) / 2 for r in some]))
        middle = float(np.median([r["ratio"] for r in some]))
        rows.append(
            f"| {where} | {budget:g} s | {percent:g} % | {len(some)} | {hits} | "
            f"±{100 * half:.2f} % | {middle:.4f} |"
        )
    out.append("\n".join(rows))
    out.append("\n".join(whole_rows(records)))
    for record in records:
        if record["part"] == "kills":
            said = {
                k: v for k, v in record.items() if k not in ("part", "moments", "cpu", "loaded")
            }
            out.append(f"Kills: `{said}`")
    return "\n\n".join(out) + "\n"


def whole_rows(records: Sequence[Record]) -> list[str]:
    """Return a row for each run of all entrants."""
    rows = [
        "| all entrants | wall | detectable at `seed` | settled | host costs to ±3 µs or 2 % | "
        "sampling | cold samples |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for record in records:
        if record["part"] not in ("default", "budgets") or "failed" in record:
            continue
        known = record["host_costs"] - len(record["host_costs_wide"])
        loaded = ", loaded" if record["loaded"] else ""
        least = record["detectable"]
        rows.append(
            f"| {record['budget']:g} s{loaded} | {record['took']:.0f} s | "
            f"{'–' if least is None else f'{100 * least:.1f} %'} | "
            f"{record['settled']} of {record['steps']} | {known} of {record['host_costs']} | "
            f"{100 * record['sampling_share']:.0f} % | {record['cold_samples']} |"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
