"""Where the tuned step's time goes: its parts compiled apart, and how many cores each keeps busy.

`python -m bench.tuned.profile [WORKLOAD...]`, with nothing else running. Parts are programs of
their own, so that their times need not add up to the step's.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

import impls
from bench.worker.setting import case_of
from common.contract import Weights, fresh_checkpoint
from common.equality import make, random_chunk, random_hidden, random_weights
from common.layerwise import dense, recurrence
from common.steps import adamw

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.equality import Case

REPEATS, WARM = 60, 5


class Part(NamedTuple):
    """What was seen of one part."""

    name: str
    seconds: float
    """Median of a call."""
    cores: float
    """Processor seconds in a second."""


def profile(case: Case) -> list[Part]:
    """Return the parts of a tuned step at some sizes, and the whole of it."""
    return [timed(name, call) for name, call in calls(case).items()]


def timed(name: str, call: Callable[[], Any]) -> Part:
    """Return what repeated calls take, each waited for."""
    for _ in range(WARM):
        jax.block_until_ready(call())
    seconds = []
    used, began = time.process_time(), time.perf_counter()
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    wall = time.perf_counter() - began
    return Part(name, median(seconds), (time.process_time() - used) / wall)


def calls(case: Case) -> dict[str, Callable[[], Any]]:
    """Return calls of each part, compiled, over arrays of the sizes that a step has."""
    weights = jax.tree.map(jnp.asarray, random_weights(case.model))
    hidden, chunk = random_hidden(case), random_chunk(case, 1)
    rows = jnp.ones((case.chunk, case.batch, case.model.width)) / 8
    kernels = [cell.kernel[: case.model.width] for cell in weights.cells]
    others = [weights.cells[i].kernel[case.model.width :] for i in range(1, case.model.layers)]
    affine = [*zip(others, (cell.bias for cell in weights.cells[1:]), strict=True), weights.readout]

    def scans(kernels: list[Any], rows: Any) -> Any:
        return sum(
            jnp.sum(recurrence(kernel, state, rows))
            for kernel, state in zip(kernels, hidden, strict=True)
        )

    def products(affine: list[Any], rows: Any) -> Any:
        return sum(jnp.sum(jnp.square(dense(rows, *pair))) for pair in affine)

    optimiser = adamw(case.optimiser)
    state = optimiser.init(weights)

    def update(gradient: Weights) -> Any:
        return optimiser.update(gradient, state, weights)

    step = make(impls.load("pure_jax").style("tuned"), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    forwards, both = jax.jit(scans), jax.jit(jax.grad(scans, argnums=(0, 1)))
    ahead, around = jax.jit(products), jax.jit(jax.grad(products, argnums=(0, 1)))
    moved = jax.jit(update)
    return {
        "scans, forwards": lambda: forwards(kernels, rows),
        "scans both ways, kernels' gradients": lambda: both(kernels, rows),
        "projections and readout, forwards": lambda: ahead(affine, rows),
        "the same both ways, kernels' gradients": lambda: around(affine, rows),
        "optimiser": lambda: moved(weights),
        "whole step": lambda: step(hidden, chunk),
    }


def main() -> None:
    """Print a table for each workload that is named."""
    for workload in sys.argv[1:] or ["seed", "batched"]:
        print(f"{workload}: part, milliseconds, cores kept busy")
        for part in profile(case_of(workload, "cpu")):
            print(f"  {part.name:40} {1e3 * part.seconds:8.3f} {part.cores:6.2f}")


if __name__ == "__main__":
    main()
