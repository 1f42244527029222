"""The task of every tool: plain JAX's step at `seed`, with a wait planted before each call."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import jax

from bench.cells import BASELINE
from bench.worker.arms import load_workload
from common.equality import make

if TYPE_CHECKING:
    from collections.abc import Callable


def make_step(microseconds: float, workload: str = "seed") -> Callable[[], None]:
    """Return a compiled step that keeps its core busy for so long before each call.

    Each call is one update, and is waited for. A side without a plant looks at the clock as well.
    Where `BESIDE_SLOWER` is set, to microseconds and a time, both sides wait so much more from then
    on: what is measured first has an advantage.
    """
    more, turn = map(float, os.environ.get("BESIDE_SLOWER", "0 inf").split())
    case, _ = load_workload(workload)
    step = make(BASELINE.load(), case)
    step.load(case.fresh())
    hidden, chunk = case.hidden(), case.data()

    def call() -> None:
        wait = microseconds + (more if time.time() > turn else 0.0)
        end = time.perf_counter() + wait / 1e6
        while time.perf_counter() < end:
            pass
        jax.block_until_ready(step(hidden, chunk))

    for _ in range(3):
        call()
    return call
