"""Run both planners on made-up tasks, three seeds each: `python -m tests.engine.compare_planners`.

Of each task it prints the rows with an interval, how many are settled, the median ratio of half
widths (new to old) of the rows that both have, and the second of the first sample of a step or
call. Parts of names choose tasks.
"""

import math
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.engine import plan as old_plan
from bench.engine import state as old_state
from bench.engine.measurement import make_estimates
from bench.engine.planner import plan as new_plan
from bench.engine.planner import state as new_state
from bench.engine.questions import find_target_widths
from bench.engine.task import Group
from bench.metrics import HOST, STEP
from bench.options import Options
from tests.engine.plans import AT_SEED, BOTH, DAYS, FEW_AT_SEED, FEW_WITH_COLD
from tests.engine.simulated import FEW, LANES, STYLES, Machine, Needed, needed, side

SEEDS = 3


class Made(NamedTuple):
    """What a planner made of a task."""

    widths: dict[tuple[str, str, str], float]
    """Metric, environment and cell → half width."""
    settled: int
    end: float
    first: float
    """Second of the first sample of a step or a call."""


def alone(wanted: Needed) -> Callable[[], list[Group]]:
    return lambda: [(side(wanted),)]


def pair(wanted: Needed) -> Callable[[], list[Group]]:
    return lambda: [tuple(side(wanted, name, control=False) for name in BOTH)]


def days() -> list[Group]:
    reference = side(FEW_WITH_COLD, "reference", control=False)
    return [(side(FEW_WITH_COLD, day, control=False), reference) for day in DAYS]


def environments() -> list[Group]:
    others = ({name: ["pure"]} for name in ("keras", "trax", "penzai"))
    sides = [side(needed(("toy", "seed"), (), styles), *styles) for styles in others]
    return [(side(needed(("toy", "seed"))),), *((other,) for other in sides)]


MODEL = {"pure_jax": ["pure"], "flax_nnx": STYLES["flax_nnx"]}
USER = needed(("mine.skeleton",), (HOST,), MODEL) | needed(("mine",), (STEP, "compile"), MODEL)
USUAL = alone(needed(("toy", "seed", "wide")))
TASKS: dict[str, tuple[Callable[[], list[Group]], float, dict[str, Any]]] = {
    **{f"default {budget}": (USUAL, budget, {}) for budget in (20, 40, 60, 120, 300, 600)},
    "noisy 300": (USUAL, 300, {"noise": 0.03}),
    "slow 300": (USUAL, 300, {"slowness": 2.0}),
    "two sizes 300": (alone(needed()), 300, {}),
    "step 60": (alone(AT_SEED), 60, {}),
    "step 200": (alone(AT_SEED), 200, {"noise": 0.03}),
    "few 120": (alone(FEW_WITH_COLD), 120, {}),
    "wide 300": (alone(needed(("seed", "wide"), (STEP,))), 300, {}),
    "cold 200": (alone(needed(("seed",), ("first_step",))), 200, {}),
    "environments 300": (environments, 300, {}),
    "ab few 60": (pair(FEW_AT_SEED), 60, {}),
    "ab 120": (pair(needed(("toy", "seed"), (STEP, HOST, "first_step"), FEW)), 120, {}),
    "ab many 60": (pair(needed(("toy", "seed"), (STEP, HOST))), 60, {}),
    "history 900": (days, 900, {}),
    "cost 60": (alone(USER), 60, {}),
}
"""Name → groups, budget in seconds, and traits of the machine."""


def make(state_class: Any, plan_class: Any, task: str, seed: int) -> Made:
    make_groups, budget, traits = TASKS[task]
    groups = make_groups()
    is_paired = len(groups[0]) > 1
    base = ("reference" if make_groups is days else BOTH[0]) if is_paired else ""
    options = Options(budget=budget, cores="one" if is_paired else "auto")
    state = state_class(groups, options, LANES, base)
    state.spent.wall_seconds = 5.0
    state.rng.seed(seed)
    machine = Machine(**{"noise": 0.01} | traits, seed=seed)
    machine.drive(plan_class(state, lambda _: False))
    widths, settled = {}, 0
    for row in make_estimates(state.samples, state.rows, options, base):
        if row.form in ("ratio", "added") and not row.is_noiseless:
            widths[row.metric, row.environment, str(row.cell)] = row.half_width
            _, settling = find_target_widths(row, options.margin)
            settled += row.half_width <= settling and not row.is_preliminary
    times = [sample.at for sample in state.samples if sample.metric in (STEP, HOST)]
    return Made(widths, settled, machine.now, min(times, default=math.nan))


def main() -> None:
    for task in TASKS:
        if sys.argv[1:] and not any(part in task for part in sys.argv[1:]):
            continue
        old = [make(old_state.RunState, old_plan.Plan, task, seed) for seed in range(SEEDS)]
        new = [make(new_state.RunState, new_plan.Plan, task, seed) for seed in range(SEEDS)]
        ratios = [
            theirs.widths[key] / ours.widths[key]
            for ours, theirs in zip(old, new, strict=True)
            for key in ours.widths.keys() & theirs.widths.keys()
            if 0 < ours.widths[key] < math.inf
        ]
        sums = [
            [sum(len(made.widths) for made in several), sum(made.settled for made in several)]
            for several in (old, new)
        ]
        ends = [max(made.end for made in several) for several in (old, new)]
        firsts = [statistics.median(made.first for made in several) for several in (old, new)]
        ratio = statistics.median(ratios) if ratios else math.nan
        print(
            f"{task:17} rows {sums[0][0]:4} {sums[1][0]:4}   settled {sums[0][1]:4} {sums[1][1]:4}"
            f"   width x {ratio:4.2f}   end {ends[0]:3.0f} {ends[1]:3.0f}"
            f"   first {firsts[0]:3.0f} {firsts[1]:3.0f}"
        )


if __name__ == "__main__":
    main()
