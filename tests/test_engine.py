"""The scheduler and the plan of a run, on a machine that is made up: no process is started."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.actions import ALL, ONE, Action, Death, Options, Turn
from bench.engine.environment_plan import STARVED
from bench.engine.planner import MIN_COLD, cold_count, rounds_for, sitting
from bench.engine.run_plan import Run
from bench.engine.sides import BASELINE_ARM, CONTROL_ARM, IN_A_ROW
from bench.metrics import COLD, METRICS, Kind
from tests.simulated import LANES, STYLES, Machine, needed

if TYPE_CHECKING:
    from tests.simulated import Fault, Needed

ONLY_STEP = ("step",)
BAD = "haiku/transform"
FIXED: dict[str, Any] = {"processes": 2, "blocks": 3, "rounds": 2, "cold_samples": 2}


def run(
    wanted: Needed | None = None,
    budget: float = 300,
    machine: Machine | None = None,
    **options: object,
) -> tuple[Run, Machine]:
    """Return a run on a machine, when it is over."""
    wanted, machine = needed() if wanted is None else wanted, machine or Machine()
    plan = Run(wanted, Options(budget, **options), 5.0, lanes=LANES)  # type: ignore[arg-type]
    machine.drive(plan)
    return plan, machine


def blocks(machine: Machine, kind: str = "step", workload: str = "seed") -> list[Action]:
    return [
        a for *_, a in machine.log if a.do == "block" and (a.kind, a.workload) == (kind, workload)
    ]


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [30, 60, 300, 1800])
def test_the_budget_is_kept(budget: float, slowness: float) -> None:
    _, machine = run(budget=budget, machine=Machine(slowness=slowness))
    fixed = 40 * slowness  # proofs of the reference and one block, whatever the budget
    assert machine.now <= max(1.05 * budget, fixed)


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [30, 60, 300])
def test_every_budget_answers(budget: float, slowness: float) -> None:
    plan, _ = run(budget=budget, machine=Machine(slowness=slowness))
    cells = plan.state.cells
    have = [c for c, f in cells.items() if c.workload == "seed" and f.values("step")]
    assert len(have) == 13 or slowness > 1
    assert Cell(*BASELINE, "seed", "cpu") in have


def test_sixty_seconds_are_two_sizes() -> None:
    plan, _ = run(budget=60)
    for cell, found in plan.state.cells.items():
        assert cell.workload not in ("seed", "toy") or len(found.blocks["step"]) >= 2, cell


@pytest.mark.parametrize(("budget", "cold"), [(300, ("pure",)), (900, None)])
def test_everything_is_measured_given_five_minutes(
    budget: float, cold: tuple[str, ...] | None
) -> None:
    """What happens once a process of a library's `pure` style first: a third of the time."""
    plan, machine = run(budget=budget)
    state = plan.state
    card = {"step", "host_cost", "final_loss"}
    once = {"compile", "first_step", "trace", "peak_rss", "import"}

    def measured(cell: Cell, metric: str) -> bool:
        found = state.cells[cell]
        return bool(found.training if metric == "final_loss" else found.values(metric))

    lacking = {
        (cell, metric)
        for cell, metrics in plan.needed.items()
        for metric in metrics & (card | once)
        if cell.workload == "seed" or METRICS[metric].kind is Kind.WARM
        if metric in card or cold is None or cell.style in cold
        if not measured(cell, metric)
    }
    assert not lacking
    assert state.spent.sampling / state.spent.wall > 0.5
    assert {a.cores for a in blocks(machine)} == {()}
    assert {a.cores for a in blocks(machine, "host_cost", "toy")} == set(LANES)


def test_while_all_cores_are_timed_nothing_else_runs() -> None:
    _, machine = run(budget=300)
    for start, end, action in machine.log:
        cores = machine_cores(machine, action)
        for other_start, other_end, other in machine.log:
            if other is action or other_end <= start + 1e-9 or other_start >= end - 1e-9:
                continue
            assert not (action.do in ("block", "train", "cold") and not cores), (action, other)
            assert other.worker != action.worker
            assert not cores or machine_cores(machine, other) != cores


def machine_cores(machine: Machine, action: Action) -> tuple[int, ...]:
    starts = {a.worker: a.cores for *_, a in machine.log if a.do in ("start", "cold")}
    return starts[action.worker]


@pytest.mark.parametrize(("cores", "expected"), [(ALL, {()}), (ONE, set(LANES))])
def test_cores_can_be_asked_for(cores: str, expected: set[tuple[int, ...]]) -> None:
    _, machine = run(budget=120, cores=cores)
    assert {
        a.cores
        for *_, a in machine.log
        if a.do == "block" and a.kind != "sample" and a.kind != "epoch"
    } == expected


def test_no_worker_is_closed_without_a_block() -> None:
    for budget in (30, 60, 300):
        _, machine = run(needed(metrics=("step", "host_cost")), budget)
        done = defaultdict(set)
        for *_, action in machine.log:
            done[action.worker].add(action.do)
        assert all("block" in what or "count" in what for what in done.values())


def test_orders_are_random_the_baselines_place_too() -> None:
    _, machine = run(needed(("seed",), ONLY_STEP), 300)
    place: Counter[int] = Counter()
    for worker in {a.worker for *_, a in machine.log}:
        made = [
            a.arms[0] for *_, a in machine.log if a.worker == worker and a.do in ("prove", "open")
        ]
        if made:
            place[made.index(BASELINE_ARM)] += 1
    assert len(place) >= 3
    firsts = {a.arms[0] for a in blocks(machine)}
    assert len(firsts) >= 3


def test_the_reference_is_in_every_block() -> None:
    _, machine = run(budget=120)
    for action in blocks(machine) + blocks(machine, "host_cost", "toy"):
        assert {BASELINE_ARM, CONTROL_ARM} <= set(action.arms)


def test_two_workers_share_the_proofs() -> None:
    _, machine = run(budget=300)
    proofs = [(a.worker, a.workload, a.arms) for *_, a in machine.log if a.do == "prove"]
    assert len({each[1:] for each in proofs}) == len(proofs) == 26
    assert len({worker for worker, *_ in proofs}) == 2


def test_arms_that_take_long_get_fewer_blocks() -> None:
    _, machine = run(needed(("toy",), ("step",)), 60)
    each = Counter(arm for a in blocks(machine, "step", "toy") for arm in a.arms)
    assert each["flax_linen/blog"] < each[BASELINE_ARM] / 2
    assert each["flax_linen/blog"] >= 3


def test_what_is_settled_sits_visits_out() -> None:
    plan = Run(
        needed(("seed",), ONLY_STEP),
        Options(300),
        5.0,
        lanes=LANES,
        settled=lambda _side, _turn: frozenset([BAD]),
    )
    machine = Machine()
    machine.drive(plan)
    each = Counter(arm for a in blocks(machine) for arm in a.arms)
    assert 0 < each[BAD] < 0.7 * each[BASELINE_ARM]


def test_cold_metrics_have_five_samples_or_none() -> None:
    for budget in (30, 60, 120, 300, 1800):
        plan, _ = run(budget=budget)
        for cell, found in plan.state.cells.items():
            for metric in COLD:
                count = len(found.values(metric))
                assert not count or count >= MIN_COLD, (budget, cell, metric)


def test_what_belongs_to_a_library_is_measured_once_a_library() -> None:
    _, machine = run(needed(("seed",), ("import", "init")), 120)
    cold = {a.arms[0] for *_, a in machine.log if a.do == "cold"}
    assert cold == {BASELINE_ARM, CONTROL_ARM, *(f"{e}/pure" for e in STYLES if e != "pure_jax")}


def test_and_all_styles_of_the_library_have_it() -> None:
    plan, _ = run(needed(("seed",), ("import",)), 120)
    assert plan.state.cells[Cell("flax_nnx", "jit", "seed", "cpu")].values("import")


def test_numbers_that_are_given_are_kept() -> None:
    plan, machine = run(needed(("seed",), ("step", "compile")), 10, **FIXED)
    found = plan.state.cells[Cell("haiku", "pure", "seed", "cpu")]
    assert len({s.process for s in found.blocks["step"]}) == 2
    assert len(found.blocks["step"]) == 6
    assert len(found.values("compile")) == 2
    assert {a.rounds for *_, a in machine.log if a.do == "block"} == {2}


def test_what_has_no_time_says_so() -> None:
    plan, _ = run(budget=30)
    missing = plan.state.missing
    assert missing[Cell("haiku", "pure", "toy", "cpu"), "host_cost"] == STARVED
    assert missing[Cell("haiku", "pure", "seed", "cpu"), "compile"] == STARVED


def test_backends_and_environments_have_parts_of_their_own() -> None:
    styles = STYLES | {"keras": ["pure"]}
    wanted = needed(("seed",), ONLY_STEP, styles, styles=styles) | needed(
        ("seed",), ONLY_STEP, backend="gpu"
    )
    plan = Run(wanted, Options(300), 5.0, environments={"keras": "keras"}, lanes=LANES)
    machine = Machine()
    machine.drive(plan)
    for side, arm in (("keras", "keras/pure"), ("", "haiku/pure")):
        arms = {a for *_, b in machine.log if b.do == "block" and b.side == side for a in b.arms}
        assert {arm, BASELINE_ARM, CONTROL_ARM} <= arms
        assert ("keras/pure" in arms) == (side == "keras")
    found = plan.state.cells
    assert found[Cell("keras", "pure", "seed", "cpu")].values("step")
    assert found[Cell("haiku", "pure", "seed", "gpu")].values("step")
    processes = {s.process for s in found[Cell(*BASELINE, "seed", "cpu")].blocks["step"]}
    assert {
        s.process for s in found[Cell("keras", "pure", "seed", "cpu")].blocks["step"]
    } < processes
    assert machine.now <= 1.05 * 300


# deaths


def once(do: str, arm: str = "", *, times: int = 1, kind: str = "") -> Fault:
    """Return what kills a worker a few times when it does something, at an arm's turn."""
    left = [times]

    def fault(action: Action) -> Death | None:
        mine = action.do == do and (not kind or action.kind == kind)
        if mine and left[0] and (not arm or arm in action.arms):
            left[0] -= 1
            return Death("worker failed (exit status -9)", "", arm)
        return None

    return fault


def failed(plan: Run) -> set[tuple[str, str]]:
    return {cell[:2] for cell, found in plan.state.cells.items() if found.failure}


@pytest.mark.parametrize(
    "do", ["start", "load", "prove", "open", "block", "count", "train", "cold"]
)
@pytest.mark.parametrize("arm", ["", BAD, BASELINE_ARM])
def test_one_death_costs_no_cell_and_no_block(do: str, arm: str) -> None:
    arm = "" if do in ("start", "load") else arm
    plan, machine = run(machine=Machine(once(do, arm)))
    assert not failed(plan)
    taken = sum(1 for *_, a in machine.log if a.do == "block") - (do == "block")
    assert len(plan.state.blocks) == taken
    assert all(f.values("step") for c, f in plan.state.cells.items() if c.workload == "seed")


@pytest.mark.parametrize("do", ["prove", "open", "block"])
def test_an_arm_that_always_kills_its_worker_fails_alone(do: str) -> None:
    plan, machine = run(machine=Machine(once(do, BAD, times=99)))
    assert failed(plan) == {("haiku", "transform")}
    per_workload = Counter(
        a.workload for *_, a in machine.log if a.do == do and BAD in a.arms and a.do != "block"
    )
    assert all(count <= IN_A_ROW + 40 for count in per_workload.values())
    good = plan.state.cells[Cell("haiku", "pure", "seed", "cpu")]
    assert good.values("step")
    assert "twice in a row" in str(
        plan.state.cells[Cell("haiku", "transform", "seed", "cpu")].failure
    )


def test_a_killed_cold_process_of_the_baseline_costs_its_sample_alone() -> None:
    plan, _ = run(needed(("seed",), ("step", "compile")), 600, Machine(once("cold", BASELINE_ARM)))
    assert not failed(plan)
    assert len(plan.state.cells[Cell(*BASELINE, "seed", "cpu")].values("compile")) >= MIN_COLD


def test_cold_processes_that_always_die_cost_their_cell_its_cold_metrics() -> None:
    plan, machine = run(
        needed(("seed",), ("step", "compile")), machine=Machine(once("cold", BAD, times=99))
    )
    found = plan.state.cells[Cell("haiku", "transform", "seed", "cpu")]
    assert found.failure is None
    assert found.values("step")
    assert not found.values("compile")
    assert sum(a.do == "cold" and BAD in a.arms for *_, a in machine.log) <= 3


@pytest.mark.parametrize("do", ["start", "load", "block"])
def test_workers_that_always_die_at_nobodys_turn_end_a_side(do: str) -> None:
    plan, machine = run(machine=Machine(once(do, times=10_000)), budget=100)
    assert all(found.failure or found.blocks for found in plan.state.cells.values())
    assert sum(a.do == "start" for *_, a in machine.log) < 25


def test_without_a_baseline_a_workload_fails() -> None:
    def fault(action: Action) -> str | None:
        mine = action.do == "prove" and action.workload == "toy" and BASELINE_ARM in action.arms
        return "not equal" if mine else None

    plan, _ = run(machine=Machine(fault))
    assert {c.workload for c, f in plan.state.cells.items() if f.failure} == {"toy"}
    assert plan.state.cells[Cell("haiku", "pure", "seed", "cpu")].values("step")


def test_an_arm_whose_block_is_not_what_was_proven_fails() -> None:
    def fault(action: Action) -> str | None:
        return BAD if action.do == "block" and BAD in action.arms else None

    plan, _ = run(needed(("seed",), ONLY_STEP), machine=Machine(fault))
    assert failed(plan) == {("haiku", "transform")}


def test_a_baseline_that_cannot_be_loaded() -> None:
    plan = Run(needed(), Options(60), problems={"pure_jax": "import failed"}, lanes=LANES)
    assert not Machine().drive(plan)
    assert all(
        "import failed" in str(f.failure) for c, f in plan.state.cells.items() if c[:2] != CONTROL
    )


# arithmetic


@pytest.mark.parametrize("seconds", [0.0, 5.0, 6.1, 8.5, 20.0, 100.0, 1500.0])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_sitting_fits_into_its_time(seconds: float, side_by_side: bool) -> None:
    found = sitting(seconds, 4.0, 2.0, 2, side_by_side=side_by_side)
    assert (found is None) == (seconds < 6.0)
    if found:
        count, each = found
        assert each >= 2.0
        assert 4.0 + (1 if side_by_side else count) * each <= seconds + 1e-9


def test_blocks_have_fewer_rounds_where_two_would_not_fit() -> None:
    assert [rounds_for(seconds, 4.0, 8) for seconds in (80.0, 8.0, 6.0, 4.0, 0.1)] == [
        8,
        8,
        6,
        4,
        3,
    ]
    assert rounds_for(0.1, 4.0, 2) == 2


@pytest.mark.parametrize(
    ("seconds", "sweep", "asked", "count"),
    [(100, 10, None, 10), (49, 10, None, 0), (50, 10, None, 5), (9e9, 1, None, 15), (1, 10, 3, 3)],
)
def test_cold_counts(seconds: float, sweep: float, asked: int | None, count: int) -> None:
    assert cold_count(seconds, sweep, asked) == count


def test_turns_are_named_by_workload_and_kind() -> None:
    assert Turn("seed", "step").kind == "step"
