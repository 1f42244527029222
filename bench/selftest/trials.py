"""Trials: real runs whose right answer is known, one after the other, journalled, in random order.

Each is one `pytest bench` of two entrants, the baseline and a planted one, or one comparison the
usual way. What is left of an interrupted selftest is done by the next.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.selftest import plain
from bench.selftest.plants import write_entrant
from bench.worker.settings import ROOT, conditions
from common.errors import BakeoffError
from common.versions import versions

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping

WORKLOAD = "seed"
BASE = "same"
PERCENTS = (1, 2, 5, 10)
BUSY = """
import os, random, time
rng = random.Random({seed})
parent = os.getppid()
while os.getppid() == parent:
    end = time.monotonic() + rng.uniform(0.2, 2)
    while time.monotonic() < end:
        pass
    time.sleep(rng.uniform(0.2, 2))
"""
"""A second process that loads one core on and off."""


class Trial(NamedTuple):
    """One question whose answer is known."""

    percent: int
    """The slowdown that is planted inside of the compiled program; 0 is A/A."""
    way: str
    """`bakeoff` or `plain`."""
    loaded: bool
    """Whether another process loads one core on and off meanwhile."""


WISHES = {
    ("bakeoff", False): {0: 20, 1: 10, 2: 12, 5: 3, 10: 1},
    ("plain", False): {0: 10, 1: 2, 2: 3, 5: 4, 10: 1},
    ("bakeoff", True): {0: 5, 2: 4, 5: 3},
    ("plain", True): {0: 5, 2: 3, 5: 4},
}
"""How many trials there shall be: by way, with and without load, and by what is planted."""
WAYS = ("bakeoff", "plain")


def wanted(done: Counter[Trial], seed: int = 0) -> list[Trial]:
    """Return the trials that are still to be made, both ways and all plants shuffled."""
    todo = [
        trial
        for (way, loaded), wishes in WISHES.items()
        for percent, count in wishes.items()
        for trial in [Trial(percent, way, loaded)]
        for _ in range(count - done[trial])
    ]
    random.Random(f"{seed} {len(todo)}").shuffle(todo)  # noqa: S311 -- an order is no secret
    return todo


def bench(folder: Path, *options: str) -> dict[str, Any]:
    """Run `pytest bench` with these options, below `folder`; return what its file says.

    Raises:
        BakeoffError: it wrote no file.
    """
    path = Path(tempfile.mkdtemp(dir=folder)) / "run.json"
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench"), f"--rootdir={ROOT}"]
    done = subprocess.run(  # noqa: S603 -- this project's benchmarks
        [*command, "-p", "no:cacheprovider", f"--benchmark-json={path}", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if not path.exists():
        said = (done.stdout + done.stderr).strip().splitlines()
        raise BakeoffError(f"a run wrote no file; it said last: {' '.join(said[-3:])}")
    return dict(json.loads(path.read_text("utf-8")))


def perform(trial: Trial, entrant: Path, budget: float, seed: int) -> dict[str, Any]:
    """Make one trial; return what was called, with the interval where there is one."""
    style = f"work_{trial.percent}" if trial.percent else BASE
    with tempfile.TemporaryDirectory(prefix="bakeoff-selftest-") as name, load(trial.loaded, seed):
        folder = Path(name)
        start = time.monotonic()
        if trial.way == "plain":
            return plain.compare(folder / "plain", entrant, BASE, style, WORKLOAD, budget)
        options = [f"--entrant={entrant}", f"--style={style}", f"--workload={WORKLOAD}"]
        said = bench(folder, *options, "--metric=step", f"--budget={budget:g}")["bakeoff"]
        [step] = [c["metrics"]["step"] for c in said["cells"] if c["entrant"] == entrant.stem]
        if "missing" in step or not said["control"]:
            raise BakeoffError(f"a trial has no result: {step.get('missing')}; give more --budget")
        keys = ("ratio", "standard_error", "low", "high", "p", "verdict", "blocks", "processes")
        [control] = said["control"]
        return {
            "called": called(step),
            "seconds": time.monotonic() - start,
            **{key: step[key] for key in keys},
            "detectable": step["detectable"],
            "control": {key: control[key] for key in keys},
            "share": said["spent"]["sampling_share"],
            "warnings": len(said["warnings"]),
        }


def called(step: Mapping[str, Any]) -> str:
    """Return which difference a run has found; the interval leaves out 1, or there is none."""
    if not step["differs"]:
        return ""
    return "slower" if step["ratio"] > 1 else "faster"


@contextmanager
def load(wanted: bool, seed: int) -> Iterator[None]:
    """Keep one core busy, on and off, while this is open."""
    if not wanted:
        yield
        return
    command = [sys.executable, "-c", BUSY.format(seed=seed)]
    process = subprocess.Popen(command)  # noqa: S603 -- the text above
    try:
        yield
    finally:
        process.kill()
        process.wait()


def entrant_file(folder: Path, iterations: Mapping[int, int]) -> Path:
    """Write the planted entrant of the trials; return its file."""
    styles = {f"work_{percent}": f"work({n})" for percent, n in iterations.items()}
    return write_entrant(folder / "planted.py", {BASE: "same()", **styles})


def about() -> dict[str, Any]:
    """Return under which conditions trials are made."""
    return {"versions": versions(), **conditions()}
