"""The task of every tool: plain JAX's step at `seed`, with a wait planted before each call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jax

from bench.cells import BASELINE
from bench.worker.arms import load_workload
from common.equality import make

if TYPE_CHECKING:
    from collections.abc import Callable


def make_step(microseconds: float) -> Callable[[], None]:
    """Return a compiled step that keeps its core busy for so long before each call.

    Each call is one update, and is waited for. A side without a plant looks at the clock as well.
    """
    case, _ = load_workload("seed")
    step = make(BASELINE.load(), case)
    step.load(case.fresh())
    hidden, chunk = case.hidden(), case.data()

    def call() -> None:
        end = time.perf_counter() + microseconds / 1e6
        while time.perf_counter() < end:
            pass
        jax.block_until_ready(step(hidden, chunk))

    for _ in range(3):
        call()
    return call
