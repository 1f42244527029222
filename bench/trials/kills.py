"""Runs that are killed at random moments, and whether they lose samples."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.runfile import NANOSECONDS
from bench.trials.runs import RUN, last_words, section, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.trials.runs import Record

LIVES = 4, 24
"""Seconds that a run lives before it is killed: shorter than its start, or with many blocks. Each
kill costs a worker, so many short lives would leave no budget for the fewest blocks."""


def run_killed(folder: Path, kills: int, budget: float, seed: int) -> Record:
    """Kill one run with SIGKILL at random moments, resume it each time; return what was lost.

    Args:
        folder: An empty one, for the run.
        kills: How many there are, unless the run ends before.
        budget: Seconds of the run.
        seed: Of the moments.
    """
    rng = random.Random(seed)  # noqa: S311 -- moments are no secret
    options = ["--entrant=equinox", "--style=pure", "--workload=seed", "--metric=step,compile"]
    moments: list[float] = []
    ended = False
    while not ended:
        resume = ["--resume"] if list((folder / FOLDER).glob(f"*{SUFFIX}")) else []
        moment = rng.uniform(*LIVES) if len(moments) < kills else None
        with started(folder, *options, f"--budget={budget:g}", *resume) as run:
            with suppress(subprocess.TimeoutExpired):
                run.wait(moment)
            ended = run.poll() is not None
        link_journals(folder)
        if moment is not None and not ended:
            moments.append(moment)
    found = result(folder, ["step"])
    if "failed" not in found:
        found["cells_without_a_number"] = len(found["cells_without_a_number"])
    return {"kills": len(moments), "moments": moments, **found}


def workers_killed(folder: Path, kills: int, budget: float) -> Record:
    """Kill random workers of one run with SIGKILL; return what was lost.

    Args:
        folder: An empty one, for the run.
        kills: How many there are, unless four fifths of the budget are spent before.
        budget: Seconds of the run.
    """
    rng = random.Random()  # noqa: S311 -- moments are no secret
    options = ["--entrant=equinox,haiku", "--workload=seed", "--metric=step,compile"]
    killed = 0
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
    return {"kills": killed, **result(folder, ["step", "compile"])}


def link_journals(folder: Path) -> None:
    """Give a run's journal a second name in `folder`: the run removes the first when it ends."""
    for journal in (folder / FOLDER).glob(f"*{SUFFIX}"):
        with suppress(FileExistsError, FileNotFoundError):
            os.link(journal, folder / journal.name)


def result(folder: Path, metrics: Sequence[str]) -> Record:
    """Return what a killed run has lost, and which cells have no number of these metrics."""
    if not (folder / RUN).exists():
        return {"failed": last_words(folder)}
    run = section(folder)
    without = [
        f"{cell['entrant']} {cell['style']} {metric}"
        for cell in run["cells"]
        for metric in metrics
        if cell["failure"] or cell["metrics"].get(metric, {}).get("median") is None
    ]
    measured = Counter(
        sample
        for path in folder.glob(f"*{SUFFIX}")
        for record in Journal.open(path).records
        for sample in samples(answered(record["action"], record["outcome"].get("answer")))
    )
    blocks, processes = run["samples"]["blocks"], run["samples"]["cold"]
    written = [
        {
            metric: {arm: [n / NANOSECONDS for n in values] for arm, values in arms.items()}
            for metric, arms in block["nanoseconds"].items()
        }
        for block in blocks
    ]
    written += [{f"{cold['entrant']}/{cold['style']}": cold["values"]} for cold in processes]
    return {
        "journalled": measured.total(),
        "lost": (measured - Counter(samples(written))).total(),
        "cells_without_a_number": without,
        "processes": run["spent"]["processes"],
    }


def answered(action: dict[str, Any], answer: dict[str, Any] | None) -> Any:
    """Return what a worker has measured, as the run file has it; None of any other action."""
    if answer and action["do"] == "block":
        return answer["seconds"]
    if answer and action["do"] == "cold":
        return {action["arms"][0]: answer["values"]}
    return None


def samples(tree: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield each number of nested dictionaries and lists with its keys, to the nanosecond."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from samples(branch, *keys, key)
    elif isinstance(tree, list):
        for branch in tree:
            yield from samples(branch, *keys)
    elif tree is not None:
        yield keys, round(tree * NANOSECONDS) / NANOSECONDS
