"""The task of every tool: plain JAX's step, with a wait planted before each call."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from bench.cells import BASELINE
from bench.worker.arms import load_workload
from common.equality import make

if TYPE_CHECKING:
    from collections.abc import Callable


IMPORTED = [0.0]
"""Microseconds that calls of this process wait for what it imported."""


def make_step(microseconds: float) -> Callable[[], None]:
    """Return a compiled step that keeps its core busy for so long before each call.

    Each call is one update, and is waited for. A side without a plant looks at the clock as well.
    `BESIDE_WORKLOAD` is the name of the size, unless it is `seed`. Where `BESIDE_SLOWER` is set, to
    microseconds and a time, both sides wait so much more from then on: what is measured first has
    an advantage. Where `BESIDE_IMPORTED` is set, the wait stands for a library that the side's
    process has imported: every call of that process waits, whichever side's it is.
    `BESIDE_PROCESSES` is a file that gets the number of each process that makes a step.
    """
    more, turn = map(float, os.environ.get("BESIDE_SLOWER", "0 inf").split())
    waits = [microseconds]
    if "BESIDE_IMPORTED" in os.environ:
        waits = IMPORTED
        waits[0] += microseconds
    if "BESIDE_PROCESSES" in os.environ:
        with Path(os.environ["BESIDE_PROCESSES"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
    case, _ = load_workload(os.environ.get("BESIDE_WORKLOAD", "seed"))
    step = make(BASELINE.load(), case)
    step.load(case.fresh())
    hidden, chunk = case.hidden(), case.data()

    def call() -> None:
        wait = waits[0] + (more if time.time() > turn else 0.0)
        end = time.perf_counter() + wait / 1e6
        while time.perf_counter() < end:
            pass
        jax.block_until_ready(step(hidden, chunk))

    for _ in range(3):
        call()
    return call
