"""Reasons to doubt the numbers of a measurement, in sentences.

The datum that is compared is a low quantile of a block's calls, which hardly moves when a few of
them are slow; what is warned of here is what moves it, or what it hides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bench.metrics import STEP, TINY, label
from bench.stats.verdicts import Verdict
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jaxtyping import Float

    from bench.environments.offers import Offer
    from bench.estimates import Estimate
    from bench.runfile import Results, TimeSpent
    from bench.samples import Sample

BASE = ("python", "jax", "jaxlib", "optax", "numpy")
"""Packages that an entrant's own environment should have in common with the shared one."""
NOTABLE_DRIFT = 0.10
"""Fraction by which a baseline's time changes that is worth a warning: twice what the blocks of a
quiet machine vary by."""
MIN_DRIFT = 9
"""Fewest blocks that a drift is looked for in, so that each third has three."""
TREND_P = 0.01
"""Odds of a drift where there is none: low, since it is one of many things that are looked for."""
FALSE_ALARM = 0.05
"""Odds that any of a run's controls differs by chance."""
STOLEN = 0.02
"""Fraction of the processor time that other guests take, from which on it is told: it moves medians
by 0.1 %, half of a usual standard error."""
OTHERS = 0.10
"""Fraction of the machine that other processes use, from which on it is told: it moves medians by
half a per cent or more, in all arms alike; intervals widen."""
BUDGETS = (60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds that are recommended."""
MIN_CALLS = 20
"""Fewest calls of a block of which a 95 % quantile says something."""
FAR_ABOVE = 3.0
"""Ratio of a block's 95 % quantile to its median above which calls are called slow; on machines in
use, half of the blocks stay under 2.3."""
NAMED = 3
"""Arms that a warning names."""


def warnings(
    results: Results, samples: Sequence[Sample], offer: Offer, notes: Iterable[str]
) -> list[str]:
    """Return sentences about what casts doubt on a measurement, none where nothing does.

    Args:
        results: What was estimated, and what others used of the machine meanwhile.
        samples: What it was estimated from.
        offer: What the environment has.
        notes: Remarks of workers, which stand first.
    """
    sentences = [*notes, *other_processes(results.spent), *uncached(offer.uncached)]
    if results.kind == "run":
        sentences += [
            *unlike(results),
            *drifts(samples),
            *controls(results.estimates),
            *noise(results),
            *pinned(samples),
        ]
    return [*sentences, *slow_calls(samples)]


def other_processes(spent: TimeSpent) -> Iterator[str]:
    """Yield what else used the machine while it measured."""
    parts = []
    if spent.stolen > STOLEN:
        parts.append(f"{spent.stolen:.0%} of the processor time went to other guests of the host")
    if spent.others > OTHERS:
        most = f", {spent.busiest} most" if spent.busiest else ""
        parts.append(f"other processes used {spent.others:.0%} of the machine{most}")
    if parts:
        yield (
            f"While this was measured, {' and '.join(parts)}. Ratios hold, because all arms took "
            "turns; intervals are wider, and times in seconds are too long."
        )


def uncached(modules: int) -> Iterator[str]:
    """Yield that imports are slower than for most people.

    Args:
        modules: Number of modules of which Python can keep no bytecode.
    """
    if modules:
        yield (
            f"Python can keep no bytecode of {modules} module{'s' * (modules > 1)}, so each "
            "process compiles them anew, and imports take too long. Make their folders writable, "
            "or set PYTHONPYCACHEPREFIX to a folder that is."
        )


def unlike(results: Results) -> Iterator[str]:
    """Yield which environments differ from the shared one in more than the library."""
    shared = results.versions
    for name, info in results.environments.items():
        differing = [
            f"{package} {info.versions.get(package)} for {shared.get(package)}"
            for package in BASE
            if info.versions.get(package) != shared.get(package)
        ]
        if differing:
            yield (
                f"{name} runs in its own environment with {', '.join(differing)}: its steps are "
                "compared with the baseline in there, what happens once with the baseline here."
            )


def drifts(samples: Iterable[Sample]) -> Iterator[str]:
    """Yield at which workloads the baseline's time changed during the run."""
    blocks: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.metric == STEP and sample.cell.is_baseline:
            blocks.setdefault(sample.cell.place, []).append(sample)
    for place, rows in blocks.items():
        order = sorted(rows, key=lambda sample: sample.at)
        change = drift(np.array([sample.typical for sample in order]))
        if change:
            yield (
                f"{place}: the baseline took {abs(change):.0%} {'more' if change > 0 else 'less'} "
                "time in the last third of the blocks than in the first: the speed of the machine "
                "drifted. Ratios are taken inside a block and hold; times in seconds do not."
            )


def drift(seconds: Float[np.ndarray, " blocks"]) -> float:
    """Return the fraction by which times changed from the first to the last third; 0 if by chance.

    A drift is a rank correlation with time (Spearman 1904) together with a notable change.

    Args:
        seconds: Of the baseline in each block, in the order of time.
    """
    logs = np.log(seconds)
    if logs.size < MIN_DRIFT or np.ptp(logs) == 0:
        return 0.0
    third = logs.size // 3
    change = math.expm1(np.median(logs[-third:]) - np.median(logs[:third]))
    if abs(change) <= NOTABLE_DRIFT:
        return 0.0
    from scipy import stats  # takes most of a second to import

    p = stats.spearmanr(np.arange(logs.size), logs).pvalue
    return change if p < TREND_P else 0.0


def controls(estimates: Iterable[Estimate]) -> Iterator[str]:
    """Yield where the control differs from the baseline, which is the same program."""
    rows = [row for row in estimates if row.cell.is_control and row.p is not None]
    for row in rows:
        if (row.p or 0.0) * len(rows) < FALSE_ALARM and row.verdict is not Verdict.EQUIVALENT:
            amount = f"{row.value:.3f} times the baseline's"
            if row.form == "added":
                amount = f"{row.value * 1e6:+.1f} µs beside the baseline's"
            yield (
                f"{label(row.metric)} at {row.cell.place}: the control, a second copy of the "
                f"baseline, took {amount}. Do not trust differences of this size: measure again."
            )


def noise(results: Results) -> Iterator[str]:
    """Yield where a run cannot tell a difference as large as the margin, and what helps."""
    table, margin = results.table, results.options.margin
    steps = [
        row
        for row in results.estimates
        if (row.metric, row.form) == (STEP, "ratio") and not row.cell.is_control
    ]
    places = list(dict.fromkeys(row.place for row in steps))
    large = [place for place in places if place[0] not in TINY]
    least = {place: table.detectable(STEP, *place) for place in large or places}
    missed = {place: least[place] for place in least if least[place] > margin}
    if not missed:
        return
    worst = max(missed.values())
    thin = dict.fromkeys(r.cell.workload for r in steps if r.place in missed and r.preliminary)
    if thin or math.isinf(worst):
        names = ", ".join(thin or dict.fromkeys(workload for workload, _ in missed))
        yield f"Too few workers to know the noise at {names}: use a larger --budget."
        return
    seconds = (results.options.budget_seconds or 0.0) * (worst / margin) ** 2
    fitting = next((budget for budget in BUDGETS if budget >= seconds), None)
    advice = f"use --budget {fitting}" if fitting else "use a quieter machine"
    if results.spent.busiest:
        advice += f", or stop {results.spent.busiest}"
    limits = ", ".join(f"{value:.1%} ({workload})" for (workload, _), value in missed.items())
    yield f"Differences of a step under {limits} would not be found: {advice}."


def pinned(samples: Iterable[Sample]) -> Iterator[str]:
    """Yield whether steps that use several cores were measured on one."""
    large = WORKLOADS["seed"].work
    places = dict.fromkeys(
        sample.cell.workload
        for sample in samples
        if sample.metric == STEP and sample.cores and WORKLOADS[sample.cell.workload].work > large
    )
    if places:
        yield (
            f"Steps at {' and '.join(places)} use several cores, and were measured on one: they "
            "take longer than users see. --cores all measures what they see."
        )


def slow_calls(samples: Iterable[Sample]) -> Iterator[str]:
    """Yield which arms have calls far slower than their median, at each workload."""
    quantiles: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        if sample.metric != STEP or sample.calls < MIN_CALLS:
            continue
        if sample.p95 is not None and sample.median:
            arms = quantiles.setdefault(sample.cell.workload, {})
            arms.setdefault(sample.cell.arm.words, []).append(sample.p95 / sample.median)
    for workload, arms in quantiles.items():
        slow = {name: float(np.median(ratios)) for name, ratios in arms.items()}
        slow = {name: ratio for name, ratio in slow.items() if ratio > FAR_ABOVE}
        if slow:
            names = list(slow)[:NAMED]
            more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
            yield (
                f"At {workload}, one call in twenty takes {min(slow.values()):.0f} times the median"
                f" or more: {', '.join(names)}{more}. Times and ratios leave such calls out."
            )
