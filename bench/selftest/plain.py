"""The usual way, for comparison: pytest-benchmark alone, a saved run, and a fixed threshold.

A test file is written that times the same synchronised step in the same way that the project's own
advice would have it: warmed up first, everything waited for. It runs once with the old program and
once with the new one, each for half of the budget.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.worker.settings import environment
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLD = "median:5%"
TEST = """\
import jax
import impls
from bench.worker.setting import setting
from bench.worker.turns import stream
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import make, random_weights

impls.add({path!r})


def test_step(benchmark):
    case, corpus, tokens = setting({workload!r}, jax.default_backend())
    step = make(impls.load({entrant!r}).style({style!r}), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    chunk, hidden = next(stream(case, tokens)), zero_hidden(case.model, case.batch)

    def call():
        return jax.block_until_ready(step(hidden, chunk))

    for _ in range(10):
        call()
    benchmark(call)
"""
STARTING = 6.0
"""Seconds of each half that go to imports, compiling and pytest itself."""


def compare(
    folder: Path, entrant: Path, base: str, new: str, workload: str, budget: float
) -> dict[str, Any]:
    """Time style `base`, then style `new`; return whether the threshold was passed.

    Raises:
        BakeoffError: a run went wrong in another way than by being slower.
    """
    start = time.monotonic()
    folder.mkdir()
    said = ""
    for style, options in (
        (base, ["--benchmark-save=base"]),
        (new, ["--benchmark-compare=0001", f"--benchmark-compare-fail={THRESHOLD}"]),
    ):
        test = folder / "test_plain.py"
        test.write_text(
            TEST.format(path=str(entrant), workload=workload, entrant=entrant.stem, style=style)
        )
        seconds = max(1.0, budget / 2 - STARTING)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_plain.py"]
        done = subprocess.run(  # noqa: S603 -- our own test file
            [*command, f"--benchmark-max-time={seconds:g}", "--rootdir=.", *options],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        slower = "Performance has regressed" in said
        if done.returncode and not slower:
            raise BakeoffError(f"pytest-benchmark failed: {' '.join(said.splitlines()[-3:])}")
    return {"called": "slower" if slower else "", "seconds": time.monotonic() - start}
