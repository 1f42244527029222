"""Verdicts from intervals and from proofs.

All metrics are costs: a ratio above one is slower.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bench.estimates import PROGRAM, Estimate, EstimateTable, Verdict
from bench.metrics import HOST, METRICS, STARTS, STEP, TINY
from bench.workloads import SKELETON, is_skeleton

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bench.cells import Cell
    from bench.samples import Sample

GROWTH = 3.0
"""Factor by which a style may cost the host more between two calls of a larger program than between
two of a tiny one: Python's own working set is evicted by it. On one core, one style was seen to
take 2.6 times as much at `seed`, another 1.3 times."""
STARTS_TOLERANCE = 0.01
"""Largest difference of two counts of Python's functions that start in a call of the same work: a
few depend on which arrays a process has used before."""
LEAST_OF_MEDIAN = 1 / 3
"""Least value of a block as a fraction of its median call. It was 0.8 or more in published runs; if
others come and go in a block, half of its calls may take 2.5 times as long as the fastest. Values
from which too much was subtracted were at 0.2."""
LEAST_CALLS = 10
"""Least number of calls whose median tells what a quiet call takes: of two calls, one that others
interrupt for 1 ms is enough to raise it threefold."""
LEAST_RATIO = 0.9
"""Ratio to the baseline above which a time of the same program is possible, whatever its interval:
the place of buffers can make a few per cent."""


def make_bounds(
    low: float, high: float, margin: float, level: float | None = None
) -> dict[str, Any]:
    """Return the fields of an estimate that follow from the interval of its difference.

    They are `low`, `high` and `verdict`; an end is None where there is no bound, or where it is too
    large for a float.

    Args:
        low: Lower end, of a log-ratio or of added seconds; -inf where there is no bound. Above zero
            is slower.
        high: Upper end.
        margin: Fraction within which two times are equivalent.
        level: Seconds of the reference's call, if the difference is in seconds.
    """
    if level is None:
        margin_low, margin_high = -math.log1p(margin), math.log1p(margin)
    else:  # the reference is slower by the margin: 1 / (1 + margin) - 1 of its call
        margin_low, margin_high = -level * margin / (1 + margin), level * margin
    if margin_low <= low and high <= margin_high:
        verdict = Verdict.EQUIVALENT
    elif low <= 0 <= high:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.SLOWER if low > 0 else Verdict.FASTER
    convert = exp if level is None else float
    return {
        "low": finite_or_none(convert(low)) if low > -math.inf else None,
        "high": finite_or_none(convert(high)),
        "verdict": verdict,
    }


def exp(value: float) -> float:
    """Return the exponential; infinite where that is too large for a float."""
    return math.exp(value) if value < 709 else math.inf


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None


def settle_by_program(
    estimates: Sequence[Estimate], same_program: Collection[Cell], margin: float
) -> list[Estimate]:
    """Return estimates in which an identical program settles steps that timing leaves open.

    Two arms that compile to the same program can differ by their host cost alone. If that is too
    small to matter, they are equivalent by construction; direct timing has to agree.
    """
    hosts = {
        (row.cell.arm, row.cell.backend): max(abs(row.low), abs(row.high))
        for row in estimates
        if (row.metric, row.form) == (HOST, "added")
        if row.low is not None and row.high is not None
    }
    table = EstimateTable(estimates)

    def settle(row: Estimate) -> Estimate:
        host = hosts.get((row.cell.arm, row.cell.backend))
        step = table.amount(row.cell.baseline, STEP)
        is_step = (row.metric, row.form) == (STEP, "ratio")
        if host is None or not step or not is_step or row.cell not in same_program:
            return row
        bound = GROWTH * host / step.value
        agrees = (row.low or 0.0) <= 1 + bound and (row.high is None or row.high >= 1 - bound)
        if row.verdict is Verdict.INCONCLUSIVE and bound <= margin and agrees:
            row = replace(row, verdict=Verdict.EQUIVALENT, settled_by=PROGRAM)
        return replace(row, bound=bound)

    return [settle(row) for row in estimates]


def find_too_fast(samples: Iterable[Sample]) -> dict[tuple[str, Cell, str], str]:
    """Return environment, cell and metric of samples that no quiet call can have, and why.

    Noise only adds time: that the fastest calls of a block take a small part of its median means
    that something was subtracted from them which they have taken.
    """
    return {
        (s.environment, s.cell, s.metric): (
            "not known: a block gave less than a third of its own median, which no noise explains"
        )
        for s in samples
        if s.median is not None and METRICS[s.metric].compared and s.calls >= LEAST_CALLS
        if s.value < LEAST_OF_MEDIAN * s.median
    }


def find_unlike_skeletons(estimates: Iterable[Estimate]) -> dict[tuple[str, Cell], str]:
    """Return (environment, skeleton's cell) → how it differs from the real step, where it does.

    A call of both starts the same functions of Python, wherever both were counted; the real step
    perhaps on an accelerator.
    """
    rows = [row for row in estimates if row.metric == STARTS and row.form == "amount"]
    counts = {(row.environment, row.cell): row.value for row in rows}
    # Without its backend: a skeleton is always measured on the CPU
    of_steps = {(name, c.arm, c.workload): count for (name, c), count in counts.items()}
    unlike = {}
    for (environment, cell), count in counts.items():
        if not is_skeleton(cell.workload):
            continue
        real = environment, cell.arm, cell.workload.removesuffix(SKELETON)
        expected = of_steps.get(real, count)
        if abs(count - expected) > STARTS_TOLERANCE * expected:
            unlike[environment, cell] = (
                f"a call of its skeleton starts {count:g} functions of Python, and one of its real "
                f"step {expected:g}: what it adds is not known"
            )
    return unlike


def find_impossible(
    estimates: Iterable[Estimate], same_program: Collection[Cell]
) -> dict[Cell, str]:
    """Return cells that run the baseline's program in less time than it can take, and why.

    A style can save the baseline's host cost of a call at most: `GROWTH` times its whole call at a
    tiny size. A faster one keeps results, or does not compute them in each call.
    """
    table, cells = EstimateTable(estimates), {}
    for cell in same_program:
        ratio, step = table.comparison(cell, STEP), table.amount(cell.baseline, STEP)
        call = table.amount(cell.baseline._replace(workload=TINY[0]), HOST)
        if not ratio or not step or ratio.high is None or ratio.high > LEAST_RATIO:
            continue
        saved = step.value * (1 - ratio.high)
        if saved > GROWTH * call.value if call else cell.workload not in TINY:
            cells[cell] = (
                f"it takes {100 * ratio.value:.0f} % of the baseline's time for the same program: "
                "it cannot have run it in each call"
            )
    return cells
