"""Plans of runs and A/Bs on the made-up machine, and what came out of them."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.measurement import make_estimates
from bench.engine.plan import Plan
from bench.engine.state import RunState
from bench.engine.task import Group
from bench.estimates import MIN_WORKERS
from bench.metrics import STEP
from bench.options import Options
from tests.engine.simulated import FEW, LANES, Machine, Needed, needed, side

REFERENCES = {str(BASELINE), str(CONTROL)}
BAD = "haiku/transform"
FEW_ARMS = REFERENCES | {"haiku/pure", BAD}
BAD_CELL, GOOD_CELL = (Cell("haiku", style, "seed", "cpu") for style in ("transform", "pure"))
AT_SEED = needed(("seed",), (STEP,))
FEW_AT_SEED = needed(("seed",), (STEP,), FEW)
FEW_WITH_COLD = needed(("seed",), (STEP, "first_step"), FEW)
BOTH = ("base", "new")
"""Sides of an A/B."""
DAYS = [f"2026-{month:02}-01" for month in range(1, 10)]


class MadePlan(Plan):
    """A plan, and what came out of it."""

    @property
    def visits(self) -> dict[str, int]:
        """Workers that came to their end, or pairs of them, by kind of turns."""
        totals: Counter[str] = Counter()
        for (_, turn), count in self.state.worker_counts.items():
            totals[f"{turn.workload} {turn.kind}"] += count
        return dict(totals)

    @property
    def preliminary(self) -> set[str]:
        """Kinds of turns that have too few workers."""
        return {kind for kind, count in self.visits.items() if count < MIN_WORKERS}

    @property
    def failed(self) -> set[str]:
        """Arms of which a cell has failed."""
        return {str(row.cell.arm) for row in self.state.rows if row.failure}

    @property
    def different(self) -> set[str]:
        """Arms whose step is told apart from what it is compared with."""
        rows = make_estimates(self.state.samples, self.state.rows, self.options, self.state.base)
        return {str(row.cell.arm) for row in rows if row.form == "ratio" and row.differs}

    def counts(self, metric: str, environment: str = "") -> dict[Cell, int]:
        """Return the number of samples of a metric, by cell."""
        asked = metric, environment
        rows = (s.cell for s in self.state.samples if (s.metric, s.environment) == asked)
        return dict(Counter(rows))


type Made = tuple[MadePlan, Machine]


def plan_of(
    groups: Needed | list[Group],
    budget: float = 300.0,
    *,
    before: float = 5.0,
    base: str = "",
    enough: Any = lambda _: False,
    lanes: Sequence[tuple[int, ...]] = LANES,
    seed: int = 0,
    calls_first: bool = False,
    **options: Any,
) -> MadePlan:
    """Return the plan of groups, or of one run."""
    groups = [(side(groups),)] if isinstance(groups, dict) else groups
    about = Options(budget=budget, **options)
    plan = MadePlan(RunState(groups, about, lanes, base, calls_first=calls_first), enough)
    plan.state.spent.wall_seconds = before
    plan.state.rng.seed(seed)
    return plan


def run(
    wanted: Any = None, budget: float = 300.0, machine: Machine | None = None, **more: Any
) -> Made:
    """Return a plan on a machine, when it is over."""
    plan = plan_of(needed() if wanted is None else wanted, budget, **more)
    return plan, (machine or Machine(noise=0.01)).drive(plan)


@cache
def usual(budget: float, slowness: float = 1.0) -> Made:
    """Return a run of three sizes, which several tests look at."""
    return run(needed(("toy", "seed", "wide")), budget, Machine(slowness=slowness, noise=0.01))


def ab(
    wanted: Any = FEW_AT_SEED, budget: float = 120, machine: Machine | None = None, **more: Any
) -> Made:
    sides = tuple(side(wanted, name, control=False) for name in BOTH)
    return run([sides], budget, machine, base="base", cores="one", before=0.0, **more)


def history(budget: float, machine: Machine, wanted: Any = FEW_WITH_COLD) -> Made:
    reference = side(wanted, "reference", control=False)
    groups = [(side(wanted, day, control=False), reference) for day in DAYS]
    return run(groups, budget, machine, base="reference", cores="one")
