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
from bench.stats.crossing import crossing
from bench.stats.nested import Estimate, block_log_ratios, nested_all, paired, unpaired
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


RUNS = 1200
SOME: dict[str, Warm | Cold] = {
    "alike": Warm(),
    "few processes": Warm(blocks=(25,) * 4, process_sd=0.01),
    "many arms": Warm(arms=13, blocks=(10,) * 5),
    "blocks only": Warm(arms=13, blocks=(5,) * 8, process_sd=0),
    "heavy tails": Warm(heavy=True, block_sd=0.05),
    "uneven": Warm(blocks=UNEVEN, process_sd=0.005),
    "noisy arms": Warm(
        blocks=(25,) * 5, noisy_processes=(1, 4), noisy_blocks=(1, 1, 3), process_sd=0.005
    ),
    "one noisy of many": Warm(
        arms=13, blocks=(10,) * 5, noisy_processes=(1, 4), noisy_blocks=(1, 1, 3), process_sd=0.01
    ),
    "noisy baseline": Warm(
        arms=13, blocks=(10,) * 5, noisy_processes=(2,), noisy_blocks=(3,), process_sd=0.01
    ),
    "cold": Cold((10,) * 4),
    "cold, noisy cell": Cold((8,) * 6, noisy=(1, 4)),
    "cold, noisy baseline": Cold((5,) * 6, noisy=(3,)),
    "cold, uneven": Cold((10, 5, 6, 20)),
}


@pytest.mark.parametrize("name", SOME)
def test_identical_programs_are_seldom_called_different(name: str) -> None:
    covered, alarms = odds(SOME[name], RUNS)
    assert COVERED <= covered <= 0.99
    assert alarms <= FAMILY


def with_difference(condition: Warm, difference: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    medians, process = condition.medians(np.random.default_rng(seed))
    medians[:, -1] *= 1 + difference
    return medians, process


def test_a_difference_of_one_per_cent_is_found() -> None:
    condition = Warm(block_sd=0.0113)
    assert condition.standard_error() == pytest.approx(0.002, rel=0.05)
    called = 0
    for seed in range(300):
        found = [e for e in paired(*with_difference(condition, 0.01, seed), 0) if e]
        called += judge(found)[-1].verdict is Verdict.SLOWER
    assert called >= 0.9 * 300


def test_a_large_family_takes_what_all_arms_know() -> None:
    condition = Warm(arms=13, blocks=(20,) * 5, block_sd=0.011)
    difference, runs, level = 8 * condition.standard_error(), 200, FAMILY / 96
    called = alone = 0
    for seed in range(runs):
        medians, process = with_difference(condition, difference, seed)
        called += arm(paired(medians, process, 0), -1).p_value() <= level
        logs = np.log(medians[:, -1] / medians[:, 0])
        means = [logs[process == i].mean() for i in range(5)]
        alone += stats.ttest_1samp(means, 0).pvalue <= level
    assert called >= 0.65 * runs
    assert alone <= 0.4 * runs


def ratios(*by_process: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return medians of a baseline that takes 2 seconds and of one arm with these log-ratios."""
    logs = np.array([value for values in by_process for value in values])
    process = np.repeat(np.arange(len(by_process)), [len(values) for values in by_process])
    return np.stack([np.full(len(logs), 2.0), 2 * np.exp(logs)], 1), process


def test_two_processes_by_hand() -> None:
    baseline, estimate = paired(*ratios([0.01, 0.03], [0.05, 0.07]), 0)
    assert baseline is None
    assert estimate == pytest.approx((0.04, 0.02, 1, 4, 2))
    low, high = arm([estimate], 0).interval()
    half = 12.7062 * 0.02  # t(0.975) with one degree of freedom
    assert (math.log(low), math.log(high)) == pytest.approx((0.04 - half, 0.04 + half), abs=1e-5)


def test_processes_that_agree_leave_what_blocks_say() -> None:
    estimate = arm(paired(*ratios([0.01, 0.03], [0.03, 0.01]), 0))
    of_process_mean = 0.0002 / 2  # variance of a block, over blocks
    assert estimate.standard_error == pytest.approx(math.sqrt(of_process_mean / 2))


def test_every_process_counts_alike() -> None:
    estimate = arm(paired(*ratios([0.02], [0.05, 0.07, 0.05, 0.07]), 0))
    assert estimate.log_ratio == pytest.approx((0.02 + 0.06) / 2)
    assert (estimate.blocks, estimate.processes) == (5, 2)


def test_one_block_a_process_is_the_paired_t_test() -> None:
    random = np.random.default_rng(3)
    medians = np.exp(random.normal(size=(7, 2)) * 0.02)
    estimate = arm(paired(medians, np.arange(7), 0))
    expected = stats.ttest_rel(*np.log(medians).T[::-1])
    interval = expected.confidence_interval()
    assert estimate.p_value() == pytest.approx(expected.pvalue)
    assert estimate.interval() == pytest.approx((math.exp(interval.low), math.exp(interval.high)))
    assert estimate.df == 6


def test_noisy_arms_do_not_blur_the_quiet_ones() -> None:
    quiet = Warm(arms=9, blocks=(10,) * 5, process_sd=0.003)
    noisy = replace(quiet, noisy_processes=(1, 1, 1, 1, 1, 1, 20, 20, 20))
    widths = []
    for condition in (quiet, noisy):
        errors = []
        for seed in range(40):
            found = paired(*condition.medians(np.random.default_rng(seed)), 0)
            errors += [e.standard_error for e in found[1:5] if e is not None]
        widths.append(np.mean(errors))
    assert widths[1] < 1.25 * widths[0]


def test_several_arms_written_another_way() -> None:
    processes, blocks, arms = 5, 4, 4
    condition = Warm(arms=arms, blocks=(blocks,) * processes, process_sd=0.02)
    medians, process = condition.medians(np.random.default_rng(1))
    logs = np.log(medians).reshape(processes, blocks, arms)
    contrasts = logs[..., 1:] - logs[..., :1]
    own = contrasts.mean(1).var(0, ddof=1)
    within = contrasts.var(1, ddof=1).mean(0) / blocks
    bias = stats.chi2.median(processes - 1) / (processes - 1)
    middle = np.median(own) / bias
    pooled = within + max(middle - np.median(within), 0)
    expected = np.sqrt(np.maximum(own, pooled) / processes)
    found = paired(medians, process, 0)[1:]
    assert [e.standard_error for e in found if e] == pytest.approx(expected.tolist())
    assert [e.log_ratio for e in found if e] == pytest.approx(contrasts.mean((0, 1)).tolist())
    among = [(logs[..., i] - logs[..., j]).mean(1).var(ddof=1) for i, j in [(2, 1), (3, 1), (3, 2)]]
    of_arm = np.median(among) / bias / 2
    of_baseline = middle - of_arm
    arm_df = 2 / np.pi * (arms - 2) * (processes - 1)  # of a median beside a mean
    of_both = of_baseline**2 / (processes - 1) + of_arm**2 / arm_df
    assert of_baseline > 0
    df = pooled**2 / (of_both + within**2 / (processes * (blocks - 1)))
    weight = np.minimum(pooled / own, 1) ** 2
    assert 0 < (weight == 1).sum() < arms - 1
    interpolated = weight / df + (1 - weight) / (processes - 1)
    assert [1 / e.df for e in found if e] == pytest.approx(interpolated.tolist())


def test_a_noisier_arm_keeps_its_own_doubt() -> None:
    condition = Warm(arms=8, blocks=(20,) * 6, process_sd=0.002, noisy_processes=(1, 30))
    found = paired(*condition.medians(np.random.default_rng(0)), 0)
    assert arm(found).standard_error > 2 * arm(found, 2).standard_error
    assert arm(found).df == pytest.approx(5, abs=0.5)
    assert arm(found, 2).df > 6


def test_order_names_and_units_do_not_matter() -> None:
    random = np.random.default_rng(5)
    medians, process = Warm(arms=4, blocks=(3, 7, 5, 2)).medians(random)
    medians[[0, 4, 9], [1, 2, 3]] = np.nan
    expected = paired(medians, process, 0)
    shuffled = random.permutation(len(process))
    variants = {
        "blocks": paired(medians[shuffled], process[shuffled], 0),
        "processes": paired(medians, np.array([7, -2, 100, 3])[process], 0),
        "unit": paired(medians * 1e6, process, 0),
        "each block's speed": paired(medians * random.uniform(1, 9, (17, 1)), process, 0),
        "arms": [paired(medians[:, [2, 0, 3, 1]], process, 1)[i] for i in (1, 3, 0, 2)],
    }
    for name, found in variants.items():
        assert found[0] is None, name
        for ours, theirs in zip(found[1:], expected[1:], strict=True):
            assert ours == pytest.approx(theirs), name


def test_the_other_one_as_baseline_turns_the_ratio_around() -> None:
    medians, process = Warm(arms=2).medians(np.random.default_rng(2))
    there, back = arm(paired(medians, process, 0)), arm(paired(medians, process, 1), 0)
    assert back == pytest.approx(there._replace(log_ratio=-there.log_ratio))
    assert back.ratio == pytest.approx(1 / there.ratio)


def test_missing_blocks_are_left_out() -> None:
    medians, process = Warm(arms=3, blocks=(4,) * 4).medians(np.random.default_rng(4))
    holes = medians.copy()
    holes[[1, 6, 7], 1] = np.nan
    found, full = paired(holes, process, 0), paired(medians, process, 0)
    kept = ~np.isnan(holes[:, 1])
    without = paired(medians[kept], process[kept], 0)
    assert arm(found).log_ratio == pytest.approx(arm(without).log_ratio)
    assert (arm(found).blocks, arm(found, 2).blocks) == (13, 16)
    assert arm(found, 2).log_ratio == pytest.approx(arm(full, 2).log_ratio)

    medians[5, 0] = np.nan
    without_baseline = paired(np.delete(medians, 5, 0), np.delete(process, 5), 0)
    for ours, theirs in zip(paired(medians, process, 0)[1:], without_baseline[1:], strict=True):
        assert ours == pytest.approx(theirs)


def test_arms_that_hardly_ran() -> None:
    medians, process = Warm(arms=5, blocks=(4,) * 4).medians(np.random.default_rng(4))
    medians[:, 1] = np.nan
    medians[4:, 2] = np.nan
    medians[[*range(3), *range(5, 16)], 3] = np.nan
    never, first, twice, always = paired(medians, process, 0)[1:]
    assert never is None
    assert arm([first], 0)[1:] == (math.inf, 0, 4, 1)
    assert arm([twice], 0).blocks == arm([twice], 0).processes == 2
    assert 0 < arm([twice], 0).standard_error < math.inf
    alone = arm(paired(medians[:, [0, 4]], process, 0))
    assert arm([always], 0).log_ratio == pytest.approx(alone.log_ratio)


def test_single_blocks_that_agree_by_chance_borrow_doubt() -> None:
    medians, process = Warm(blocks=(10,) * 4, process_sd=0).medians(np.random.default_rng(0))
    first = np.arange(len(process)) % 10 == 0
    medians[:, 1] = np.where(first, medians[:, 0], np.nan)
    once, always = paired(medians, process, 0)[1:]
    assert arm([once], 0).log_ratio == 0
    assert arm([once], 0).standard_error > 2 * arm([always], 0).standard_error > 0


def test_one_process_knows_no_doubt() -> None:
    estimate = arm(paired(*ratios([0.5, 0.51, 0.49]), 0))
    assert estimate == pytest.approx((0.5, math.inf, 0, 3, 1))
    assert estimate.interval() == (0, math.inf)
    assert estimate.p_value() == estimate.p_outside(2.0) == 1
    assert judge([estimate]) == [(Verdict.INCONCLUSIVE, 1, None)]


@pytest.mark.filterwarnings("error")
def test_no_variance_at_all() -> None:
    same, slower = (arm(paired(*ratios([x] * 3, [x] * 3), 0)) for x in (0.0, math.log(2)))
    assert (same.standard_error, same.df, same.p_value(), same.p_outside(0.02)) == (0, 1, 1, 0)
    assert slower.interval() == pytest.approx((2, 2))
    assert arm([Estimate(0.7, 0, 1, 2, 2)], 0).p_value() == 0
    assert Estimate(0.7, 0, 1, 2, 2).p_outside(0.02) == 1


@pytest.mark.parametrize(
    ("medians", "process", "baseline", "message"),
    [
        (np.ones((3, 2)), np.arange(3), 2, "baseline is arm 2; there are 2 arms"),
        (np.ones((3, 2)), np.arange(2), 0, r"shape \(3, 2\) and process \(2,\)"),
        ([[1.0, 2.0], [1.0, 0.0]], np.arange(2), 0, "arm 1 in block 1 is 0.0"),
        ([[1.0, math.inf], [1.0, 1.0]], np.arange(2), 0, "arm 1 in block 0 is inf"),
    ],
)
def test_paired_says_what_is_wrong(
    medians: np.ndarray, process: np.ndarray, baseline: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired(np.array(medians), process, baseline)


def test_two_cells_are_welchs_test() -> None:
    random = np.random.default_rng(0)
    a, b = np.exp(random.normal(size=6) * 0.1), np.exp(random.normal(size=9) * 0.3)
    estimate = arm(unpaired([a, b], 0))
    expected = stats.ttest_ind(np.log(b), np.log(a), equal_var=False)
    assert estimate.p_value() == pytest.approx(expected.pvalue)
    assert estimate.df == pytest.approx(expected.df)
    assert estimate.log_ratio == pytest.approx(np.log(b).mean() - np.log(a).mean())
    assert (estimate.blocks, estimate.processes) == (9, 9)


def test_cells_share_what_they_know_of_noise() -> None:
    noise = np.array([-0.01, 0.0, 0.01])  # variance 1e-4
    cells = [np.exp(noise), np.exp(noise + 1), np.exp(noise * 3)]
    _, quiet, loud = unpaired(cells, 0)
    pool = (1e-4 + 9e-4) / 2
    assert arm([quiet], 0).standard_error == pytest.approx(math.sqrt((1e-4 + pool) / 3))
    assert arm([loud], 0).standard_error == pytest.approx(math.sqrt((1e-4 + 9e-4) / 3))
    assert 2 <= arm([loud], 0).df < arm([quiet], 0).df
    scaled = unpaired([cell[::-1] * 1e3 for cell in cells], 0)
    assert arm(scaled) == pytest.approx(quiet)


def test_cells_with_hardly_a_sample() -> None:
    two = np.array([1.0, 1.1])
    found = unpaired([two, np.array([2.0]), np.array([]), two], 0)
    assert found[0] is found[2] is None
    assert arm(found)[1:] == (math.inf, 0, 1, 1)
    assert arm(found, 3).standard_error < math.inf
    assert arm(unpaired([np.array([1.0]), two], 0)).standard_error == math.inf
    assert unpaired([np.array([]), two], 0) == [None, None]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_impossible_samples_are_named(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"cell 1 must be finite and positive; found \[{bad}\]"):
        unpaired([np.array([1.0, 2.0]), np.array([3.0, bad])], 0)
    with pytest.raises(ValueError, match="baseline is cell 2; there are 2 cells"):
        unpaired([np.ones(2), np.ones(2)], 2)


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1, 1])
    assert holm(np.array([])).size == 0
    assert holm(np.array([0.01, 0.005]), more=2) == pytest.approx([0.03, 0.02])
    with pytest.raises(ValueError, match=r"between 0 and 1; found \[0.5, nan\]"):
        holm(np.array([0.5, math.nan]))


def test_holm_keeps_order_and_bounds() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 3
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert adjusted.min() == pytest.approx(50 * p.min())


def test_equivalence_is_two_one_sided_tests() -> None:
    medians, process = ratios(*[[x] for x in (0.004, 0.011, -0.003, 0.008, 0.002)])
    logs = np.log(medians[:, 1] / medians[:, 0])
    bound = math.log(1.02)
    expected = max(
        stats.ttest_1samp(logs, bound, alternative="less").pvalue,
        stats.ttest_1samp(logs, -bound, alternative="greater").pvalue,
    )
    estimate = arm(paired(medians, process, 0))
    assert estimate.p_outside(0.02) == pytest.approx(expected)
    mirrored = estimate._replace(log_ratio=-estimate.log_ratio)
    assert mirrored.p_outside(0.02) == pytest.approx(expected)
    assert Estimate(0.03, 0.001, 10, 20, 5).p_outside(0.02) > 0.99


def estimate(ratio: float, error: float, df: float = 30) -> Estimate:
    return Estimate(math.log(ratio), error, df, 60, 6)


def test_verdicts() -> None:
    family = {
        estimate(1.0, 0.002): Verdict.EQUIVALENT,
        estimate(1.1, 0.002): Verdict.SLOWER,
        estimate(0.9, 0.002): Verdict.FASTER,
        estimate(1.01, 0.001): Verdict.SLOWER,  # inside the margin, and different
        estimate(1.01, 0.01): Verdict.INCONCLUSIVE,
    }
    judged = judge(list(family))
    assert [j.verdict for j in judged] == list(family.values())
    assert [j.more_blocks is None for j in judged] == [True, True, True, True, False]
    assert [j.p_adjusted for j in judged] == pytest.approx(
        holm(np.array([e.p_value() for e in family])).tolist()
    )
    assert judge([]) == []


def test_a_larger_family_asks_for_more() -> None:
    lone, equal = estimate(1.01, 0.004), estimate(1.0, 0.0075)
    assert judge([lone])[0].verdict is Verdict.SLOWER
    assert judge([equal])[0].verdict is Verdict.EQUIVALENT
    others = [estimate(1.001, 0.01)] * 20
    assert judge([lone, *others])[0].verdict is Verdict.INCONCLUSIVE
    assert judge([equal, *others])[0].verdict is Verdict.INCONCLUSIVE
    assert judge([lone, *others])[0].more_blocks is not None


def test_margin_and_alpha_are_checked() -> None:
    one = [estimate(1, 0.01)]
    for margin in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=f"margin is {margin}"):
            judge(one, margin)
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=f"alpha is {alpha}"):
            judge(one, alpha=alpha)
    with pytest.raises(ValueError, match=r"confidence is 95"):
        one[0].interval(95)


@pytest.mark.parametrize("difference", [0.001, 0.006, 0.01, 0.015, 0.03])
def test_more_blocks_settle_about_half_the_time(difference: float) -> None:
    condition = Warm(arms=2, blocks=(10,) * 4, block_sd=0.05, process_sd=0.01)
    now = Estimate(math.log1p(difference), condition.standard_error(), 3, 40, 4)
    (judgement,) = judge([now])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.more_blocks is not None
    then = replace(condition, blocks=(10,) * round(4 + judgement.more_blocks / 10))
    settled = 0
    for seed in range(200):
        found = judge([arm(paired(*with_difference(then, difference, seed), 0))])
        settled += found[0].verdict is not Verdict.INCONCLUSIVE
    assert 0.4 * 200 <= settled <= 0.65 * 200


def test_no_number_of_blocks_is_absurd() -> None:
    # half the margin away from both answers, at noise that a million blocks do not beat
    assert judge([Estimate(0.0099, 50.0, 5, 60, 6)])[0].more_blocks is None


def test_detectable_is_called_with_its_power() -> None:
    control = estimate(1, 0.002)
    for comparisons, power in [(1, 0.8), (24, 0.8), (24, 0.9)]:
        smallest = detectable(control, comparisons, power=power)
        critical = stats.t.isf(0.025 / comparisons, 30)
        found = stats.nct.sf(critical, 30, math.log1p(smallest) / 0.002)
        assert found == pytest.approx(power, abs=0.02)
    assert detectable(estimate(1, 0.002, 1e9), 1) == pytest.approx(2.8016 * 0.002, rel=5e-3)
    assert detectable(Estimate(0, math.inf, 0, 3, 1), 5) == math.inf
    assert detectable(Estimate(0, 0, 3, 8, 4), 5) == 0
    with pytest.raises(ValueError, match="comparisons is 0"):
        detectable(control, 0)


def test_groups_begin_where_intervals_part() -> None:
    intervals = {
        "slow": (1.5, 1.48, 1.52),
        "baseline": (1.0, 1.0, 1.0),
        "near": (1.01, 0.99, 1.03),
        # it overlaps with `near`, but not with the group's first: chains would tie everybody
        "chained": (1.025, 1.015, 1.035),
        "unknown": (9.0, 0.0, math.inf),
    }
    groups = [["baseline", "near"], ["chained"], ["slow", "unknown"]]
    assert tie_groups(intervals) == groups
    # `apart` overlaps with the first, but it was told from the baseline
    wide = {"first": (0.99, 0.94, 1.04), "baseline": (1.0, 1.0, 1.0), "apart": (1.03, 1.02, 1.05)}
    assert tie_groups(wide) == [["first", "baseline"], ["apart"]]
    assert tie_groups({}) == []


def blocks_with(first: float, second: float = 1.0, slow: int = 20) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    blocks = [np.exp(random.normal(size=12) * 0.03) for _ in range(20)]
    for block in blocks[:slow]:
        block[:2] *= first, second
    return blocks


def test_slow_first_rounds() -> None:
    said = health.slow_first_rounds(blocks_with(1.3))
    assert said is not None
    assert said.startswith("The first round of a block took 3")
    assert "in 20 of 20 blocks" in said
    assert said.endswith("Warm up 1 more round before each block.")
    said = health.slow_first_rounds(blocks_with(1.5, 1.3))
    assert said is not None
    assert "first two rounds" in said
    assert "2 more rounds" in said
    for quiet in (
        blocks_with(1.0),
        blocks_with(1.05),
        blocks_with(1.3, slow=7),
        blocks_with(1.0, 1.3),
        blocks_with(1.3)[:4],
        [block[:3] for block in blocks_with(1.3)],
        [],
    ):
        assert health.slow_first_rounds(quiet) is None


def test_drift() -> None:
    random = np.random.default_rng(0)
    at = random.permutation(30) * 2.0
    noise = np.exp(random.normal(size=30) * 0.03)
    said = health.drift(noise * (1 + 0.3 * at / 60), at)
    assert said is not None
    assert "more time in the last third" in said
    assert "took 2" in said
    said = health.drift(noise * (1 - 0.3 * at / 60), at)
    assert said is not None
    assert "less time in the last third" in said
    said = health.drift(noise * np.where(at % 8 < 4, 1.0, 1.4), at)
    assert said is not None
    assert "two levels, 4" in said
    assert health.drift(noise * (1 + 0.04 * at / 60), at) is None
    assert health.drift(np.ones(30), at) is None
    assert health.drift(np.full(30, np.nan), at) is None
    assert health.drift(np.arange(1.0, 9.0), np.arange(8.0)) is None
    with pytest.raises(ValueError, match=r"shape \(3,\) and at \(2,\)"):
        health.drift(np.ones(3), np.ones(2))


@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_noise_is_no_drift(sd: float) -> None:
    times = np.exp(np.random.default_rng(0).normal(size=(300, 20)) * sd)
    assert sum(health.drift(row, np.arange(20.0)) is not None for row in times) <= 6


def test_busy() -> None:
    assert health.busy(0.4, 2, 0.02, 0.1) is None
    assert health.busy(8.0, 64, math.nan, math.nan) is None
    said = health.busy(1.2, 2, 0.07, 0.25)
    assert said is not None
    for part in ("load average of 1.2 on 2 cores", "7% of the processor", "25% of the machine"):
        assert part in said
    said = health.busy(0, 2, 0.03, 0)
    assert said is not None
    assert "load" not in said
    with pytest.raises(ValueError, match="cores is 0"):
        health.busy(0, 0, 0, 0)


def test_compiled_from_source() -> None:
    assert health.compiled_from_source(0) is None
    said = health.compiled_from_source(512)
    assert said is not None
    assert "no bytecode of 512 modules" in said
    assert "PYTHONPYCACHEPREFIX" in said


def test_unstable() -> None:
    assert health.unstable(estimate(1.002, 0.002), 0.02, 24) is None
    said = health.unstable(estimate(1.001, 0.01), 0.02, 24)
    assert said is not None
    smallest = detectable(estimate(1.001, 0.01), 24)
    assert said.startswith(f"Differences below {smallest:.1%}")
    assert "24 comparisons), and the margin is 2.0%" in said
    said = health.unstable(estimate(1.01, 0.002), 0.02, 24)
    assert said is not None
    assert "came out 1.0100 times" in said
    said = health.unstable(Estimate(0, math.inf, 0, 5, 1), 0.02, 1)
    assert said is not None
    assert "several processes" in said
    with pytest.raises(ValueError, match="margin is 0"):
        health.unstable(estimate(1, 0.01), 0, 1)


def test_a_block_compares_calls_of_the_same_round_only() -> None:
    speed = np.array([1.0, 3.0, 9.0])  # of the machine, by round
    calls = np.array([[1.0, 1.1, 1.2], [2.0, 2.2, 2.4], [np.nan] * 3])
    found = block_log_ratios(calls[:, None, :] * speed[:, None])
    np.testing.assert_allclose(found[1, 0], math.log(2))
    np.testing.assert_allclose(found[0, 1], -math.log(2))
    assert found[0, 0] == found[1, 1] == 0
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()


def test_one_slow_call_does_not_move_a_block() -> None:
    samples = np.ones((2, 5, 4))
    samples[1] *= 1.5
    samples[0, 2, 1] = samples[1, 4, 0] = 100
    np.testing.assert_allclose(block_log_ratios(samples)[1, 0], math.log(1.5))


def test_a_round_is_paired_with_itself_though_the_machine_changes() -> None:
    random = np.random.default_rng(0)
    # A machine that halves its speed in the middle of a block, with calls that vary by a per cent.
    speed = np.array([1, 1, 1, 2, 2, 2, 2, 2])[:, None]
    noise = random.normal(0, 0.01, (200, 2, 8, 4))
    found = [block_log_ratios(np.exp(block) * speed)[1, 0] for block in noise]
    assert np.std(found) < 0.005


def test_baselines_at_once_are_baselines_one_by_one() -> None:
    medians, process = KINDS["noisy arms"].medians(np.random.default_rng(1))
    for values in (
        medians,
        np.where(np.arange(medians.size).reshape(medians.shape) % 17, medians, np.nan),
    ):
        logs = np.log(values)
        ratios = logs[:, :, None] - logs[:, None, :]
        together = nested_all(ratios, process, [0, 2])
        assert together == [paired(values, process, 0), paired(values, process, 2)]


def exactly(*log_ratios: float, error: float = 1e-9) -> list[Estimate]:
    """Return estimates with next to no doubt."""
    return [Estimate(value, error, 50.0, 10, 5) for value in log_ratios]


def test_a_crossing_is_where_the_line_meets_the_margin() -> None:
    bound = math.log1p(0.02)
    found = crossing([10, 1000], exactly(3 * bound, -bound / 2), 0.02)
    assert found.at == pytest.approx(1000, rel=1e-6) or 10 < found.at < 1000
    found = crossing([10, 1000], exactly(3 * bound, 0), 0.02)
    assert found.at == pytest.approx(10 * 100 ** (2 / 3), rel=1e-6)
    assert found.low == pytest.approx(found.at, rel=1e-3)
    assert found.high == pytest.approx(found.at, rel=1e-3)


def test_a_crossing_for_good_is_after_the_last_size_outside() -> None:
    bound = math.log1p(0.02)
    found = crossing([8, 16, 32, 64], exactly(2 * bound, 0, 2 * bound, 0), 0.02)
    assert 32 < found.at < 64


def test_a_crossing_beyond_the_sizes_is_said_to_be() -> None:
    assert crossing([8, 16], exactly(0.3, 0.2), 0.02).at == math.inf
    assert crossing([8, 16], exactly(0.001, 0.2), 0.02).at == math.inf
    assert crossing([8, 16], exactly(0.001, -0.001), 0.02) == pytest.approx((8, 8, 8))


def test_the_interval_of_a_crossing_covers_it() -> None:
    bound, random, covered = math.log1p(0.02), np.random.default_rng(0), 0
    truth, sizes = np.array([4 * bound, 2 * bound, 0.5 * bound, 0]), [8, 32, 128, 512]
    exact = crossing(sizes, exactly(*truth), 0.02).at
    for _ in range(200):
        drawn = exactly(*(truth + random.normal(0, 0.004, 4)), error=0.004)
        low, high = crossing(sizes, drawn, 0.02)[1:]
        covered += low <= exact <= high
    assert covered >= 180


@pytest.mark.parametrize(
    ("sizes", "count", "margin", "message"),
    [
        ([8], 1, 0.02, "1 sizes and 1 estimates; two at least"),
        ([8, 16], 1, 0.02, "2 sizes and 1 estimates"),
        ([16, 8], 2, 0.02, "sizes must increase"),
        ([8, 16], 2, 0, "margin is 0; it must be above 0"),
    ],
)
def test_a_crossing_of_nothing(sizes: list[int], count: int, margin: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossing(sizes, exactly(*[0.1] * count), margin)


if __name__ == "__main__":
    for line in table(int(sys.argv[1])):
        print(line, flush=True)
