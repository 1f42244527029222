"""The scheduler and the plan of a run, on a machine that is made up: no process is started."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from bench import estimates
from bench.cells import BASELINE, Arm, Cell
from bench.engine.actions import ALL, ONE, Action, Options
from bench.engine.planner import cold_count, rounds_for, sitting
from bench.engine.run_plan import RunPlan
from bench.estimates import MOST_HOST_WORKERS, Settled
from bench.metrics import COLD, METRICS, Kind
from bench.samples import BASELINE_ARM, CONTROL_ARM, MIN_COLD, MIN_VISITS, STARVED
from bench.worker import protocol
from common.config import WORKLOADS
from tests.simulated import LANES, STYLES, Machine, dies, needed

if TYPE_CHECKING:
    from tests.simulated import Needed

HOST_AND_STEP = ("host_cost", "step")
FEW = {"pure_jax": ["pure"], "haiku": ["pure", "transform"]}
BAD = "haiku/transform"
BAD_CELL = Cell("haiku", "transform", "seed", "cpu")
GOOD_CELL = Cell("haiku", "pure", "seed", "cpu")
AT_SEED = needed(("seed",), ("step",))
WITH_COLD = needed(("seed",), ("step", "compile"))


def run(
    wanted: Needed | None = None,
    budget: float = 300,
    machine: Machine | None = None,
    **options: object,
) -> tuple[RunPlan, Machine]:
    """Return a run on a machine, when it is over."""
    wanted, machine = needed() if wanted is None else wanted, machine or Machine()
    plan = RunPlan(wanted, Options(budget, **options), 5.0, lanes=LANES)  # type: ignore[arg-type]
    machine.drive(plan)
    return plan, machine


@cache
def usual(budget: float, slowness: float = 1.0) -> tuple[RunPlan, Machine]:
    """Return a run of everything, which several tests look at."""
    return run(budget=budget, machine=Machine(slowness=slowness))


def blocks(machine: Machine, kind: str = "step", workload: str = "seed") -> list[Action]:
    return [
        a for *_, a in machine.log if a.do == "block" and (a.kind, a.workload) == (kind, workload)
    ]


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [30, 60, 300, 1800])
def test_every_budget_is_kept_and_answers(budget: float, slowness: float) -> None:
    plan, machine = usual(budget, slowness)
    fixed = 40 * slowness  # proofs of the reference and one block, whatever the budget
    assert machine.now <= max(1.05 * budget, fixed)
    cells = plan.state.cells
    have = [c for c, f in cells.items() if c.workload == "seed" and f.values("step")]
    assert Cell(*BASELINE, "seed", "cpu") in have
    assert len(have) == 13 or slowness > 1
    counts = {len(found.values(metric)) for found in cells.values() for metric in COLD}
    assert slowness > 1 or all(not count or count >= MIN_COLD for count in counts)


def test_counts_are_of_each_depth() -> None:
    """Python does more in a deeper model, and the same in a wider one."""

    class Deeper(Machine):
        def answer(self, action: Action, wrong: str = "") -> Any:
            found = super().answer(action, wrong)
            if isinstance(found, protocol.Counted):
                return protocol.Counted({"python_calls": WORKLOADS[action.workload].layers})
            return found

    at = ("toy", "seed", "depth12")
    plan, machine = run(needed(at, ("step",), FEW, styles=FEW), machine=Deeper())
    counted = {a.workload for *_, a in machine.log if a.do == "count"}
    assert counted == {"toy", "depth12"}
    calls = {(c.workload, f.exact["python_calls"]) for c, f in plan.state.cells.items()}
    assert calls == {("toy", 3), ("seed", 3), ("depth12", 12)}


def test_what_has_time_and_what_says_that_it_has_none() -> None:
    """Sixty seconds are two sizes; host costs and cold processes take more than thirty."""
    for cell, found in usual(60)[0].state.cells.items():
        assert cell.workload not in ("seed", "toy") or len(found.blocks["step"]) >= 2, cell
    missing = usual(30)[0].state.missing
    assert missing[replace(GOOD_CELL, workload="toy"), "host_cost"] == STARVED
    assert missing[GOOD_CELL, "compile"] == STARVED


@pytest.mark.parametrize(("budget", "cold"), [(300, ("pure",)), (900, None)])
def test_everything_is_measured_given_five_minutes(
    budget: float, cold: tuple[str, ...] | None
) -> None:
    """What happens once a process of a library's `pure` style first: a third of the time."""
    plan, machine = usual(budget)
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


def test_the_outline_is_what_is_done() -> None:
    """In the order of the phases; a workload without time is named, and not touched."""
    wanted = needed(("toy", "seed", "wide"))
    [line] = RunPlan(wanted, Options(60), 5.0, lanes=LANES).outline()
    _, machine = run(wanted, 60)
    touched = {a.workload for *_, a in machine.log} - {""}
    left_out = {"toy", "seed", "wide"} - touched
    assert left_out == {"toy"}
    assert line.startswith("cpu: proofs that 13 arms are equal, at wide and seed (about ")
    parts = line.split("; ")
    assert parts[1] == "step at wide and seed, on all cores"
    assert parts[2].startswith("where there is time: ")
    assert parts[-1] == "no time for toy"


def test_while_all_cores_are_timed_nothing_else_runs() -> None:
    _, machine = usual(300)
    cores = {a.worker: a.cores for *_, a in machine.log if a.do in ("start", "cold")}
    for start, end, action in machine.log:
        own = cores[action.worker]
        for other_start, other_end, other in machine.log:
            if other is action or other_end <= start + 1e-9 or other_start >= end - 1e-9:
                continue
            assert own or action.do not in ("block", "train", "cold"), (action, other)
            assert other.worker != action.worker
            assert not own or cores[other.worker] != own


@pytest.mark.parametrize(("cores", "expected"), [(ALL, {()}), (ONE, set(LANES))])
def test_cores_can_be_asked_for(cores: str, expected: set[tuple[int, ...]]) -> None:
    _, machine = run(budget=120, cores=cores)
    found = [a for *_, a in machine.log if a.do == "block" and a.kind in ("step", "host_cost")]
    assert {a.cores for a in found} == expected


@pytest.mark.parametrize("budget", [30, 60, 120])
def test_on_one_core_most_of_the_time_goes_to_blocks(budget: float) -> None:
    """The first workers too, which prove, measure longer than it takes to open others."""
    two = needed(("seed",), ("step",), ("haiku",), styles={"haiku": ["pure"]})
    plan, machine = run(two, budget, cores=ONE)
    per_worker = Counter(a.worker for a in blocks(machine))
    assert sorted(per_worker.values())[len(per_worker) // 2] >= 5
    assert min(per_worker[worker] for worker in (1, 2)) >= 3
    assert plan.state.spent.sampling / plan.state.spent.wall > (0.35 if budget == 30 else 0.5)


@pytest.mark.parametrize("lanes", [LANES, LANES[:1]])
@pytest.mark.parametrize("budget", [40, 60, 120])
def test_steps_on_one_core_leave_time_for_enough_workers_and_for_the_rest(
    budget: float, lanes: list[tuple[int, ...]]
) -> None:
    wanted = needed(("seed",), ("step", "compile"), ("haiku",), styles={"haiku": ["pure"]})
    plan = RunPlan(wanted, Options(budget, cores=ONE), 5.0, lanes=lanes)
    machine = Machine()
    machine.drive(plan)
    assert machine.now <= 1.05 * budget
    assert len({a.worker for a in blocks(machine)}) >= MIN_VISITS
    [found] = [f for c, f in plan.state.cells.items() if c.entrant == "haiku"]
    assert len(found.values("compile")) >= MIN_COLD or budget / 40 * len(lanes) < 4


def test_no_worker_is_closed_without_a_block() -> None:
    for budget in (30, 60, 300):
        _, machine = run(needed(metrics=("step", "host_cost")), budget)
        done = defaultdict(set)
        for *_, action in machine.log:
            done[action.worker].add(action.do)
        assert all("block" in what or "count" in what for what in done.values())


def test_orders_are_random_and_the_reference_is_in_every_block() -> None:
    _, machine = run(AT_SEED)
    made: dict[int, list[str]] = defaultdict(list)
    for *_, a in machine.log:
        if a.do in ("prove", "open"):
            made[a.worker] += a.arms
    assert len({arms.index(BASELINE_ARM) for arms in made.values()}) >= 3
    assert len({a.arms[0] for a in blocks(machine)}) >= 3
    everything = usual(300)[1]
    for action in blocks(everything) + blocks(everything, "host_cost", "toy"):
        assert {BASELINE_ARM, CONTROL_ARM} <= set(action.arms)


def test_two_workers_share_the_proofs() -> None:
    proofs = [(a.worker, a.workload, a.arms) for *_, a in usual(300)[1].log if a.do == "prove"]
    assert len({each[1:] for each in proofs}) == len(proofs) == 26
    assert len({worker for worker, *_ in proofs}) == 2


def test_arms_that_take_long_or_are_settled_get_fewer_blocks() -> None:
    _, machine = run(needed(("toy",), ("step",)), 60)
    each = Counter(arm for a in blocks(machine, "step", "toy") for arm in a.arms)
    assert 3 <= each["flax_linen/blog"] < each[BASELINE_ARM] / 2
    plan = RunPlan(
        AT_SEED, Options(300), lanes=LANES, settled=lambda _side, _turn: frozenset([BAD])
    )
    machine = Machine()
    machine.drive(plan)
    each = Counter(arm for a in blocks(machine) for arm in a.arms)
    assert 0 < each[BAD] < 0.7 * each[BASELINE_ARM]


def test_host_cost_gets_no_more_time_than_it_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a run is, and where no arm gets to its target; a default run is as it was."""

    def workers(budget: float) -> tuple[dict[str, int], list[tuple[float, float, Action]]]:
        settled, machine = Settled(0.02), Machine(noise=0.3)
        wanted = needed(metrics=("step", "host_cost"), entrants=FEW, styles=FEW)
        machine.drive(RunPlan(wanted, Options(budget), 5.0, lanes=LANES, settled=settled))
        taken = [a for *_, a in machine.log if a.do == "block"]
        count = {kind: len({a.worker for a in taken if a.kind == kind}) for kind in HOST_AND_STEP}
        return count, machine.log

    default = {action.worker for action in blocks(usual(300)[1], "host_cost", "toy")}
    assert len(default) < MOST_HOST_WORKERS
    short, endless = workers(60), workers(150)
    monkeypatch.setattr(estimates, "MOST_HOST_WORKERS", 10)
    assert workers(60) == short
    ended = workers(150)
    assert short[0]["host_cost"] < 10 <= ended[0]["host_cost"] <= 10 + len(LANES)
    assert ended[0]["host_cost"] < endless[0]["host_cost"]
    assert ended[0]["step"] > endless[0]["step"]


@pytest.mark.parametrize("cores", [ALL, ONE])
def test_a_known_host_cost_gets_no_more_time_from_workers_that_measure_steps(cores: str) -> None:
    """A turn that every worker takes ends when all of its arms are known."""
    wanted = needed(metrics=("step", "host_cost"), entrants=FEW, styles=FEW)
    machine, options = Machine(), Options(120, cores=cores)
    machine.drive(RunPlan(wanted, options, 5.0, lanes=LANES, settled=Settled(0.02)))
    last = {a.kind: end for _, end, a in machine.log if a.do == "block"}
    assert last["host_cost"] < 80
    assert last["step"] > 110


def test_what_belongs_to_a_library_is_measured_once_and_all_its_styles_have_it() -> None:
    plan, machine = run(needed(("seed",), ("import", "init")), 120)
    cold = {a.arms[0] for *_, a in machine.log if a.do == "cold"}
    assert cold == {BASELINE_ARM, CONTROL_ARM, *(f"{e}/pure" for e in STYLES if e != "pure_jax")}
    assert plan.state.cells[Cell("flax_nnx", "jit", "seed", "cpu")].values("import")


FIXED: dict[str, Any] = {"processes": 2, "blocks": 3, "rounds": 2, "cold_samples": 2}


def test_numbers_that_are_given_are_kept() -> None:
    plan, machine = run(WITH_COLD, 10, **FIXED)
    found = plan.state.cells[GOOD_CELL]
    assert len({s.process for s in found.blocks["step"]}) == 2
    assert len(found.blocks["step"]) == 6
    assert len(found.values("compile")) == 2
    assert {a.rounds for a in blocks(machine)} == {2}


def test_a_number_of_cold_samples_alone_leaves_the_rest_to_the_budget() -> None:
    plan, machine = run(WITH_COLD, 200, cold_samples=2)
    assert len(plan.state.cells[GOOD_CELL].values("compile")) == 2
    assert 150 < machine.now <= 1.05 * 200


def test_backends_and_environments_have_parts_of_their_own() -> None:
    styles = STYLES | {"keras": ["pure"]}
    wanted = needed(("seed",), ("step",), styles, styles=styles)
    wanted |= needed(("seed",), ("step",), backend="gpu")
    plan = RunPlan(wanted, Options(300), 5.0, environments={"keras": "keras"}, lanes=LANES)
    machine = Machine()
    machine.drive(plan)
    for side, arm in (("keras", "keras/pure"), ("", "haiku/pure")):
        arms = {a for *_, b in machine.log if b.do == "block" and b.side == side for a in b.arms}
        assert {arm, BASELINE_ARM, CONTROL_ARM} <= arms
        assert ("keras/pure" in arms) == (side == "keras")
    found = plan.state.cells
    assert found[replace(GOOD_CELL, backend="gpu")].values("step")
    everywhere, own = (
        {samples.process for samples in found[Cell(*names, "seed", "cpu")].blocks["step"]}
        for names in (BASELINE, ("keras", "pure"))
    )
    assert own
    assert own < everywhere
    assert machine.now <= 1.05 * 300


# deaths


def failed(plan: RunPlan) -> set[Arm]:
    return {cell.arm for cell, found in plan.state.cells.items() if found.failure}


DOINGS = ("start", "load", "prove", "open", "block", "count", "train", "cold")


@pytest.mark.parametrize("arm", ["", BAD, BASELINE_ARM])
@pytest.mark.parametrize("do", DOINGS)
def test_one_death_costs_no_cell_and_no_block(do: str, arm: str) -> None:
    plan, machine = run(machine=Machine(dies(do, "" if do in DOINGS[:2] else arm)))
    assert not failed(plan)
    taken = sum(1 for *_, a in machine.log if a.do == "block") - (do == "block")
    assert len(plan.state.blocks) == taken
    assert all(f.values("step") for c, f in plan.state.cells.items() if c.workload == "seed")


@pytest.mark.parametrize("do", ["prove", "open", "block"])
def test_an_arm_that_always_kills_its_worker_fails_alone(do: str) -> None:
    plan, _ = run(machine=Machine(dies(do, BAD, times=99)))
    assert failed(plan) == {BAD_CELL.arm}
    assert plan.state.cells[GOOD_CELL].values("step")
    assert "twice in a row" in str(plan.state.cells[BAD_CELL].failure)


def test_killed_cold_processes_cost_samples_alone() -> None:
    """Of one that always dies, no more than three are begun; one of the baseline is begun again."""
    plan, _ = run(WITH_COLD, 600, Machine(dies("cold", BASELINE_ARM)))
    assert not failed(plan)
    assert len(plan.state.cells[Cell(*BASELINE, "seed", "cpu")].values("compile")) >= MIN_COLD
    plan, machine = run(WITH_COLD, 900, Machine(dies("cold", BAD, times=99)))
    found = plan.state.cells[BAD_CELL]
    assert found.failure is None
    assert found.values("step")
    assert not found.values("compile")
    assert sum(a.do == "cold" and BAD in a.arms for *_, a in machine.log) == 3


@pytest.mark.parametrize("do", ["start", "load", "block"])
def test_workers_that_always_die_at_no_arms_turn_end_a_side(do: str) -> None:
    plan, machine = run(machine=Machine(dies(do, times=10_000)), budget=100)
    assert all(found.failure or found.blocks for found in plan.state.cells.values())
    assert sum(a.do == "start" for *_, a in machine.log) < 25


def test_an_answer_that_fails_costs_its_own_cells() -> None:
    """A block that is not what was proven, its arm; a baseline that is not equal, its workload."""

    def changed(action: Action) -> str | None:
        return BAD if action.do == "block" and BAD in action.arms else None

    def unequal(action: Action) -> str | None:
        mine = action.do == "prove" and action.workload == "toy" and BASELINE_ARM in action.arms
        return "not equal" if mine else None

    assert failed(run(AT_SEED, machine=Machine(changed))[0]) == {BAD_CELL.arm}
    plan, _ = run(machine=Machine(unequal))
    assert {c.workload for c, f in plan.state.cells.items() if f.failure} == {"toy"}
    assert plan.state.cells[GOOD_CELL].values("step")


def test_a_baseline_that_cannot_be_loaded() -> None:
    plan = RunPlan(needed(), Options(60), problems={"pure_jax": "import failed"}, lanes=LANES)
    assert not Machine().drive(plan)
    failures = [f.failure for c, f in plan.state.cells.items() if not c.is_control]
    assert all("import failed" in str(failure) for failure in failures)


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


def test_rounds_and_cold_samples_follow_the_time() -> None:
    times = (80.0, 8.0, 6.0, 4.0, 0.1)
    assert [rounds_for(seconds, 4.0, 8) for seconds in times] == [8, 8, 6, 4, 3]
    assert rounds_for(0.1, 4.0, 2) == 2
    asked = [(100, 10, None), (49, 10, None), (50, 10, None), (9e9, 1, None), (1, 10, 3)]
    assert [cold_count(*each) for each in asked] == [10, 0, 5, 15, 3]
