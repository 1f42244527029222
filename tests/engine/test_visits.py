"""Visits on a made-up machine: lanes, orders, stages, and pairs of two environments."""

from collections import Counter, defaultdict
from statistics import median
from typing import Any

import pytest

from bench.cells import BASELINE
from bench.engine.costs import TURNS
from bench.engine.jobs import CALLS_SHARE, OVERRUN
from bench.engine.requests import NOT_JAX
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import STAGES, STEP
from tests.engine.plans import (
    AT_SEED,
    BAD,
    BAD_CELL,
    BOTH,
    FEW_ARMS,
    FEW_AT_SEED,
    GOOD_CELL,
    REFERENCES,
    ab,
    run,
    usual,
)
from tests.engine.simulated import FEW, LANES, Machine, needed, side


def test_nothing_else_runs_while_all_cores_are_timed_and_a_core_has_one_worker() -> None:
    _, machine = usual(300)
    cores = {a.worker: a.cores for *_, a in machine.log if a.do in ("load", "cold")}
    overlapping = [
        (action, other)
        for start, end, action in machine.log
        for other_start, other_end, other in machine.log
        if action is not other and other_end > start + 1e-9 and other_start < end - 1e-9
    ]
    assert overlapping, "proofs are made on both cores"
    for action, other in overlapping:
        pinned = cores[action.worker]
        assert pinned or action.do not in ("block", "train", "cold"), (action, other)
        assert not pinned or cores[other.worker] != pinned


@pytest.mark.parametrize(
    ("cores", "step", "host"),
    [("auto", {()}, {*LANES}), ("all", {()}, {()}), ("one", {*LANES}, {*LANES})],
)
def test_steps_have_all_cores_as_users_run_them_unless_told(
    cores: str, step: Any, host: Any
) -> None:
    _, machine = run(budget=120, cores=cores)
    assert {a.cores for a in machine.actions(kind=STEP)} == step
    assert {a.cores for a in machine.actions(kind="host_cost")} == host


@pytest.mark.parametrize("slowness", [3, 6, 10])
def test_a_visit_ends_where_only_an_unrequested_baseline_was_proven_in_time(
    slowness: float,
) -> None:
    wanted = needed(("toy",), ("host_cost",), {"equinox": ["pure"]})
    plan, machine = ab(wanted, 10, Machine(slowness=slowness))
    assert {name for a in machine.actions("prove") for name in a.arms} == {str(BASELINE)}
    assert not plan.different


def test_orders_are_random_and_the_reference_is_in_every_block() -> None:
    _, machine = run(AT_SEED)
    made: dict[int, list[str]] = defaultdict(list)
    for *_, action in machine.log:
        if action.do in ("prove", "open"):
            made[action.worker] += action.arms
    assert len({arms.index(str(BASELINE)) for arms in made.values()}) >= 3
    assert len({action.arms[0] for action in machine.actions()}) >= 3
    assert all({*action.arms} >= REFERENCES for action in machine.actions())
    proofs = [(a.worker, *a.arms) for a in machine.actions("prove")]
    assert len({arm for _, arm in proofs}) == 13
    assert len(proofs) <= 14, "each arm is proven once, but for one that both come to at last"
    assert len({worker for worker, _ in proofs}) == 2, "by two workers at the same time"


def test_each_environment_and_backend_has_blocks_with_its_reference() -> None:
    foreign = {"keras": ["pure"]}
    groups = [
        (side(needed(("seed",), (STEP, "first_step"), FEW)),),
        (side(needed(("seed",), (STEP, "first_step"), foreign), "keras"),),
        (side(needed(("seed",), (STEP,), FEW, backend="gpu")),),
    ]
    plan, machine = run(groups, 300)
    assert machine.now <= 300
    arms: dict[tuple[str, str], set[str]] = defaultdict(set)
    for action in machine.actions():
        block: Any = action.command
        arms[action.environment, block.backend] |= {*action.arms}
        assert block.backend == "cpu" or action.cores == ()
    assert arms == {
        ("", "cpu"): FEW_ARMS,
        ("", "gpu"): FEW_ARMS,
        ("keras", "cpu"): REFERENCES | {"keras/pure"},
    }
    cold = {(a.environment, *a.arms) for a in machine.actions("cold")}
    assert {name for name, arm in cold if arm == str(BASELINE)} == {""}, "the first one's is all's"
    assert ("keras", "keras/pure") in cold
    assert not plan.preliminary


def test_blocks_have_the_usual_rounds_after_a_first_answer() -> None:
    late: list[int] = []
    for budget in range(60, 130, 7):
        _, machine = run(AT_SEED, budget, Machine(noise=0.04))
        workers = [action.worker for action in machine.actions(kind=STEP)]
        begun_late = list(dict.fromkeys(workers))[MIN_WORKERS + len(LANES) - 1 :]
        blocks = zip(workers, machine.blocks(STEP), strict=True)
        late += [block.rounds for worker, block in blocks if worker in begun_late]
    assert min(late) >= TURNS[STEP].rounds, "all blocks count alike"


# Stages.


STAGES_AT_SEED = needed(("seed",), ("trace", "compile"), FEW)


def test_stages_are_timed_in_workers_that_do_nothing_else() -> None:
    plan, machine = run(STAGES_AT_SEED, 60, rounds=5)
    measuring = {action.worker for action in machine.actions(kind=STAGES)}
    assert len(measuring) == plan.visits["seed stages"] >= MIN_WORKERS
    of_worker = [a for *_, a in machine.log if a.worker in measuring]
    assert {a.do for a in of_worker} == {"load", "block", "close"}
    blocks = machine.blocks(STAGES)
    assert {(b.rounds, frozenset(b.arms)) for b in blocks} == {(1, frozenset(FEW_ARMS))}
    assert {a.cores for a in machine.actions(kind=STAGES)} == set(LANES)
    ends = {a.arms[0]: end for _, end, a in machine.log if a.do == "prove"}
    first = min(start for start, _, a in machine.log if a.worker in measuring)
    assert {*ends} == FEW_ARMS
    assert max(ends.values()) <= first, "what takes part is proven before"
    assert {row.program for row in plan.state.sides[0].cells.values()} == {"a"}
    assert all(b.programs == dict.fromkeys(FEW_ARMS, "a") for b in blocks)
    missing = [row.missing.get("compile") for row in plan.state.sides[0].cells.values()]
    assert missing == [None] * len(missing), "one arm of a program compiles for all"


def test_a_program_that_is_not_jax_s_has_no_stages() -> None:
    plan, machine = run(STAGES_AT_SEED, 100, Machine(foreign=BAD))
    blocks = machine.actions(kind=STAGES)
    assert blocks
    assert not any(BAD in action.arms for action in blocks)
    assert GOOD_CELL in plan.counts("trace")
    assert BAD_CELL not in plan.counts("compile")
    reasons = plan.state.sides[0].cells[BAD_CELL].missing
    assert reasons["compile"] == reasons["trace"] == NOT_JAX
    assert not plan.failed


def test_cells_of_two_backends_share_the_programs_of_their_own() -> None:
    wanted = [needed(("seed",), (STEP, "compile"), FEW, backend=name) for name in ("cpu", "gpu")]
    plan, _ = run([(side(cells),) for cells in wanted], 150)
    assert not any(row.missing for row in plan.state.rows)


def test_pairs_take_their_stages_by_turns() -> None:
    plan, machine = ab(STAGES_AT_SEED, 60)
    [pairs] = plan.visits.values()
    assert pairs > 2
    rows = [sample for sample in plan.state.samples if sample.metric == "compile"]
    sides = {name: [s for s in rows if s.environment == name] for name in BOTH}
    pairs_of = [{(s.worker, s.block, s.cell) for s in ours} for ours in sides.values()]
    assert pairs_of[0] == pairs_of[1] != set()
    assert not any(block.programs for block in machine.blocks(STAGES)), "all compile"
    alone = needed(("seed",), ("compile",), {"haiku": ["transform"]})
    _, machine = ab(alone, 60)
    blocks = machine.blocks(STAGES)
    assert {(*block.arms,) for block in blocks[2:]} == {(BAD,)}, "and nothing that nobody asked for"


# Pairs of two environments.


def test_pairs_share_blocks_and_a_core() -> None:
    plan, machine = ab()
    blocks = machine.actions()
    for action in blocks:
        assert {action.environment, action.partner_environment} == {*BOTH}
    firsts = Counter(action.environment for action in blocks)
    assert min(firsts[name] for name in BOTH) > 0.2 * len(blocks), "in random order"
    assert {a.cores for a in machine.actions()} == set(LANES)
    by_block: dict[int, set[tuple[str, int]]] = defaultdict(set)
    for sample in plan.state.samples:
        if sample.metric == STEP:
            by_block[sample.block].add((sample.environment, sample.worker))
    assert len(by_block) == len(blocks)
    assert all({name for name, _ in two} == {*BOTH} for two in by_block.values())
    assert all(len({worker for _, worker in two}) == 1 for two in by_block.values())


def test_blocks_take_a_second_and_steps_are_made_anew() -> None:
    """Where three times as long was measured as making them takes; a given number is kept."""
    _, machine = ab(needed(("seed",), (STEP,), {"haiku": ["transform"]}), 90)
    times = [(end - start, action) for start, end, action in machine.log if action.do == "block"]
    assert 0.7 < median(took for took, _ in times) < 2
    visits: dict[int, list[Any]] = defaultdict(list)
    for _, action in times:
        visits[action.worker + action.partner].append(action.command)
    assert not any(blocks[0].anew for blocks in visits.values()), "they were made just before"
    share = [sum(block.anew for block in blocks) / len(blocks) for blocks in visits.values()]
    assert 0.2 < median(share) < 0.8
    _, machine = ab(FEW_AT_SEED, 9, processes=1, blocks=3, rounds=2)
    assert {block.rounds for block in machine.blocks()} == {2}


def test_a_baseline_that_was_not_asked_for_is_in_one_block_of_four() -> None:
    """It is there to compare results with; a quarter of the samples would make all others vague."""
    alone = needed(("seed",), (STEP,), {"haiku": ["transform"]})
    plan, machine = ab(alone, 9, processes=2, blocks=5)
    assert set(plan.counts(STEP, "new")) == {BAD_CELL}
    each = Counter(arm for action in machine.actions() for arm in action.arms)
    assert (each[BAD], each[str(BASELINE)]) == (2 * 5, 2 * 2), "of two workers together"
    assert all(BAD in action.arms for action in machine.actions())
    assert {arm for action in machine.actions("count") for arm in action.arms} == {BAD}


def test_what_has_compiled_measures_no_pair() -> None:
    _, machine = ab(needed(("seed",), (STEP,), FEW), 90)
    proving = {action.worker for action in machine.actions("prove")}
    assert proving
    assert not proving & {action.worker for action in machine.actions()}


@pytest.mark.parametrize(("lanes", "base", "new"), [(1, 1, 1), (3, 2, 1), (6, 3, 3)])
def test_all_lanes_prove_the_sides_of_a_pair_each_cell_once(
    lanes: int, base: int, new: int
) -> None:
    _, machine = ab(AT_SEED, 90, lanes=[(core,) for core in range(lanes)])
    proofs = machine.actions("prove")
    cells = Counter((action.environment, action.arms[0]) for action in proofs)
    assert {*cells.values()} == {1}
    assert len(cells) == 2 * len(AT_SEED)
    workers = {(action.environment, action.worker) for action in proofs}
    assert Counter(name for name, _ in workers) == {"base": base, "new": new}


@pytest.mark.parametrize("slowness", [1.0, 2.0])
@pytest.mark.parametrize("budget", [60, 120, 900])
def test_an_ab_keeps_its_budget(budget: float, slowness: float) -> None:
    wanted = needed(("toy", "seed"), (STEP, "host_cost", "first_step"), FEW)
    plan, machine = ab(wanted, budget, Machine(slowness=slowness))
    assert machine.now <= (1 + OVERRUN) * budget
    for name in BOTH:
        assert {*plan.counts(STEP, name)} == {*wanted}
        assert min(plan.counts("first_step", name).values(), default=MIN_COLD) >= MIN_COLD
    assert slowness > 1 or min(plan.visits.values()) >= 2


def test_an_ab_of_many_arms_on_a_slow_machine_counts_on_their_proofs() -> None:
    many = needed(("toy", "seed"), (STEP, "host_cost"))
    lanes = [(core,) for core in range(8)]
    plan, machine = ab(many, 60, Machine(slowness=2.0, noise=0.02), seed=1, lanes=lanes)
    assert machine.now <= (1 + OVERRUN) * 60
    assert plan.visits["seed step"] == 8


def test_a_sweep_of_fewer_cells_than_lanes_needs_a_whole_process() -> None:
    """Otherwise it is chosen where none fits any more, and nothing begins for ever."""
    plan, _ = ab(needed(("seed",), ("first_step",), {"haiku": ["pure"]}), 90)
    jobs: Any = plan.jobs.cold_jobs()
    [job] = [job for job in jobs if len(job.pairs) < len(LANES)]
    assert job.seconds_needed >= plan.state.costs.cold(plan.state.groups[0]) > job.cost


def test_cold_metrics_take_what_pairs_leave() -> None:
    wanted = needed(("toy", "seed", "wide"), (STEP, "first_step"), FEW)
    plan, machine = ab(wanted, 240, processes=2)
    assert machine.now > 200
    assert {cell.workload for cell in plan.counts("first_step", "new")} == {"toy", "seed", "wide"}


def test_a_pair_of_skeletons_has_one_long_block_once_its_rounds_were_timed() -> None:
    """Fresh buffers, warm calls and the comparison of results took half of a short block."""
    wanted = needed(("mine.skeleton",), ("host_cost",), {"equinox": ["pure"]})
    plan, _ = ab(wanted, 120)
    blocks = defaultdict[int, set[int]](set)
    for sample in plan.state.samples:
        if sample.metric == "host_cost":
            blocks[sample.worker].add(sample.block)
    counts = [len(several) for several in blocks.values()]
    assert len(counts) > 2
    assert {*counts[2:]} == {1}, "the first ones have a short block before"


def test_calls_go_first_where_a_library_is_all_that_differs() -> None:
    wanted = needed(("toy", "seed"), ("host_cost", STEP, "compile"), FEW)
    for calls_first in (True, False):
        plan, machine = ab(wanted, 60, calls_first=calls_first)
        first = next(action for action in machine.actions(do="block"))
        assert (first.workload, first.kind) == (
            ("toy", "host_cost") if calls_first else ("seed", STEP)
        )
    plan, machine = ab(wanted, 60, Machine(noise=0.05), calls_first=True)
    until = CALLS_SHARE * 60
    early = [a for start, _, a in machine.log if a.do == "block" and start < until - 5]
    assert {a.kind for a in early} == {"host_cost"}, (
        "they are noisy, and go on until they are precise"
    )
    assert plan.visits["toy host_cost"] > MIN_WORKERS
    plan, machine = ab(wanted, 300, calls_first=True)
    assert {a.kind for a in machine.actions(do="block")} >= {"host_cost", STEP}
