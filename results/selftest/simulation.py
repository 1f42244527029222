"""Error rates and coverage of `bench.stats.ratios`: `python results/selftest/simulation.py`.

It simulates arms that do not differ, with seeded noise or that of recorded calls, and prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.markdown import table_lines
from bench.report.table import Column, Row, Table
from bench.stats import ratios
from bench.worker.turns import mean_of_fastest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int

    from bench.stats.ratios import Contrast

    type Arms = Float[np.ndarray, " arms"]
    type Data = Float[np.ndarray, "blocks arms"]
    type Workers = Int[np.ndarray, " blocks"]

CALLS = Path(__file__).with_name("calls.json")
"""Recorded calls, in microseconds."""
POOL, STRETCH = 2000, (4, 16)
"""Blocks that are made of recorded calls, and the number of rounds in a row that are taken from an
episode: enough to keep busy moments together."""
LONGEST = 13.0
"""Ratio of the slowest arm to the reference where added time is compared, at `toy`."""


@dataclass(frozen=True)
class Condition:
    """How data are drawn. They are logarithms, so that 0.01 is 1 %."""

    arms: int
    """Compared with the two references; in an A/B, all."""
    workers: int
    """Or pairs; of cold metrics, samples of an arm."""
    blocks: int = 1
    tau: float = 0.005
    """Standard deviation of a worker's luck with an arm."""
    sigma: float = 0.01
    """Standard deviation of a block."""
    noisy: float = 1.0
    """Factor of both of the first compared arm."""
    noisy_tau: float = 1.0
    """Further factor of its `tau`."""
    noisy_reference: float = 1.0
    """Factor of both of the references."""
    tails: str = "normal"
    """Or `t3`; or `outliers`: one worker's luck in twenty is five times as large."""
    missing: float = 0.0
    """Share of the blocks that the last arm misses; earlier arms miss proportionally fewer."""
    common: float = 0.0
    """Standard deviation of what all arms of a pair share; of added time, those of a worker."""
    rows: float = 0.2
    """Standard deviation of what all arms of a block share."""
    kind: str = "warm"
    """Or `ab`, or `cold`; or `added`: arms take up to `LONGEST` times the reference's time, and
    their differences are looked for in seconds."""
    recorded: tuple[str, int, int] | None = None
    """Noise within a worker is that of recorded calls, instead of `sigma` and its factors: the
    cores, the timed calls of a turn, and the turns of a block."""


@cache
def resampled(cores: str, calls: int, turns: int) -> Data:
    """Return data of blocks made of stretches of recorded rounds; no column differs on average.

    All arms of a stretch are those of the same rounds: what these had in common, they share.
    """
    rng, known = np.random.default_rng(0), json.loads(CALLS.read_text("utf-8"))
    episodes = [
        np.reshape(episode["rounds"], (-1, len(known["arms"]), calls))
        for episode in known["episodes"]
        if (episode["cores"], episode["calls"]) == (cores, calls)
    ]
    data = np.empty((POOL, len(known["arms"])))
    for row in data:
        parts: list[Any] = []
        while (missing := turns - sum(map(len, parts))) > 0:
            episode = episodes[rng.integers(len(episodes))]
            length = min(missing, int(rng.integers(STRETCH[0], STRETCH[1] + 1)), len(episode))
            start = rng.integers(len(episode) - length + 1)
            parts.append(episode[start : start + length])
        block = np.concatenate(parts)
        row[:] = [mean_of_fastest(block[:, arm]) for arm in range(data.shape[1])]
    return data - data.mean(0)


class Noise:
    """Draws data of a condition."""

    def __init__(self, condition: Condition, seed: int) -> None:
        self.condition = condition
        self.random = np.random.default_rng(seed)

    def normal(self, *shape: int) -> np.ndarray:
        """Return noise with standard deviation 1."""
        if self.condition.tails == "t3":
            return self.random.standard_t(3, shape) / np.sqrt(3)
        return self.random.normal(size=shape)

    def table(self, references: int) -> tuple[Data, Workers]:
        """Return blocks x arms of logs, the references first, and each block's worker."""
        c = self.condition
        arms = c.arms + references
        factor = np.ones(arms)
        factor[:references], factor[references] = c.noisy_reference, c.noisy
        luck = self.normal(c.workers, arms) * c.tau * factor
        luck[:, references] *= c.noisy_tau
        if c.tails == "outliers":
            luck[self.random.random(luck.shape) < 0.05] *= 5
        worker = np.repeat(np.arange(c.workers), c.blocks)
        if c.recorded:
            return luck[worker] + self.blocks(worker.size, arms, sides=c.kind == "ab"), worker
        data = luck[worker] + self.normal(worker.size, arms) * c.sigma * factor
        if references:
            data += self.random.normal(size=(worker.size, 1)) * c.rows
        if c.missing:
            odds = c.missing * np.arange(1, c.arms + 1) / c.arms
            gone = self.random.random((worker.size, c.arms)) < odds
            gone[:2] = False
            data[:, references:][gone] = np.nan
        return data, worker

    def blocks(self, number: int, arms: int, *, sides: bool) -> Data:
        """Return noise of blocks of recorded calls; of an A/B, that of one side less the other."""
        assert self.condition.recorded
        pool = resampled(*self.condition.recorded)
        columns = self.random.permutation(pool.shape[1])
        drawn = pool[self.random.integers(len(pool), size=number)][:, columns]
        return drawn[:, :arms] - (drawn[:, -arms:] if sides else 0.0)

    def differences(self) -> tuple[Data, Workers]:
        """Return the differences of an A/B's sides, and each block's pair."""
        c = self.condition
        difference, pair = self.table(0)
        luck = self.normal(c.workers, 1) * c.common
        return difference + luck[pair], pair

    def run(self) -> tuple[list[Contrast], Arms]:
        """Return the contrasts of one drawn run, and the true log-ratios."""
        c = self.condition
        truth = np.zeros(c.arms)
        if c.kind == "ab":
            return ratios.contrast_pairs(*self.differences()), truth
        if c.kind == "cold":
            samples = self.normal(c.arms + 1, c.workers) * c.sigma
            samples[1] *= c.noisy
            return ratios.contrast_cold_samples(list(samples), range(1, c.arms + 1)), truth
        (data, worker), members = self.table(2), range(2, c.arms + 2)
        if c.kind == "added":
            truth = np.linspace(0, np.log(LONGEST), c.arms)
            luck = self.normal(c.workers, 1) * c.common
            data[:, 2:] += luck[worker] + truth
            added = ratios.contrast_added_time(np.exp(data), worker, [0, 1], members)
            return list(map(to_log_ratio, added)), truth
        return ratios.contrast_with_references(data, worker, [0, 1], members), truth


def to_log_ratio(contrast: Contrast) -> Contrast:
    """Return an interval of added seconds as one of the logarithm of the ratio."""
    level = contrast.level
    assert level is not None
    low, high = (
        math.log1p(end / level) if end > -level else -math.inf
        for end in (contrast.low, contrast.high)
    )
    return contrast._replace(low=low, high=high)


class Odds(NamedTuple):
    """How often the intervals of many runs are right."""

    false_calls: float
    """Share of the runs in which an arm without a difference is said to differ."""
    noisy_covered: float
    """Share of the intervals of the first arm that contain the true value."""
    covered: float
    """The same share for the worst other arm; NaN without others."""
    half_width: float
    """Median half width of the other arms (of a single arm: its own), on the log scale."""


def odds(condition: Condition, runs: int, seed: int = 0) -> Odds:
    """Return how often the intervals of a condition are right."""
    noise = Noise(condition, seed)
    calls, covered, widths = 0, [], []
    for _ in range(runs):
        contrasts, truth = noise.run()
        low, high = np.array([(contrast.low, contrast.high) for contrast in contrasts]).T
        calls += bool((((low > 0) | (high < 0)) & (truth == 0)).any())
        covered.append((low <= truth) & (truth <= high))
        widths.append((high - low) / 2)
    shares = np.mean(covered, 0)
    others = slice(1, None) if shares.size > 1 else slice(None)
    return Odds(
        calls / runs,
        float(shares[0]),
        float(shares[1:].min()) if shares.size > 1 else np.nan,
        float(np.median(np.array(widths)[:, others])),
    )


def conditions(shapes: Sequence[tuple[int, int, int]], **others: Any) -> list[Condition]:
    """Return conditions of these arms, workers and blocks that are otherwise alike."""
    return [Condition(*shape, **others) for shape in shapes]


SHAPES = [(2, 2, 1), (2, 4, 3), (13, 2, 1), (13, 4, 3), (25, 8, 1)]
SMALL = [(1, 1, 3), (13, 1, 3), (1, 2, 1), (1, 2, 3), (1, 4, 3)]
NOISY = [(1, 2, 1), (1, 2, 3), (1, 4, 3), (1, 8, 3), *SHAPES, (13, 12, 3), (25, 25, 2)]
MISSING = [(2, 4, 3), (13, 4, 3), (13, 12, 3)]
SIDES = [(1, 3, 3), (1, 12, 1), (1, 40, 2), (3, 3, 2), (10, 6, 2), (10, 40, 1)]
ADDED = [(2, 4, 6), (13, 4, 6), (13, 12, 4)]
RECORDED = [(1, 2, 3), (1, 4, 3), (2, 4, 3), (13, 2, 1), (13, 4, 3), (13, 12, 3)]
RECORDED_SIDES = [(1, 3, 5), (1, 14, 5), (1, 20, 1), (3, 6, 2), (8, 6, 2)]
CONDITIONS = {
    "alike": conditions([*SMALL, *SHAPES, (25, 25, 2)]),
    "no luck": conditions([(2, 4, 3), (13, 12, 3)], tau=0),
    "first arm noisy": conditions(NOISY, noisy=4),
    "its luck alone": conditions([(2, 4, 3), (13, 2, 3), (13, 4, 3)], noisy_tau=4),
    "reference twice": conditions(SHAPES, noisy_reference=2),
    "t with 3 df": conditions([(1, 4, 3), *SHAPES], tails="t3"),
    "outlying workers": conditions([(1, 4, 3), *SHAPES], tails="outliers"),
    "missing blocks": [
        c for noisy in (1, 4) for c in conditions(MISSING, missing=0.7, noisy=noisy)
    ],
    "A/B": [
        Condition(*shape, kind="ab", common=common)
        for shape in SIDES
        for common in ((0.0,) if shape[0] == 1 else (0.0, 0.01))
    ],
    "A/B, first arm noisy": conditions(
        [(3, 3, 2), (3, 12, 1), (10, 6, 2)], noisy=4, kind="ab", common=0.005
    ),
    "A/B, t with 3 df": conditions([(1, 6, 2), (10, 6, 2)], tails="t3", kind="ab", common=0.005),
    "added time": [
        c
        for common, noisy in product((0.0, 0.02), (1, 4))
        for c in conditions(ADDED, kind="added", rows=0.01, common=common, noisy=noisy)
    ],
    **{
        f"{sides}recorded, {cores}, {turns} turns of {calls}": [
            Condition(*shape, kind=kind, recorded=(cores, calls, turns)) for shape in shapes
        ]
        for sides, kind, cores, calls, turns, shapes in (
            ("", "warm", "all cores", 1, 32, RECORDED),
            ("", "warm", "all cores", 4, 8, RECORDED),
            ("", "warm", "one core", 1, 32, RECORDED),
            ("A/B, ", "ab", "one core", 1, 64, RECORDED_SIDES),
            ("A/B, ", "ab", "one core", 4, 8, RECORDED_SIDES),
        )
    },
    "cold": [
        Condition(arms, size, sigma=0.05, noisy=noisy, kind="cold")
        for arms, size, noisy in product((2, 13), (3, 6), (1, 4))
    ],
}


def table(runs: int, part: str = "") -> Table:
    """Return the error rates of conditions with this part of a name."""
    titles = "arms", "workers", "blocks", "false calls", "first arm", "worst other", "half width"
    rows = []
    for name, several in CONDITIONS.items():
        for c in several if part in name else ():
            noise = name + ", first noisy" * (c.noisy > 1 and "noisy" not in name)
            noise += f", common {c.common:.1%}" if c.common else ""
            rates = odds(c, runs)
            shares = [f"{share:.1%}" if share == share else "" for share in rates[:3]]
            sizes = map(str, (c.arms, c.workers, c.blocks))
            rows.append(Row((noise, *sizes, *shares, f"{rates.half_width:.2%}")))
    return Table((Column("noise"), *(Column(t, number=True) for t in titles)), tuple(rows))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of each condition")
    parser.add_argument("--noise", default="", help="conditions with this in their name alone")
    options = parser.parse_args()
    print("\n".join(table_lines(table(options.runs, options.noise))))


if __name__ == "__main__":
    main()
