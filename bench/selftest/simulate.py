"""Simulated A/A runs: how often the statistics call identical programs different."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.stats.nested import paired
from bench.stats.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = 2000


class World(NamedTuple):
    """What a simulated machine does to identical programs; standard deviations of logarithms."""

    name: str
    arms: int
    processes: int
    blocks: int
    between: float
    """Of an arm's level from process to process."""
    within: float
    """Of an arm's median from block to block."""
    tails: bool = False
    """Whether blocks have Student's t with three degrees of freedom instead of a normal."""
    odd: float = 1.0
    """How many times noisier than the others the last arm is."""


WORLDS = (
    World("two entrants, as measured at `seed`", 3, 7, 16, 0.002, 0.013),
    World("thirteen arms, as measured at `seed`", 13, 5, 9, 0.002, 0.013),
    World("two entrants, as measured at `toy`", 3, 7, 30, 0.007, 0.035),
    World("heavy tails", 3, 7, 16, 0.002, 0.013, tails=True),
    World("one arm four times noisier", 13, 5, 9, 0.002, 0.013, odd=4),
    World("processes differ as much as blocks", 3, 7, 16, 0.013, 0.013),
)


class Rates(NamedTuple):
    """What came of a world's runs."""

    runs: int
    alarms: int
    """Runs in which any arm but the control was called faster or slower."""
    intervals: int
    covered: int
    """95 % intervals that hold the true ratio, which is one."""


def simulate(world: World, runs: int = RUNS, seed: int = 0) -> Rates:
    """Return how a world's A/A runs are judged."""
    alarms = intervals = covered = 0
    for medians, process in draws(world, runs, seed):
        estimates = [e for e in paired(medians, process, 0) if e is not None]
        verdicts = [j.verdict for j in judge(estimates[1:])]  # the first is the control
        alarms += any(v in (Verdict.FASTER, Verdict.SLOWER) for v in verdicts)
        bounds = [estimate.interval() for estimate in estimates]
        intervals += len(bounds)
        covered += sum(low <= 1 <= high for low, high in bounds)
    return Rates(runs, alarms, intervals, covered)


def draws(world: World, runs: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the medians of blocks x arms of each run, and the blocks' processes."""
    rng = np.random.default_rng(seed)
    scale = np.ones(world.arms)
    scale[-1] = world.odd
    process = np.repeat(np.arange(world.processes), world.blocks)
    shape = (len(process), world.arms)
    for _ in range(runs):
        noise = rng.standard_t(3, shape) / np.sqrt(3) if world.tails else rng.normal(size=shape)
        level = rng.normal(0, world.between, (world.processes, world.arms))
        yield np.exp((level[process] + world.within * noise) * scale), process
