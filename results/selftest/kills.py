"""Kills of real runs and of workers with SIGKILL: `python results/selftest/kills.py`.

No journalled sample may be lost. Records go to engine.jsonl; `python results/selftest/trials.py
--repeat 0` writes its table anew.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.metrics import METRICS
from bench.runfile.reader import Run, read
from bench.worker.settings import ROOT
from results.selftest.trials import RECORDS, TrialFailedError, keep

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVES = 4, 24
"""Seconds that a run lives before it is killed: shorter than its start, or with many blocks. Each
kill costs a worker, so many short lives would leave no budget for the fewest blocks."""


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `pytest bench` in a folder, where its run file and output go; kill it at the end."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q"]
    command += ["-p", "no:cacheprovider", *options, f"--benchmark-json={folder / 'run.json'}"]
    with (folder / "output.txt").open("w") as output:
        run = subprocess.Popen(  # noqa: S603 -- this project's benchmarks
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def result(folder: Path) -> Run:
    """Return the run file in a folder; raise TrialFailedError if there is none."""
    if not (folder / "run.json").exists():
        last = (folder / "output.txt").read_text("utf-8", "replace").splitlines()[-12:]
        raise TrialFailedError(" ".join(last))
    return read(folder / "run.json")


def run_killed(folder: Path, kills: int, budget: float = 100.0) -> dict[str, Any]:
    """Kill a run at random moments, and resume it each time, until it has ended."""
    options = ("--entrant=equinox", "--style=pure", "--workload=seed", "--metric=step,compile")
    rng, killed, ended = random.SystemRandom(), 0, False
    while not ended:
        resume = ["--resume"] if list((folder / FOLDER).glob(f"*{SUFFIX}")) else []
        life = rng.uniform(*LIVES) if killed < kills else None
        with started(folder, *options, f"--budget={budget:g}", *resume) as run:
            with suppress(subprocess.TimeoutExpired):
                run.wait(life)
            ended = run.poll() is not None
        link_journals(folder)
        killed += not ended
    return {"kills": killed, **losses(folder)}


def workers_killed(folder: Path, kills: int, budget: float = 150.0) -> dict[str, Any]:
    """Kill random workers of a run; fewer if most of the budget is spent before."""
    options = ("--entrant=equinox,haiku", "--workload=seed", "--metric=step,compile")
    rng, killed = random.SystemRandom(), 0
    with started(folder, *options, f"--budget={budget:g}") as run:
        end = time.monotonic() + 0.8 * budget
        while killed < kills and run.poll() is None and time.monotonic() < end:
            time.sleep(rng.uniform(2, 0.12 * budget))
            link_journals(folder)
            with suppress(psutil.Error):  # a process has ended meanwhile
                children = psutil.Process(run.pid).children(recursive=True)
                workers = [c for c in children if "bench.worker" in " ".join(c.cmdline())]
                if workers:
                    rng.choice(workers).kill()
                    killed += 1
        run.wait()
    return {"kills": killed, **losses(folder)}


def link_journals(folder: Path) -> None:
    """Give a run's journal a second name in `folder`: the run removes the first when it ends."""
    for journal in (folder / FOLDER).glob(f"*{SUFFIX}"):
        with suppress(FileExistsError, FileNotFoundError):
            os.link(journal, folder / journal.name)


def losses(folder: Path) -> dict[str, Any]:
    """Return how many of a run's journalled samples its file lacks, and how many cells failed."""
    run = result(folder)
    journalled: Counter[tuple[str, str, float]] = Counter()
    for path in folder.glob(f"*{SUFFIX}"):
        for record in Journal.open(path).records:
            answer = record["outcome"].get("answer") or {}
            cold = record["action"]["do"] == "cold"  # a control's is answered as the baseline's
            for arm, metric, value, *_ in answer.get("samples", []):
                arm = record["action"]["arms"][0] if cold else arm
                if METRICS[metric].varies:
                    journalled[arm, metric, value] += 1
    written = Counter((str(s.cell.arm), s.metric, s.value) for s in run.samples)
    return {
        "journalled": journalled.total(),
        "lost": (journalled - written).total(),
        "failed cells": sum(row.failure is not None for row in run.results.cells),
        "processes": run.results.spent.processes,
    }


if __name__ == "__main__":
    for what, kill in (("a run, resumed", run_killed), ("workers", workers_killed)):
        with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
            numbers = kill(Path(name), 10)
        right = not numbers["lost"] and not numbers["failed cells"]
        record = {"trial": f"kills of {what}", "right": right, "numbers": numbers}
        keep(Path(__file__).parent / RECORDS, record)
