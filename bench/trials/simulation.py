"""Error rates, coverage and power of `bench.stats.ratios`: `python -m bench.trials.simulation`.

Identical arms, seeded noise; prints Markdown tables. Parts: `table` (error rates) and `power`
(what can be detected at the noise of real runs).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.engine.environment_plan import SETTLED_SHARE
from bench.stats import ratios, verdicts
from bench.stats.estimates import Estimate, detectable
from bench.trials.tables import lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    type Arms = Float[np.ndarray, " arms"]

    type Found = list[Estimate | None]

MARGIN = 0.02
DIFFERENCE = 0.1
"""Log-ratio of the later half of the arms where arms may stop."""
LONGEST = 13.0


@dataclass(frozen=True)
class Condition:
    """How data come about; logs, so that 0.01 is 1 %."""

    arms: int
    """Compared with the two references; in an A/B, all."""
    workers: int
    """Or pairs; of cold metrics, samples of an arm."""
    blocks: int = 1
    tau: float = 0.005
    """Standard deviation of a worker's luck with an arm."""
    sigma: float = 0.01
    noisy: float = 1.0
    """Factor of both of the first compared arm."""
    noisy_tau: float = 1.0
    """Further factor of its `tau`."""
    noisy_reference: float = 1.0
    tails: str = "normal"
    """Or `t3`; or `outliers`: one worker's luck in twenty is five times as large."""
    missing: float = 0.0
    """Share of the blocks that the last arm misses; the others miss fewer in proportion."""
    common: float = 0.0
    """Standard deviation of what all arms of a pair share; of added time, those of a worker."""
    rows: float = 0.2
    """Standard deviation of what all arms of a block share."""
    stopping: bool = False
    """Arms that are decided after a worker sit out the next one, two times of three."""
    kind: str = "warm"
    """Or `ab`, or `cold`; or `added`: arms take up to `LONGEST` times the reference's time, and
    their differences are looked for in seconds."""


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

    def table(self, references: int) -> tuple[np.ndarray, np.ndarray]:
        """Return blocks x arms of logs, and each block's worker."""
        c = self.condition
        arms = c.arms + references
        factor = np.ones(arms)
        factor[:references], factor[references] = c.noisy_reference, c.noisy
        luck = self.normal(c.workers, arms) * c.tau * factor
        luck[:, references] *= c.noisy_tau
        if c.tails == "outliers":
            luck[self.random.random(luck.shape) < 0.05] *= 5
        worker = np.repeat(np.arange(c.workers), c.blocks)
        data = luck[worker] + self.normal(worker.size, arms) * c.sigma * factor
        if references:
            data += self.random.normal(size=(worker.size, 1)) * c.rows
        if c.missing:
            odds = c.missing * np.arange(1, c.arms + 1) / c.arms
            gone = self.random.random((worker.size, c.arms)) < odds
            gone[:2] = False
            data[:, references:][gone] = np.nan
        return data, worker

    def differences(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return both sides of an A/B, and each block's pair."""
        c = self.condition
        level = self.random.normal(size=(c.workers * c.blocks, 1)) * 0.2
        own, pair = self.table(0)
        base = np.broadcast_to(level, own.shape)
        luck = self.normal(c.workers, 1) * c.common
        return base, base + own + luck[pair], pair

    def run(self) -> tuple[Found, Arms]:
        """Return what is said of one drawn run, and the true log-ratios."""
        c = self.condition
        truth = np.zeros(c.arms)
        if c.kind == "cold":
            factor = np.array([c.noisy_reference, c.noisy, *[1.0] * (c.arms - 1)])
            drawn = self.normal(c.arms + 1, c.workers) * c.sigma * factor[:, None]
            return ratios.cold(list(drawn), 0)[1:], truth
        if c.kind == "ab":
            return ratios.paired_sides(*self.differences()), truth
        data, worker = self.table(2)
        if c.kind == "added":
            truth = np.linspace(0, np.log(LONGEST), c.arms)
            luck = self.normal(c.workers, 1) * c.common  # of all arms beside the references
            seconds = np.exp(data + luck[worker] * [0, 0, *np.ones(c.arms)] + [0, 0, *truth])
            return ratios.added(seconds, worker, [0, 1])[0][2:], truth
        if c.stopping:
            truth[c.arms // 2 :] = DIFFERENCE
            seed = int(self.random.integers(1 << 31))
            data = stopped(data + np.array([0, 0, *truth]), worker, seed)
        return ratios.many_to_one(data, worker, [0, 1])[2:], truth


def stopped(data: np.ndarray, worker: np.ndarray, seed: int) -> np.ndarray:
    """Return data without the visits that the engine leaves out for `verdicts.decided` arms."""
    data, random = data.copy(), np.random.default_rng(seed)
    for now in range(verdicts.WORKERS, int(worker.max()) + 1):
        seen = worker < now
        found = ratios.many_to_one(data[seen], worker[seen], [0, 1])
        rows = np.flatnonzero(worker == now)
        done = [arm for arm, e in enumerate(found) if e and verdicts.decided(e, MARGIN)]
        if len(done) < data.shape[1] - 2:  # else all goes on
            for arm in done:
                if random.random() > SETTLED_SHARE:
                    data[rows, arm] = np.nan
    return data


class Odds(NamedTuple):
    """Of many runs."""

    false_calls: float
    """Share of the runs in which an arm without a difference `differs`."""
    noisy_covered: float
    """Share of the intervals of the first arm that hold the truth."""
    covered: float
    """The same of the worst other arm; NaN without others."""
    half_width: float
    """Median of the others (of one arm: its own), log-scale."""
    detectable: float
    """Median."""


def odds(condition: Condition, runs: int, seed: int = 0) -> Odds:
    """Return how often the intervals of a condition are right."""
    noise = Noise(condition, seed)
    calls, covered, widths, least = 0, [], [], []
    for _ in range(runs):
        found, truth = noise.run()
        low, high, half = np.array(
            [(e.low, e.high, e.half_width) if e else (-np.inf, np.inf, np.inf) for e in found]
        ).T
        calls += bool((((low > 0) | (high < 0)) & (truth == 0)).any())
        covered.append((low <= truth) & (truth <= high))
        widths.append(half)
        least.append(detectable(found))
    each = np.mean(covered, 0)
    others = slice(1, None) if each.size > 1 else slice(None)
    return Odds(
        calls / runs,
        float(each[0]),
        float(each[1:].min()) if each.size > 1 else np.nan,
        float(np.median(np.array(widths)[:, others])),
        float(np.median(least)),
    )


def conditions(shapes: Sequence[tuple[int, int, int]], **others: Any) -> list[Condition]:
    """Return conditions of these arms, workers and blocks that are otherwise alike."""
    return [Condition(*shape, **others) for shape in shapes]


SHAPES = [(2, 2, 1), (2, 4, 3), (13, 2, 1), (13, 4, 3), (25, 8, 1)]
SMALL = [(1, 1, 3), (13, 1, 3), (1, 2, 1), (1, 2, 3), (1, 4, 3)]
NOISY = [(1, 2, 1), (1, 2, 3), (1, 4, 3), (1, 8, 3), *SHAPES, (13, 12, 3), (25, 25, 2)]
STOPPING = [(2, 8, 4), (4, 12, 4), (13, 12, 4)]
MISSING = [(2, 4, 3), (13, 4, 3), (13, 12, 3)]
SIDES = [(1, 3, 3), (1, 12, 1), (1, 40, 2), (3, 3, 2), (10, 6, 2), (10, 40, 1)]
ADDED = [(2, 4, 6), (13, 4, 6), (13, 12, 4)]
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
    "optional stopping": [
        c for noisy in (1, 4) for c in conditions(STOPPING, stopping=True, noisy=noisy)
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
    "cold": [
        Condition(arms, size, sigma=0.05, noisy=noisy, kind="cold")
        for arms, size, noisy in product((2, 13), (3, 6), (1, 4))
    ],
}
MEASURED = {
    "2 arms, 4 workers of 6, sigma 0.8 %": Condition(2, 4, 6, tau=0.004, sigma=0.008),
    "2 arms, 4 workers of 6, sigma 1.1 %": Condition(2, 4, 6, tau=0.004, sigma=0.011),
    "14 arms, 12 workers of 4": Condition(14, 12, 4, tau=0.0065, sigma=0.0175),
    "A/B, 1 arm, 41 pairs, 0.95 % between pairs": Condition(1, 41, kind="ab", tau=0.0095, sigma=0),
}


def table(runs: int, only: str = "") -> Iterator[str]:
    """Yield the error rates."""
    header = "noise", "arms", "workers", "blocks", "false calls", "first arm", "worst other"
    rows = (
        (
            name
            + (", first noisy" if c.noisy > 1 and "noisy" not in name else "")
            + (f", common {c.common:.1%}" if c.common else ""),
            *(c.arms, c.workers, c.blocks),
            *(f"{share:.1%}" for share in found[:3]),
            f"{found.half_width:.2%}",
        )
        for name, conditions in CONDITIONS.items()
        if only in name
        for c in conditions
        for found in [odds(c, runs)]
    )
    return lines((*header, "half width"), rows)


def power(runs: int) -> Iterator[str]:
    """Yield what can be detected at the noise of MEASURING.md, 9.1 and 9.8."""
    rows = (
        (name, f"{found.false_calls:.1%}", f"{found.detectable:.2%}")
        for name, c in MEASURED.items()
        for found in [odds(c, runs)]
    )
    return lines(("noise as measured", "false calls", "detectable"), rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="bench.trials.simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of each condition")
    parser.add_argument("--only", default="", help="rows of the table whose noise has this in it")
    parts = ("table", "power")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all unless given")
    options = parser.parse_args()
    tables = table(options.runs, options.only), power(options.runs)
    for part, rows in zip(parts, tables, strict=True):
        for row in rows if part in (options.parts or parts) else ():
            print(row, flush=True)


if __name__ == "__main__":
    main()
