"""What stands for an arm's calls in a block: `python results/selftest/datum.py WORKLOAD --core N`.

Records single calls of all styles in turns, in stretches of a few seconds, with one, two, three or
four timed calls after an untimed one; prints, for each number of calls and each way to sum them up,
the standard deviation of an arm's ratio from stretch to stretch, and some ratios. Nothing else
should run meanwhile. datum.md has what came out.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import tempfile
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from bench.worker.settings import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float

    type Calls = Float[np.ndarray, "rounds arms calls"]
    type Arms = Float[np.ndarray, " arms"]

LEFT_OUT = "flat", "blog"
"""Styles for models of one's own, and one that takes the time of many others."""
SHOWN = "pure_jax/tuned", "equinox/filter_jit", "flax_nnx/jit", "haiku/pure"
"""Arms whose ratios are printed."""


def fastest(part: float) -> Callable[[Calls], Arms]:
    """Return the mean of a part of an arm's turns, the fastest, each as its fastest call."""

    def location(logs: Calls) -> Arms:
        turns = np.sort(logs.min(2), axis=0)
        return turns[: max(1, int(np.ceil(part * len(turns))))].mean(0)

    return location


def quantile(calls: int) -> Callable[[Calls], Arms]:
    """Return the mean, over blocks of so many calls, of their 10 % quantile."""

    def location(logs: Calls) -> Arms:
        rounds = max(1, calls // logs.shape[2])
        blocks = [logs[i : i + rounds] for i in range(0, len(logs), rounds)]
        whole = [block for block in blocks if len(block) == rounds] or blocks
        return np.mean([np.quantile(block, 0.1, axis=(0, 2)) for block in whole], axis=0)

    return location


def paired(logs: Calls) -> Arms:
    """Return Huber's location of each turn's logarithm less its round's, over all arms."""
    turns = logs.min(2)
    common = np.median(turns - np.quantile(turns, 0.25, axis=0), axis=1, keepdims=True)
    rest = turns - common
    location = np.median(rest, axis=0)
    scale = 1.4826 * np.median(np.abs(rest - location), axis=0) + 1e-9
    for _ in range(20):
        location = location + np.clip(rest - location, -1.5 * scale, 1.5 * scale).mean(0)
    return location


LOCATIONS = {
    "fastest half of turns": fastest(0.5),
    "fastest quarter of turns": fastest(0.25),
    "all turns": fastest(1.0),
    "10 % quantile of 32 calls": quantile(32),
    "10 % quantile of all calls": quantile(1 << 20),
    "paired, Huber": paired,
}


def record(workload: str, calls: Sequence[int], seconds: float, repeats: int) -> tuple[list, list]:
    """Return the names of arms, and (calls in a turn, logarithms) of each stretch."""
    import jax

    import impls
    from bench.cells import BASELINE, Arm
    from bench.worker.arms import Arms as Workload
    from bench.worker.session import use_cache

    use_cache(os.path.join(tempfile.gettempdir(), "bakeoff-datum"))  # noqa: PTH118 -- jax's own
    arms = Workload(workload, "cpu", donate=False)
    every = [Arm(name, style) for name in impls.list_usual() for style in impls.list_styles(name)]
    names = [BASELINE, *(arm for arm in every if arm.style not in LEFT_OUT)]
    rng, steps = random.Random(), {}  # noqa: S311 -- an order is no secret
    for i in rng.sample(range(len(names)), len(names)):
        steps[i] = arms.make(names[i])
    hidden, chunk, clock = arms.case.zero(), arms.chunks[0], time.perf_counter
    stretches = []
    gc.disable()
    for count in rng.sample([*calls] * repeats, len(calls) * repeats):
        for i in rng.sample(range(len(names)), len(names)):
            arms.load(steps[i], 1.0)
            for _ in range(3):
                jax.block_until_ready(steps[i](hidden, chunk))
        rows, end = [], clock() + seconds
        while clock() < end:
            row = np.zeros((len(names), count))
            for i in rng.sample(range(len(names)), len(names)):
                jax.block_until_ready(steps[i](hidden, chunk))
                for j in range(count):
                    start = clock()
                    jax.block_until_ready(steps[i](hidden, chunk))
                    row[i, j] = clock() - start
            rows.append(row)
        stretches.append((count, np.log(rows)))
    return [str(name) for name in names], stretches


def main() -> None:
    """Record, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--core", type=int, help="keep to this core; all cores unless given")
    parser.add_argument("--calls", default="1,2,3,4", help="timed calls in a turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a stretch")
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
        os.environ.update(NPROC="1", PJRT_NPROC="1")
    calls = [int(text) for text in given.calls.split(",")]
    names, stretches = record(given.workload, calls, given.seconds, given.repeats)
    by_way: dict[tuple[int, str], list[Arms]] = defaultdict(list)
    for count, logs in stretches:
        for name, location in LOCATIONS.items():
            ratios = location(logs)
            by_way[count, name].append(ratios - ratios[:2].mean())
    print(f"| calls in a turn | of a block | sd | {' | '.join(SHOWN)} |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for (count, name), rows in sorted(by_way.items()):
        spread = np.sqrt(np.var(rows, axis=0, ddof=1)[2:].mean())
        middle = np.exp(np.mean(rows, axis=0))
        shown = " | ".join(f"{middle[names.index(arm)]:.3f}" for arm in SHOWN)
        print(f"| {count} | {name} | {100 * spread:.2f} % | {shown} |")


if __name__ == "__main__":
    main()
