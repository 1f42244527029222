"""What the machine did while a run was taken, in words: None where there is nothing to say.

Each threshold says below it why it is what it is. One thing is common to them: a block's datum is
a kind of median, so what hits a share q of the calls shifts it by some q / (2 density), that is
1.25 q standard deviations of a call: with calls that vary by 5 %, 2 % of them move it by 0.1 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.verdict import detectable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from bench.stats.nested import Estimate

NOTABLE = 0.10
"""Of a time: twice what the rounds of a quiet block vary by, and no difference looked for is so
large that this would not matter beside it."""
MIN_BLOCKS = 5
"""Fewer blocks with a slow first round may be chance."""
MIN_ROUNDS = 4
"""Fewer rounds leave no rest to compare the first two with."""
MIN_DRIFT = 9
"""Blocks, so that each third has three."""
TREND_P = 0.01
"""A drift is one of a hundred things that a run looks at; a false alarm a run is too many."""
TWO_LEVELS = 0.88
"""Share of the variance that two levels explain: of a normal distribution, the best split explains
64 %, of an even one 75 %."""
STEAL = 0.02
"""Of the processor time: moves medians by 0.1 %, half of a usual standard error."""
OTHERS = 0.10
"""Of the machine: moves medians by half a per cent or more, in all arms alike; ratios stay where
they are, but their intervals widen."""
LOAD = 0.25
"""Processes that want to run, per core: on two cores, somebody who is there half of the time. The
average remembers the last minute, so what has just ended counts as well."""


def slow_first_rounds(rounds: Sequence[Float[np.ndarray, " rounds"]]) -> str | None:
    """Say when blocks begin slower than they go on: what is timed was not warm.

    Args:
        rounds: Seconds of one arm's rounds in the order they were taken, by block.
    """
    blocks = [np.asarray(block, float) for block in rounds if len(block) >= MIN_ROUNDS]
    if len(blocks) < MIN_BLOCKS:
        return None
    excess = np.array([block[:2] / np.median(block[2:]) - 1 for block in blocks])
    slow = excess > NOTABLE
    most = slow.mean(0) > 0.5
    if not most[0]:
        return None
    who, extra = ("first two rounds", 2) if most[1] else ("first round", 1)
    return (
        f"The {who} of a block took {np.median(excess[:, 0]):.0%} more than the later ones in "
        f"{slow[:, 0].sum()} of {len(blocks)} blocks: the step was not warm yet, and short blocks "
        f"say too much. Warm up {extra} more round{'s' * (extra > 1)} before each block."
    )


def drift(seconds: Float[np.ndarray, " blocks"], at: Float[np.ndarray, " blocks"]) -> str | None:
    """Say when the machine became faster or slower, or went between two speeds.

    A trend is a rank correlation with time (Spearman 1904) together with a change between the first
    and the last third; two levels are the split of sorted log-times that leaves least variance
    inside (Otsu 1979).

    Args:
        seconds: The baseline's median in each block; NaN where it has none.
        at: When, in seconds from any origin.

    Raises:
        ValueError: Shapes that differ.
    """
    seconds, at = np.asarray(seconds, float), np.asarray(at, float)
    if seconds.shape != at.shape:
        raise ValueError(f"seconds have shape {seconds.shape} and at {at.shape}; they must agree")
    known = ~np.isnan(seconds)
    logs = np.log(seconds[known])[np.argsort(at[known], kind="stable")]
    if logs.size < MIN_DRIFT or np.ptp(logs) == 0:
        return None
    third = logs.size // 3
    change = math.expm1(np.median(logs[-third:]) - np.median(logs[:third]))
    from scipy import stats  # takes most of a second to import

    p = stats.spearmanr(np.arange(logs.size), logs).pvalue
    advice = (
        "Ratios are taken inside a block and hold; times in seconds do not. Let the machine "
        "settle, or fix its clock, and run again if you need them."
    )
    if abs(change) > NOTABLE and p < TREND_P:
        direction = "more" if change > 0 else "less"
        return (
            f"The baseline took {abs(change):.0%} {direction} time in the last third of the blocks "
            f"than in the first: the machine's speed drifted. {advice}"
        )
    low, high, explained = _levels(logs)
    if math.expm1(high - low) > NOTABLE and explained > TWO_LEVELS:
        return (
            f"The baseline's blocks have two levels, {math.expm1(high - low):.0%} apart: the "
            f"machine went between two speeds. {advice}"
        )
    return None


def busy(load: float, cores: int, steal: float, others: float) -> str | None:
    """Say when somebody else was using the machine.

    Args:
        load: Load average (one minute) at the start, less what is our own.
        cores: That the machine has.
        steal: Share of the processor time that the hypervisor gave to others, during the run.
        others: Share of the processor time that other processes used, while samples were taken.
            What the system does not tell is NaN.

    Raises:
        ValueError: `cores` below 1.
    """
    if cores < 1:
        raise ValueError(f"cores is {cores}; there must be at least one")
    found = []
    if load / cores > LOAD:
        found.append(f"a load average of {load:.1f} on {cores} cores when it started")
    if steal > STEAL:
        found.append(f"{steal:.0%} of the processor time taken by other guests of the host")
    if others > OTHERS:
        found.append(f"{others:.0%} of the machine used by other processes while it measured")
    if not found:
        return None
    return (
        f"The machine was not alone: {', '.join(found)}. Ratios hold, for all arms took turns, but "
        "intervals are wider and times in seconds too long. Stop what else runs, or take more "
        "blocks."
    )


def compiled_from_source(modules: int) -> str | None:
    """Say when imports are slower than they are for most people.

    Args:
        modules: That Python keeps no bytecode of.
    """
    if not modules:
        return None
    return (
        f"Python can keep no bytecode of {modules} module{'s' * (modules > 1)}, so each process "
        "compiles their source anew, and imports take too long. Let their folders be written to, "
        "or set PYTHONPYCACHEPREFIX to one that can be."
    )


def unstable(control: Estimate, margin: float, comparisons: int, alpha: float = 0.05) -> str | None:
    """Say when the A/A control shows that the run cannot do what it was made for.

    Args:
        control: The baseline under its second name.
        margin: Ratio minus one that ought to be told from none.
        comparisons: Size of the family.
        alpha: Of the family.

    Raises:
        ValueError: `margin` is not above 0, `comparisons` below 1.
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it must be above 0, as 0.02 is for 2 %")
    smallest = detectable(control, comparisons, alpha)
    if control.p_value() <= alpha / comparisons:
        low, high = control.interval()
        return (
            f"The A/A control, the baseline under another name, came out {control.ratio:.4f} times "
            f"the baseline ({low:.4f} to {high:.4f}): identical programs were called different, so "
            "other differences of this size may be false too. Do not trust them before a run in "
            "which the control agrees."
        )
    if math.isinf(smallest):
        return (
            "The A/A control has next to no standard error to go by, so this run cannot tell any "
            "difference: it takes blocks of several processes. Give it more time."
        )
    if smallest > margin:
        factor = (math.log1p(smallest) / math.log1p(margin)) ** 2
        return (
            f"Differences below {smallest:.1%} would not have been found (A/A control, "
            f"{comparisons} comparison{'s' * (comparisons > 1)}), and the margin is {margin:.1%}: "
            f"what is inconclusive here may differ by more than that. It takes about {factor:.1f} "
            "times the blocks."
        )
    return None


def _levels(logs: Float[np.ndarray, " blocks"]) -> tuple[float, float, float]:
    """Return the means of the best two groups, and the share of the variance between them.

    Both hold a fifth of the blocks at least: a few outliers are no level.
    """
    logs = np.sort(logs)
    total = float(((logs - logs.mean()) ** 2).sum())
    smallest = math.ceil(logs.size / 5)
    best = (0.0, 0.0, 0.0)
    for count in range(smallest, logs.size - smallest + 1):
        low, high = float(logs[:count].mean()), float(logs[count:].mean())
        between = count * (logs.size - count) / logs.size * (high - low) ** 2 / total
        best = max(best, (low, high, between), key=lambda split: split[2])
    return best
