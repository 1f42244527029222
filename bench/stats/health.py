"""What the machine did while a run was taken, in words: None where there is nothing to say.

Each threshold says below it why it is what it is. A block's datum is a low quantile of its calls,
which what makes a few of them slow hardly moves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


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
BUDGETS = (60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds that are recommended."""
MIN_CALLS = 20
FAR_ABOVE = 1.5
"""Of the median, where the mean says that a quantile hides something."""
SLOW_FACTORS = (1.5, 2, 5, 10, 20, 50)
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
        f"Other processes were using this machine: {', '.join(found)}. Ratios hold, because all "
        "arms took turns; intervals are wider, and times in seconds are too long."
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


def control_differs(place: str, ratio: float, low: float | None, high: float | None) -> str:
    """Say that two copies of one program were called different.

    Args:
        place: Metric, workload and backend.
        ratio: Of the copy to the baseline.
        low: Lower end of its interval.
        high: Upper end.
    """
    ends = f"{low or 0:.4f} to {high:.4f}" if high is not None else f"above {low or 0:.4f}"
    return (
        f"{place}: the control, a second copy of the baseline, took {ratio:.4f} times the "
        f"baseline's time ({ends}). Do not trust differences of this size: measure again."
    )


def noisy(
    place: str, detectable: float | None, margin: float, budget: float | None, stop: str = ""
) -> str | None:
    """Say when a run is too noisy to tell a difference as large as the margin, and what helps.

    Args:
        place: Metric, workload and backend.
        detectable: Smallest difference that it calls in four runs of five; None if not known.
        margin: Ratio minus one that ought to be told from none.
        budget: Seconds of the run.
        stop: The other process that used the machine most, if any did.
    """
    if detectable is not None and detectable <= margin:
        return None
    if detectable is None or budget is None:
        return f"{place}: too few workers to know the noise: use a larger --budget."
    needed = budget * (detectable / margin) ** 2
    fitting = next((each for each in BUDGETS if each >= needed), None)
    advice = f"use --budget {fitting}" if fitting else "use a quieter machine"
    also = f", or stop {stop}" if stop else ""
    return f"{place}: differences under {detectable:.1%} would not be found: {advice}{also}."


def slow_calls(seconds: Sequence[float]) -> str | None:
    """Say when some calls take so long that the mean is far above the median.

    Args:
        seconds: Of all calls.
    """
    if len(seconds) < MIN_CALLS:
        return None
    values = np.asarray(seconds, float)
    middle = float(np.median(values))
    if values.mean() <= FAR_ABOVE * middle:
        return None
    factor = max(f for f in SLOW_FACTORS if (values > f * middle).any())
    count = int((values > factor * middle).sum())
    return (
        f"{count} of {values.size} calls took over {factor} times the median "
        f"({middle * 1e3:.3g} ms; the mean is {values.mean() * 1e3:.3g} ms)."
    )


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
