"""Real runs for trials: `pytest bench`, pytest-benchmark alone to compare with, and load."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.trials.plants import write_entrant
from bench.worker.settings import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    type Record = dict[str, Any]

THRESHOLD = "median:5%"
START_SECONDS = 6.0
"""Of each of both runs: imports, compiling and pytest itself."""
TEST = """\
import jax
import impls
from bench.worker.setting import setting
from bench.worker.turns import stream
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import make, random_weights

impls.add("planted.py")


def test_step(benchmark):
    case, corpus, tokens = setting("seed", jax.default_backend())
    step = make(impls.load("planted").style({style!r}), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    chunk, hidden = next(stream(case, tokens)), zero_hidden(case.model, case.batch)

    def call():
        return jax.block_until_ready(step(hidden, chunk))

    for _ in range(10):
        call()
    benchmark(call)
"""
RUN = "run.json"
OUTPUT = "output.txt"


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-trial-") as name:
        yield Path(name)


def alone(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without pytest-xdist's, in which pytest-benchmark is off."""
    return {name: value for name, value in variables.items() if "XDIST" not in name}


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `pytest bench` in a process group of its own; kill it if it still runs at the end.

    Args:
        folder: Where it runs, and writes its run file and its output.
        options: Of `pytest bench`.
    """
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


def bench(folder: Path, *options: str) -> Record:
    """Run `pytest bench` once; return the run file's section, with the seconds that it took.

    A run without a run file returns the end of its output as `failed`.
    """
    start = time.monotonic()
    with started(folder, *options) as run:
        run.wait()
    seconds = time.monotonic() - start
    if not (folder / RUN).exists():
        return {"failed": last_words(folder), "took": seconds}
    return section(folder) | {"took": seconds}


def bench_planted(styles: Mapping[str, str], *options: str) -> Record:
    """Run an entrant with these plants; the result's `planted` has its cells, by style."""
    with scratch() as here:
        path = write_entrant(here / "planted.py", styles)
        run = bench(here, f"--entrant={path}", *options)
    if "failed" in run:
        return run
    return run | {"planted": {c["style"]: c for c in run["cells"] if c["entrant"] == path.stem}}


def section(folder: Path) -> Record:
    """Return the section of the run file in a folder."""
    return json.loads((folder / RUN).read_text("utf-8"))["bakeoff"]


def last_words(folder: Path) -> str:
    """Return the last lines that a run has printed."""
    return " ".join((folder / OUTPUT).read_text("utf-8", "replace").splitlines()[-3:])


def threshold(percent: float, iterations: int, budget: float) -> Record:
    """Time a step, then the step with planted work, with pytest-benchmark alone.

    Its own comparison with the saved first run calls it slower from a fixed threshold on.

    Args:
        percent: The slowdown that the planted work is meant to be.
        iterations: Of the planted work; 0 plants nothing.
        budget: Seconds of both runs together.
    """
    about = {"way": f"pytest-benchmark, `{THRESHOLD}`", "percent": percent}
    about |= {"iterations": iterations, "budget": budget}
    new = f"work({iterations})" if iterations else "same()"
    start, slower = time.monotonic(), False
    with scratch() as here:
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
                return about | {"failed": " ".join(done.stdout.splitlines()[-3:])}
    called = "slower" if slower else ""
    return about | {"called": called, "took": time.monotonic() - start}


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
