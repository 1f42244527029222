"""What the machine did during a run, in words: reasons to doubt the numbers.

A block's datum is a low quantile of its calls, which what makes a few of them slow hardly moves.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.metrics import TINY
from bench.stats.verdicts import Verdict
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float

    from bench.cells import Offer
    from bench.runfile import BakeoffSection
    from bench.samples import OtherProcess, Spent, State

CORES = os.cpu_count() or 1
WATCHED = "step"
BASE = ("python", "jax", "jaxlib", "optax", "numpy")
"""What an environment of an entrant's own should have in common with the shared one."""
NOTABLE = 0.10
"""Of a time: twice what the rounds of a quiet block vary by, and no difference looked for is so
large that this would not matter beside it."""
MIN_DRIFT = 9
"""Blocks, so that each third has three."""
TREND_P = 0.01
"""A drift is one of a hundred things that a run looks at; a false alarm a run is too many."""
LOAD = 0.25
"""Processes that want to run, per core: on two cores, one that is there half of the time. The
average remembers the last minute, so what has just ended counts as well."""
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


def warnings(state: State, said: BakeoffSection, offer: Offer) -> list[str]:
    """Return plain sentences, none where there is nothing to warn of.

    Args:
        state: What was found.
        said: What the run says.
        offer: What the environment has, and under which conditions.
    """
    return [
        *state.notes,
        *machine(state.spent, offer.conditions),
        *compiled_from_source(offer.uncached),
        *unlike(offer),
        *_baseline(state),
        *_control(said, state.spent.elsewhere.busiest),
        *_slow_calls(state),
        *pinned(state),
    ]


def pinned(state: State) -> Iterator[str]:
    """Yield whether steps that use several cores were measured on one."""
    large = WORKLOADS["seed"].work
    where = dict.fromkeys(
        block.workload
        for block in state.blocks
        if block.cores and block.kind == WATCHED and WORKLOADS[block.workload].work > large
    )
    if where:
        yield (
            f"Steps at {' and '.join(where)} use several cores, and were measured on one: they "
            "take longer than users see. --cores all measures what they see."
        )


def machine(spent: Spent, conditions: Mapping[str, Any], cores: int = CORES) -> Iterator[str]:
    """Yield what else used the machine.

    Args:
        spent: With what else used the processor meanwhile.
        conditions: With the load average of one minute at the start, less what is our own.
        cores: That the machine has: load and times are of all of them.
    """
    load = conditions.get("load_average", [0.0])[0]
    steal, others, _ = spent.elsewhere
    found = []
    if load / cores > LOAD:
        found.append(f"a load average of {load:.1f} on {cores} cores when it started")
    if steal > STEAL:
        found.append(f"{steal:.0%} of the processor time taken by other guests of the host")
    if others > OTHERS:
        found.append(f"{others:.0%} of the machine used by other processes meanwhile")
    if found:
        yield (
            f"Other processes were using this machine: {', '.join(found)}. Ratios hold, because "
            "all arms took turns; intervals are wider, and times in seconds are too long."
        )


def compiled_from_source(modules: int) -> Iterator[str]:
    """Yield that imports are slower than they are for most people.

    Args:
        modules: That Python keeps no bytecode of.
    """
    if modules:
        yield (
            f"Python can keep no bytecode of {modules} module{'s' * (modules > 1)}, so each "
            "process compiles their source anew, and imports take too long. Let their folders be "
            "written to, or set PYTHONPYCACHEPREFIX to one that can be."
        )


def unlike(offer: Offer) -> Iterator[str]:
    """Yield in which environments something beside the library differs from the shared one."""
    for name, versions in offer.apart.items():
        differs = [
            f"{what} {versions.get(what)} for {offer.versions.get(what)}"
            for what in BASE
            if versions.get(what) != offer.versions.get(what)
        ]
        if differs:
            yield (
                f"{name} runs in an environment of its own with {', '.join(differs)}: ratios are to"
                " the baseline in there, cold ones to the baseline here."
            )


def _baseline(state: State) -> Iterator[str]:
    """Yield what the baseline's blocks say of the machine."""
    for cell, row in state.cells.items():
        blocks = row.blocks.get(WATCHED, [])
        if not cell.is_baseline or not blocks:
            continue
        seconds = np.array([np.median(block.values) for block in blocks])
        words = drift(seconds, np.array([block.at for block in blocks]))
        if words:
            yield f"{cell.workload} on {cell.backend}: {words}"


def drift(seconds: Float[np.ndarray, " blocks"], at: Float[np.ndarray, " blocks"]) -> str | None:
    """Say when the machine became faster or slower.

    That is a rank correlation with time (Spearman 1904) together with a change between the first
    and the last third.

    Args:
        seconds: The baseline's median in each block.
        at: When, in seconds from any origin.
    """
    logs = np.log(seconds)[np.argsort(at, kind="stable")]
    if logs.size < MIN_DRIFT or np.ptp(logs) == 0:
        return None
    third = logs.size // 3
    change = math.expm1(np.median(logs[-third:]) - np.median(logs[:third]))
    from scipy import stats  # takes most of a second to import

    p = stats.spearmanr(np.arange(logs.size), logs).pvalue
    if abs(change) <= NOTABLE or p >= TREND_P:
        return None
    direction = "more" if change > 0 else "less"
    return (
        f"The baseline took {abs(change):.0%} {direction} time in the last third of the blocks "
        "than in the first: the machine's speed drifted. Ratios are taken inside a block and hold; "
        "times in seconds do not. Let the machine settle, or fix its clock, and run again if you "
        "need them."
    )


def _control(said: BakeoffSection, busiest: OtherProcess | None) -> Iterator[str]:
    """Yield where the control differs from the baseline, and where a run is too noisy."""
    only = all(control.workload in TINY for control in said.control)
    for control in said.control:
        place = f"{control.metric} at {control.workload} on {control.backend}"
        if control.differs and control.verdict != Verdict.EQUIVALENT:
            low, high = control.low or 0.0, control.high
            ends = f"{low:.4f} to {high:.4f}" if high is not None else f"above {low:.4f}"
            yield (
                f"{place}: the control, a second copy of the baseline, took "
                f"{control.ratio:.4f} times the baseline's time ({ends}). Do not trust "
                "differences of this size: measure again."
            )
        if control.metric == WATCHED and (only or control.workload not in TINY):
            stop = f"{busiest.name} ({busiest.cores:.1f} cores)" if busiest else ""
            budget, margin = said.plan.budget_seconds or 0.0, said.plan.margin
            if words := noisy(control.detectable, margin, budget, stop):
                yield f"{place}: {words}"


def noisy(detectable: float | None, margin: float, budget: float, stop: str = "") -> str | None:
    """Say when a run is too noisy to tell a difference as large as the margin, and what helps.

    Args:
        detectable: Smallest difference that it calls in four runs of five; None if not known.
        margin: Ratio minus one that ought to be told from none.
        budget: Seconds of the run.
        stop: The other process that used the machine most, if any did.
    """
    if detectable is None:
        return "too few workers to know the noise: use a larger --budget."
    if detectable <= margin:
        return None
    needed = budget * (detectable / margin) ** 2
    fitting = next((each for each in BUDGETS if each >= needed), None)
    advice = f"use --budget {fitting}" if fitting else "use a quieter machine"
    also = f", or stop {stop}" if stop else ""
    return f"differences under {detectable:.1%} would not be found: {advice}{also}."


def _slow_calls(state: State) -> Iterator[str]:
    """Yield which arms have a mean far above their median."""
    for cell, row in state.cells.items():
        words = slow_calls(row.values(WATCHED)) if row.failure is None else None
        if words and not cell.is_control:
            yield f"{cell.entrant} {cell.arm.full_style} at {cell.workload}: {words}"


def slow_calls(seconds: Sequence[float]) -> str | None:
    """Say when some calls take so long that the mean is far above the median."""
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
