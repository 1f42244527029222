"""Plans of runs and A/Bs on the made-up machine, and what came out of them."""

from collections import Counter
from functools import cache
from typing import Any

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.plan import Plan
from bench.estimates import MIN_WORKERS
from bench.metrics import STEP
from tests.engine.simulated import FEW, Machine, needed, plan_of, side

REFERENCES = {str(BASELINE), str(CONTROL)}
BAD = "haiku/transform"
FEW_ARMS = REFERENCES | {"haiku/pure", BAD}
BAD_CELL, GOOD_CELL = (Cell("haiku", style, "seed", "cpu") for style in ("transform", "pure"))
AT_SEED = needed(("seed",), (STEP,))
FEW_AT_SEED = needed(("seed",), (STEP,), FEW)
FEW_WITH_COLD = needed(("seed",), (STEP, "first_step"), FEW)
BOTH = ("base", "new")
"""Sides of an A/B."""


def run(
    wanted: Any = None, budget: float = 300.0, machine: Machine | None = None, **more: Any
) -> tuple[Plan, Machine]:
    """Return a plan on a machine, when it is over."""
    plan = plan_of(needed() if wanted is None else wanted, budget, **more)
    return plan, (machine or Machine(noise=0.01)).drive(plan)


@cache
def usual(budget: float, slowness: float = 1.0) -> tuple[Plan, Machine]:
    """Return a run of three sizes, which several tests look at."""
    return run(needed(("toy", "seed", "wide")), budget, Machine(slowness=slowness, noise=0.01))


def workers(plan: Plan) -> dict[str, int]:
    """Return the workers that came to their end, or pairs of them, by kind of turns."""
    totals: Counter[str] = Counter()
    for (_, turn), count in plan.agenda.worker_counts.items():
        totals[f"{turn.workload} {turn.kind}"] += count
    return dict(totals)


def preliminary(plan: Plan) -> set[str]:
    """Return the kinds of turns that have too few workers."""
    return {kind for kind, count in workers(plan).items() if count < MIN_WORKERS}


def counts(plan: Plan, metric: str, environment: str = "") -> dict[Cell, int]:
    """Return the number of samples of a metric, by cell."""
    rows = (s for s in plan.workers.samples if (s.metric, s.environment) == (metric, environment))
    return dict(Counter(sample.cell for sample in rows))


def failed(plan: Plan) -> set[str]:
    """Return the arms of which a cell has failed."""
    return {str(row.cell.arm) for row in plan.agenda.rows if row.failure}


def ab(
    wanted: Any = FEW_AT_SEED, budget: float = 120, machine: Machine | None = None, **more: Any
) -> tuple[Plan, Machine]:
    sides = tuple(side(wanted, name, control=False) for name in BOTH)
    return run([sides], budget, machine, base="base", cores="one", before=0.0, **more)
