"""`python -m bench.fleet.growth`: what a run costs against entrants, workloads and devices.

Real runs of the same counts are timed from outside, and a line is fitted to them by least squares:
seconds to begin, seconds of each cell, and what a cell over devices takes beyond that. Nothing else
should run meanwhile; it takes some ten minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.fleet.work import COMMAND

FEWEST = ("--processes=2", "--blocks=2", "--rounds=2", "--metric=step", "--style=pure")
"""The least that gives an interval."""
ENTRANTS = ("pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku", "stax")


@dataclass(frozen=True)
class Case:
    """A run, and what it took."""

    entrants: int
    workloads: str
    devices: str = ""
    cells: int = 0
    """Of everybody, the control's included."""
    over: int = 0
    """Of these, over devices."""
    seconds: float = 0.0


CASES = (
    *(Case(entrants, "seed") for entrants in (1, 2, 4, 6)),
    *(Case(2, workloads) for workloads in ("toy", "toy,seed", "toy,seed,batched")),
    *(Case(1, "batched", devices) for devices in ("", "1", "1,2", "1,2,4", "1,2,4,8")),
)


def timed(case: Case) -> Case:
    """Return a case with its cells and the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-growth-") as folder:
        path = Path(folder) / "run.json"
        options = [
            *FEWEST,
            f"--entrant={','.join(ENTRANTS[: case.entrants])}",
            f"--workload={case.workloads}",
            *([f"--devices={case.devices}"] if case.devices else []),
            f"--benchmark-json={path}",
        ]
        start = time.monotonic()
        subprocess.run([*COMMAND, *options], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        seconds = time.monotonic() - start
        section = json.loads(path.read_text("utf-8"))["bakeoff"]
    cells = [cell["style"] for cell in section["cells"]]
    control = len(case.workloads.split(","))
    over = sum("@" in style for style in cells)
    return Case(case.entrants, case.workloads, case.devices, len(cells) + control, over, seconds)


def fitted(cases: list[Case]) -> dict[str, float]:
    """Return the line through all cases: its coefficients in seconds, and how far they are off."""
    rows = np.array([[1.0, case.cells, case.over] for case in cases])
    seconds = np.array([case.seconds for case in cases])
    found, *_ = np.linalg.lstsq(rows, seconds)
    off = np.abs(rows @ found - seconds)
    names = ("begin", "cell", "over_devices")
    return {
        **dict(zip(names, map(float, found), strict=True)),
        "most_off": float(off.max()),
        "mean_off": float(off.mean()),
    }


def main() -> None:
    """Time all cases, and print them and the line through them."""
    cases = []
    for case in CASES:
        cases.append(timed(case))
        print(cases[-1], file=sys.stderr, flush=True)
    print(json.dumps({"cases": [asdict(case) for case in cases], "fit": fitted(cases)}, indent=2))


if __name__ == "__main__":
    main()
