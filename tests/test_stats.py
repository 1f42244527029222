"""Statistics, by hand and by simulation: `python tests/test_stats.py RUNS` prints their odds."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from bench.stats import health
from bench.stats.nested import Estimate, paired, unpaired
from bench.stats.verdict import Verdict, detectable, holm, judge, tie_groups

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILY = 0.05
COVERED = 0.93


@dataclass(frozen=True)
class Warm:
    """How blocks are made up: identical programs, but for what is said here."""

    arms: int = 3
    """With the baseline, which is the first."""
    blocks: tuple[int, ...] = (12,) * 7
    """By process."""
    block_sd: float = 0.02
    """Of an arm's log-time."""
    process_sd: float = 0.002
    noisy_blocks: tuple[float, ...] = ()
    """Factors of the first arms' `block_sd`; the others have 1."""
    noisy_processes: tuple[float, ...] = ()
    heavy: bool = False
    """Blocks vary as t with 3 degrees of freedom, scaled to `block_sd`."""

    def medians(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return what `paired` takes; all arms share a block's luck."""
        process = np.repeat(np.arange(len(self.blocks)), self.blocks)
        shape = len(process), self.arms
        noise = random.standard_t(3, shape) / 3**0.5 if self.heavy else random.normal(size=shape)
        logs = noise * self.block_sd * factors(self.noisy_blocks, self.arms)
        luck = random.normal(size=(len(self.blocks), self.arms)) * self.process_sd
        logs += (luck * factors(self.noisy_processes, self.arms))[process]
        return np.exp(logs + random.normal(size=(len(process), 1)) * 0.2 - 5), process

    def standard_error(self) -> float:
        """Return the true one of the last arm's log-ratio."""
        within = self.block_sd**2 * np.mean(1 / np.array(self.blocks))
        return float(np.sqrt(2 * (self.process_sd**2 + within) / len(self.blocks)))


def factors(first: tuple[float, ...], arms: int) -> np.ndarray:
    return np.array([*first, *[1.0] * (arms - len(first))])


@dataclass(frozen=True)
class Cold:
    """How many samples each cell has, the baseline first, and how they vary."""

    sizes: tuple[int, ...]
    noisy: tuple[float, ...] = ()
    skewed: bool = False

    def samples(self, random: np.random.Generator) -> list[np.ndarray]:
        """Return what `unpaired` takes."""
        out = []
        for size, factor in zip(self.sizes, factors(self.noisy, len(self.sizes)), strict=True):
            noise = random.exponential(size=size) if self.skewed else random.normal(size=size)
            out.append(np.exp(noise * 0.05 * factor + (0 if not self.skewed else -0.05 * factor)))
        return out


UNEVEN = (3, 25, 25, 10, 25, 6, 25)
LAYOUTS = [(5,) * 4, (25,) * 4, (5,) * 8, (25,) * 8, UNEVEN]
KINDS = {
    "alike": Warm(),
    "heavy tails": Warm(heavy=True),
    "noisy arms": Warm(noisy_processes=(1, 4), noisy_blocks=(1, 1, 3)),
    "noisy baseline": Warm(noisy_processes=(2,), noisy_blocks=(3,)),
    "very noisy baseline": Warm(noisy_processes=(4,)),
    "noisy both": Warm(noisy_processes=(2, 4), noisy_blocks=(2, 1, 3)),
}
SDS = [(block, process) for block in (0.02, 0.05) for process in (0, 0.002, 0.005, 0.01)]
COLD = {
    f"cold, {size} samples, {name}": replace(kind, sizes=(size,) * arms)
    for arms in (3, 13)
    for size in (5, 10, 20)
    for name, kind in {
        f"{arms} cells alike": Cold(()),
        f"{arms} cells, one noisy": Cold((), noisy=(1, 4)),
        f"{arms} cells, noisy baseline": Cold((), noisy=(3,)),
        f"{arms} cells, skewed": Cold((), skewed=True),
    }.items()
}


def odds(condition: Warm | Cold, runs: int, seed: int = 0) -> tuple[float, float]:
    """Return the worst cell's coverage of 95 % intervals, and how often a family has false alarms.

    Of identical programs, so the true ratio is 1.
    """
    random = np.random.default_rng(seed)
    covered, alarms = [], 0
    for _ in range(runs):
        found = (
            paired(*condition.medians(random), 0)
            if isinstance(condition, Warm)
            else unpaired(condition.samples(random), 0)
        )
        p = np.array([estimate.p_value() for estimate in found if estimate])
        covered.append(p > 0.05)
        alarms += holm(p).min() <= FAMILY
    return float(np.mean(covered, 0).min()), alarms / runs


def arm(estimates: list[Estimate | None], number: int = 1) -> Estimate:
    estimate = estimates[number]
    assert estimate is not None
    return estimate


def table(runs: int) -> Iterator[str]:
    """Return lines with the worst odds of each kind of noise, over all layouts and sizes."""
    yield "worst coverage of 95 % | worst, mean odds of a false alarm after Holm | conditions"
    for name, kind in KINDS.items():
        every = [
            replace(kind, arms=arms, blocks=blocks, block_sd=block, process_sd=process)
            for arms in (3, 13)
            for blocks in LAYOUTS
            for block, process in SDS
        ]
        covered, alarms = zip(*(odds(c, runs, i) for i, c in enumerate(every)), strict=True)
        figures = f"{min(covered):.1%} | {max(alarms):.1%}, {np.mean(alarms):.1%} | {len(every)}"
        yield f"{name}: {figures}"
    for name, cold in COLD.items():
        worst, alarm = odds(cold, runs)
        yield f"{name}: {worst:.1%} | {alarm:.1%}"


if __name__ == "__main__":
    for line in table(int(sys.argv[1])):
        print(line, flush=True)
