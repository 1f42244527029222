"""Real runs for trials: `pytest bench`, also killed, and pytest-benchmark alone to compare with."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.runfile import NANOSECONDS
from bench.runfile.section import unit_of
from bench.trials.plants import write_entrant
from bench.worker.settings import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.trials.tables import Record

THRESHOLD = "median:5%"
START_SECONDS = 6.0
"""Of each of both runs of pytest-benchmark: imports, compiling and pytest itself."""
TEST = """\
import jax
import impls
from bench.worker.turns import stream
from bench.worker.workloads import load_workload
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import make, random_weights

impls.add("planted.py")


def test_step(benchmark):
    case, corpus, tokens = load_workload("seed")
    step = make(impls.load("planted").style({style!r}), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    chunk, hidden = next(stream(case, tokens)), zero_hidden(case.model, case.batch)

    def call():
        return jax.block_until_ready(step(hidden, chunk))

    for _ in range(10):
        call()
    benchmark(call)
"""
BUSY = """\
import os, random, time
rng = random.Random({seed})
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + rng.uniform(0.5, 2)
    while time.monotonic() < end:
        pass
    time.sleep(rng.uniform(0.5, 2))
"""
RUN = "run.json"
OUTPUT = "output.txt"
LIVES = 4, 24
"""Seconds that a run lives before it is killed: shorter than its start, or with many blocks. Each
kill costs a worker, so many short lives would leave no budget for the fewest blocks."""


class TrialFailedError(Exception):
    """A run came to no result; its last words say why."""


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `pytest bench` in a folder, for all that it writes; kill it if it runs at the end."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}", "-q"]
    command += ["-p", "no:cacheprovider", *options, f"--benchmark-json={folder / RUN}"]
    with (folder / OUTPUT).open("w") as output:
        run = subprocess.Popen(  # noqa: S603 -- this project's benchmarks
            command,
            cwd=folder,
            env=alone(os.environ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def alone(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without pytest-xdist's, in which pytest-benchmark is off."""
    return {name: value for name, value in variables.items() if "XDIST" not in name}


def bench(*options: str, styles: Mapping[str, str] | None = None) -> Record:
    """Run `pytest bench` once; return the run file's section, with the seconds that it `took`.

    With plants by style, an entrant of these styles is measured; its cells are in `planted`.

    Raises:
        TrialFailedError: there is no run file.
    """
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
        here, start = Path(name), time.monotonic()
        if styles:
            options = (f"--entrant={write_entrant(here / 'planted.py', styles)}", *options)
        with started(here, *options) as run:
            run.wait()
        found = section(here) | {"took": time.monotonic() - start}
    if styles:
        cells = {cell["style"]: cell for cell in found["cells"] if cell["entrant"] == "planted"}
        found["planted"] = {style: cells[style] for style in styles}
    return found


def section(folder: Path) -> Record:
    """Return the section of the run file in a folder; raise TrialFailedError if there is none."""
    if not (folder / RUN).exists():
        last = (folder / OUTPUT).read_text("utf-8", "replace").splitlines()[-3:]
        raise TrialFailedError(" ".join(last))
    found: Record = json.loads((folder / RUN).read_text("utf-8"))["bakeoff"]
    return found


def threshold(percent: float, iterations: int, budget: float) -> Record:
    """Time a step, then the step with planted work, with pytest-benchmark alone.

    Its own comparison with the saved first run calls it slower from a fixed threshold on. The
    budget is the seconds of both runs together.
    """
    about = {"way": f"pytest-benchmark, `{THRESHOLD}`", "percent": percent}
    about |= {"iterations": iterations, "budget": budget}
    new = f"work({iterations})" if iterations else "same()"
    start, slower = time.monotonic(), False
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
        here = Path(name)
        write_entrant(here / "planted.py", {"base": "same()", "new": new})
        for style, options in (
            ("base", ["--benchmark-save=base"]),
            ("new", ["--benchmark-compare=0001", f"--benchmark-compare-fail={THRESHOLD}"]),
        ):
            (here / "test_step.py").write_text(TEST.format(style=style))
            seconds = max(1.0, budget / 2 - START_SECONDS)
            command = [sys.executable, "-m", "pytest", "-q", "--rootdir=.", "test_step.py"]
            command += ["-p", "no:cacheprovider", f"--benchmark-max-time={seconds:g}", *options]
            done = subprocess.run(  # noqa: S603 -- the test above
                command,
                cwd=here,
                env=alone(environment()),
                capture_output=True,
                text=True,
                check=False,
            )
            slower = "Performance has regressed" in done.stdout + done.stderr
            if done.returncode and not slower:
                raise TrialFailedError(" ".join(done.stdout.splitlines()[-3:]))
    return about | {"called": "slower" if slower else "", "took": time.monotonic() - start}


@contextmanager
def load(wanted: bool, seed: int) -> Iterator[None]:
    """Keep one core busy, on and off for a second or so, while this is open."""
    with ExitStack() as stack:
        if wanted:
            command = [sys.executable, "-c", BUSY.format(seed=seed)]
            other = stack.enter_context(subprocess.Popen(command))  # noqa: S603 -- the loop above
            stack.callback(other.kill)
        yield


# Runs that are killed at random moments, and whether they lose samples.


def run_killed(folder: Path, kills: int, budget: float) -> Record:
    """Kill one run with SIGKILL at random moments, resume it each time; return what was lost."""
    rng = random.SystemRandom()
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
    found = losses(folder, ["step"])
    found["cells_without_a_number"] = len(found["cells_without_a_number"])
    return {"kills": len(moments), "moments": moments, **found}


def workers_killed(folder: Path, kills: int, budget: float) -> Record:
    """Kill random workers of one run with SIGKILL; return what was lost.

    There are fewer kills where four fifths of the budget, in seconds, are spent before.
    """
    rng = random.SystemRandom()
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
    return {"kills": killed, **losses(folder, ["step", "compile"])}


def link_journals(folder: Path) -> None:
    """Give a run's journal a second name in `folder`: the run removes the first when it ends."""
    for journal in (folder / FOLDER).glob(f"*{SUFFIX}"):
        with suppress(FileExistsError, FileNotFoundError):
            os.link(journal, folder / journal.name)


def losses(folder: Path, metrics: Sequence[str]) -> Record:
    """Return what a killed run has lost, and which cells have no number of these metrics."""
    run = section(folder)
    measured: Counter[Any] = Counter()
    for path in folder.glob(f"*{SUFFIX}"):
        for record in Journal.open(path).records:
            action, answer = record["action"], record["outcome"].get("answer")
            if answer and action["do"] == "block":
                seconds = answer["seconds"]
                measured.update(samples(seconds, NANOSECONDS / unit_of(seconds)))
            elif answer and action["do"] == "cold":
                measured.update(samples({action["arms"][0]: answer["values"]}, NANOSECONDS))
    written: Counter[Any] = Counter()
    for block in run["samples"]["blocks"]:
        written.update(samples(block["nanoseconds"]))
    for cold in run["samples"]["cold"]:
        arm = f"{cold['entrant']}/{cold['style']}"
        written.update(samples({arm: cold["values"]}, NANOSECONDS))
    return {
        "journalled": measured.total(),
        "lost": (measured - written).total(),
        "cells_without_a_number": [
            f"{cell['entrant']} {cell['style']} {metric}"
            for cell in run["cells"]
            for metric in metrics
            if cell["failure"] or cell["metrics"].get(metric, {}).get("median") is None
        ],
        "processes": run["spent"]["processes"],
    }


def samples(tree: Any, factor: float = 1, *keys: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield each number of nested dictionaries and lists with its keys, times a factor."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from samples(branch, factor, *keys, key)
    elif isinstance(tree, list):
        for branch in tree:
            yield from samples(branch, factor, *keys)
    elif tree is not None:
        yield keys, round(tree * factor)
