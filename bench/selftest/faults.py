"""Runs that are killed, and plants that exact metrics have to catch."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.selftest.plants import write_entrant
from bench.selftest.trials import WORKLOAD, bench
from bench.summary import NANOSECOND
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

PLANTS = {
    "work": ("work(12)", ("hlo_instructions", "flops")),
    "layer": ("layer(1)", ("python_starts", "python_calls")),
    "retrace": ("retrace()", ("compilations_warm",)),
    "copy": ("copy()", ("compilations_first", "python_calls")),
    "temp": ("temp(65536)", ("temp_bytes", "bytes_accessed")),
}
"""What is planted, and the exact metrics that must rise."""
IMPORT_SECONDS = 0.3
LIVES = 4, 24
"""Seconds that a run lives before it is killed: shorter than its start, or with many blocks. Each
kill costs a worker, so many short lives would leave no budget for the fewest blocks."""
BY_TIME = {"layer": "layer(60)", "copy": "copy()"}


def exact(folder: Path, number: int) -> dict[str, Any]:
    """Plant everything that an exact metric has to catch; return what each metric said."""
    styles = {"same": "same()", **{name: plant for name, (plant, _) in PLANTS.items()}}
    path = write_entrant(folder / f"exact_{number}.py", styles)
    options = [f"--entrant={path}", "--workload=toy", "--metric=step"]
    counts = ("--processes=2", "--blocks=2", "--rounds=1")  # the times are of no interest here
    cells = bench(folder, *options, *counts)["bakeoff"]["cells"]
    found = {cell["style"]: cell["exact"] for cell in cells if cell["entrant"] == path.stem}
    base = found["same"]
    caught = {
        name: all((found[name][metric] or 0) > (base[metric] or 0) for metric in metrics)
        for name, (_, metrics) in PLANTS.items()
    }
    caught["retrace"] = found["retrace"]["compilations_warm"] > 0
    [plain] = [cell["exact"] for cell in cells if cell["entrant"] == "pure_jax"]
    same = {k: v for k, v in base.items() if k != "code_lines"}
    return {
        "caught": caught,
        "same_differs_in": [k for k, v in same.items() if plain[k] != v],
        "exact": found,
    }


def by_time(folder: Path, number: int, budget: float) -> dict[str, Any]:
    """Plant what only times can catch: a slower import, and an extra layer in the dispatch."""
    path = write_entrant(
        folder / f"slow_{number}.py", {"layer": BY_TIME["layer"]}, import_seconds=IMPORT_SECONDS
    )
    found = {}
    for metric in ("import", "host_cost"):
        options = [f"--entrant={path}", "--workload=toy", f"--metric={metric}"]
        cells = bench(folder, *options, f"--budget={budget:g}")["bakeoff"]["cells"]
        [found[metric]] = [c["metrics"][metric] for c in cells if c["entrant"] == path.stem]
    return found


def killed(folder: Path, kills: int, budget: float, seed: int) -> dict[str, Any]:
    """Kill one run with SIGKILL at random moments, resume it each time; return what was lost.

    A sample is lost if the journal held it once and the run file does not.
    """
    rng = random.Random(seed)  # noqa: S311 -- moments are no secret
    path = folder / "killed.json"
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}"]
    command += ["-p", "no:cacheprovider", "--entrant=equinox", "--style=pure"]
    command += [f"--workload={WORKLOAD}", "--metric=step,compile", f"--budget={budget:g}"]
    command += [f"--benchmark-json={path}"]
    seen: set[tuple[str, tuple[float, ...]]] = set()
    moments: list[float] = []
    resumed = False
    while len(moments) < kills:
        extra = ["--resume"] if resumed else []
        with (
            (folder / "said").open("w+") as said,
            subprocess.Popen(  # noqa: S603 -- this project's benchmarks
                [*command, *extra], cwd=folder, stdout=said, stderr=said, start_new_session=True
            ) as process,
        ):
            moment = rng.uniform(*LIVES)
            try:
                time.sleep(moment)
            finally:
                alive = process.poll() is None
                if alive:
                    os.killpg(process.pid, signal.SIGKILL)  # our own group
                    moments.append(moment)
            if not alive and not path.exists():
                raise BakeoffError(f"a run ended by itself without a file: {last_words(folder)}")
        journals = list((folder / FOLDER).glob(f"*{SUFFIX}"))
        if path.exists():
            break
        resumed = bool(journals)
        for journal in journals:
            seen |= samples(Journal.open(journal))
    if not path.exists():
        extra = ["--resume"] if resumed else []
        with (folder / "said").open("w") as said:
            subprocess.run([*command, *extra], cwd=folder, check=False, stdout=said, stderr=said)  # noqa: S603
    if not path.exists():
        raise BakeoffError(f"a resumed run wrote no file: {last_words(folder)}")
    run = json.loads(path.read_text("utf-8"))
    found = run["bakeoff"]["samples"]
    kept = {
        (f"{arm} {metric}", value)
        for block in found["blocks"]
        for metric, arms in block["seconds"].items()
        for arm, values in arms.items()
        for value in values
    }
    kept |= {
        (f"{cold['entrant']}/{cold['style']} {metric}", value)
        for cold in found["cold"]
        for metric, value in cold["values"].items()
    }
    journalled = {(arm, round(value, NANOSECOND)) for arm, values in seen for value in values}
    kept = {(arm, round(value, NANOSECOND)) for arm, value in kept}
    lost = [each for each in journalled if each not in kept]
    cells = run["bakeoff"]["cells"]
    return {
        "kills": len(moments),
        "moments": moments,
        "journalled": len(journalled),
        "lost": len(lost),
        "cells_without_a_number": sum(
            cell["failure"] is not None or "median" not in cell["metrics"].get("step", {})
            for cell in cells
        ),
        "processes": run["bakeoff"]["spent"]["processes"],
    }


def last_words(folder: Path) -> str:
    """Return the last lines that a run has said."""
    return " ".join((folder / "said").read_text("utf-8", "replace").split("\n")[-4:]).strip()


def samples(journal: Journal) -> set[tuple[str, tuple[float, ...]]]:
    """Return all samples of a journal, with arm and metric."""
    found = set()
    for record in journal.records:
        action, what = record["action"], record["outcome"].get("answer")
        if action["do"] == "block" and what:
            found |= {
                (f"{arm} {metric}", tuple(values))
                for metric, arms in what["seconds"].items()
                for arm, values in arms.items()
            }
        if action["do"] == "cold" and what:
            [arm] = action["arms"]
            found |= {(f"{arm} {m}", (v,)) for m, v in what["values"].items() if v}
    return found
