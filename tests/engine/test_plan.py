"""The plan of runs, A/Bs and histories, on a made-up machine: no process is started."""

from collections import Counter, defaultdict
from functools import cache
from itertools import accumulate
from statistics import median
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.engine.actions import Action, Do
from bench.engine.choice import OVERRUN
from bench.engine.costs import TURNS
from bench.engine.journal import Part
from bench.engine.plan import Plan
from bench.engine.session import make_estimates
from bench.engine.state import COLD_DEATHS
from bench.engine.visits import NOT_JAX
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, HOST, STAGES, STEP
from bench.runfile import CellResult, pack_samples, unpack_samples
from tests.engine.simulated import FEW, LANES, STYLES, Machine, dies, needed, plan_of, side

REFERENCES = {str(BASELINE), str(CONTROL)}
BAD = "haiku/transform"
FEW_ARMS = REFERENCES | {"haiku/pure", BAD}
BAD_CELL, GOOD_CELL = (Cell("haiku", style, "seed", "cpu") for style in ("transform", "pure"))
AT_SEED = needed(("seed",), (STEP,))
FEW_AT_SEED = needed(("seed",), (STEP,), FEW)
FEW_WITH_COLD = needed(("seed",), (STEP, "first_step"), FEW)


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
    rows = (s for s in plan.visits.samples if (s.metric, s.environment) == (metric, environment))
    return dict(Counter(sample.cell for sample in rows))


def failed(plan: Plan) -> set[str]:
    """Return the arms of which a cell has failed."""
    return {str(row.cell.arm) for row in plan.agenda.rows if row.failure}


def proven(rows: list[CellResult]) -> set[tuple[str, str]]:
    """Return workload and arm of the cells that are proven; there are some."""
    return {(row.cell.workload, str(row.cell.arm)) for row in rows if row.proof} or {("", "")}


# What a budget buys.


ENOUGH = {60: ("seed step",), 300: ("seed step", "toy host_cost", "wide step")}
"""Kinds of turns that have enough workers, by budget in seconds, on the usual machine."""


@pytest.mark.parametrize("slowness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("budget", [20, 60, 120, 300])
def test_a_budget_is_kept_and_answers(budget: float, slowness: float) -> None:
    plan, machine = usual(budget, slowness)
    assert machine.now <= (1 + OVERRUN) * budget
    blocks = machine.actions()
    assert (blocks[0].workload, blocks[0].kind) == ("seed", STEP), "what people ask about first"
    measured = counts(plan, STEP)
    assert BASELINE.make_cell("seed", "cpu") in measured
    assert slowness * 40 > budget or all(cell in measured for cell in AT_SEED)
    for metric in COLD:
        assert min(counts(plan, metric).values(), default=MIN_COLD) >= MIN_COLD, metric
    assert budget < 300 or counts(plan, "compile"), "on slow machines, too"
    if slowness == 1:
        assert all(workers(plan)[turn] >= MIN_WORKERS for turn in ENOUGH.get(int(budget), ()))
    if slowness <= 1 and budget >= 60:
        assert not preliminary(plan), "nothing is begun that stays preliminary"


@pytest.mark.parametrize(("budget", "slowness"), [(45, 1.0), (60, 1.5), (120, 0.7), (150, 1.0)])
def test_time_is_kept_for_an_answer_that_was_begun(budget: float, slowness: float) -> None:
    for seed in range(3):
        machine = Machine(slowness=slowness, noise=0.015, seed=seed)
        plan, _ = run(needed(("toy", "seed", "wide")), budget, machine, seed=seed)
        assert not preliminary(plan)


def test_five_minutes_at_two_sizes_measure_all_but_trainings() -> None:
    plan, _ = run()
    [state] = plan.sides
    lacking = {metric for row in state.cells.values() for metric in row.missing}
    assert lacking <= {*COLD, "final_loss"}
    pure = {cell for cell in counts(plan, "first_step") if cell.style == "pure"}
    assert {cell.entrant for cell in pure} == {*STYLES, "control"}
    assert plan.spent.sampling_seconds > 0.5 * plan.spent.wall_seconds


def test_each_number_that_is_missing_has_its_reason() -> None:
    plan, _ = usual(20)
    [state] = plan.sides
    for cell, metrics in state.needed.items():
        for metric in metrics:
            have = counts(plan, metric).get(cell, 0)
            if metric in ("import", "init"):
                continue  # their library's
            assert (metric in state.cells[cell].missing) == (have == 0), (cell, metric)
    missing = state.cells[GOOD_CELL].missing
    assert missing.pop("first_step") == "not measured within the budget"
    state.deaths[str(GOOD_CELL.arm), GOOD_CELL.workload] = "worker failed (silent for 20 s)"
    plan.note_missing()
    assert missing["first_step"].startswith(
        "worker failed (silent for 20 s), and there was no time"
    )


def test_what_has_ended_is_gone_on_with_where_it_is_open() -> None:
    """Its proofs and counts are known, its samples count, and workers have further numbers."""
    first, _ = usual(300)
    rows, before = first.agenda.rows, first.visits.samples
    spent = replace(first.spent, wall_seconds=5.0, earlier_processes=first.spent.processes)
    plan = plan_of(needed(("toy", "seed", "wide")), 60)
    plan.adopt(Mock(known=Part(cells=rows, samples=pack_samples(before), spent=spent)))
    assert not plan.agenda.worker_counts
    machine = Machine(noise=0.01).drive(plan)
    assert not proven(rows) & {(a.workload, a.arms[0]) for a in machine.actions("prove")}
    assert not machine.actions("count")
    after = plan.visits.samples[len(before) :]
    assert min(s.worker for s in after) > max(s.worker for s in before)
    assert min(s.block for s in after if s.metric == STEP) > max(s.block for s in before)


@pytest.mark.parametrize("stop", [10, 90, 210, 290])
def test_what_was_cut_off_goes_on_where_it_was(stop: float) -> None:
    """The time that it took counts, and what was done is not done again."""
    first, cut = plan_of(needed()), Machine(noise=0.01)

    def interrupt(_: Action) -> None:
        if cut.now > stop:
            raise KeyboardInterrupt

    cut.fault = interrupt
    with pytest.raises(KeyboardInterrupt):
        cut.drive(first)
    known = first.news()
    plan = plan_of(needed(), before=0.0)
    plan.adopt(Mock(known=known))
    assert plan.spent.wall_seconds == first.spent.wall_seconds > stop - 20
    before, begun = workers(plan), workers(first)
    assert all(begun[turn] - 2 <= count <= begun[turn] for turn, count in before.items())
    machine = Machine(noise=0.01, seed=1).drive(plan)
    assert machine.now <= (1 + OVERRUN) * 300
    assert not proven(known.cells) & {(a.workload, a.arms[0]) for a in machine.actions("prove")}
    counted = {s.cell for s in unpack_samples(known.samples) if s.metric == "compilations_first"}
    again = machine.actions("count")
    assert not counted & {Arm.parse(a.arms[0]).make_cell(a.workload, "cpu") for a in again}
    assert not preliminary(plan)
    few = min(counts(plan, "first_step").values()) < MIN_COLD
    assert not few or stop > 200, "what was cut off late may not fit any more"


def test_cold_metrics_of_a_style_alone_are_beside_the_reference() -> None:
    plan, _ = run(needed(("seed",), ("first_step",), {"haiku": ["transform"]}), 100)
    assert {str(cell.arm) for cell in counts(plan, "first_step")} == {*REFERENCES, BAD}
    assert min(counts(plan, "first_step").values()) >= MIN_COLD


def test_other_styles_follow_shared_ones_in_cold_processes() -> None:
    _, machine = run(needed(("seed",), ("first_step",)), 200)
    arms = [action.arms[0] for action in machine.actions("cold")]
    first = arms.index("equinox/filter_jit")
    assert {*arms[:first]} >= {*REFERENCES, *(f"{entrant}/pure" for entrant in STYLES)}
    assert {*arms[first:]} >= REFERENCES, "whose times may have changed since"


def test_a_library_is_imported_once_for_all_its_styles_and_takes_no_blocks() -> None:
    plan, machine = run(needed(("seed",), ("import", "init")), 200)
    assert not machine.actions()
    cold = {action.arms[0] for action in machine.actions("cold")}
    assert cold == REFERENCES | {f"{e}/pure" for e in STYLES if e != "pure_jax"}
    assert not any(row.missing for row in plan.sides[0].cells.values())


# What comes next.


@pytest.mark.parametrize("budget", [15, 20, 25])
def test_workers_of_a_first_answer_have_as_many_blocks_as_each_other(budget: float) -> None:
    """The first ones' proofs are not taken off their own time alone."""
    plan, _ = run(FEW_AT_SEED, budget, Machine(noise=0.02))
    blocks = {(s.worker, s.block) for s in plan.visits.samples if s.metric == STEP}
    of_worker = Counter(worker for worker, _ in blocks).values()
    assert max(of_worker) - min(of_worker) <= 1


def test_steps_in_a_row_are_measured_where_they_were_asked_for() -> None:
    metrics = (HOST, STEP, "step_pipelined")
    plan, _ = run(needed(("seed",), metrics, FEW), 60, Machine(noise=0.05))
    assert workers(plan).get("seed pipelined", 0) >= MIN_WORKERS


@pytest.mark.parametrize(("noise", "expected"), [(0.005, True), (0.03, False)])
def test_steps_of_a_wide_model_are_measured_if_they_can_be_told(
    noise: float, expected: bool
) -> None:
    """In a busy hour their first answer would say +-13 %, and take the time that others lack."""
    plan, _ = run(needed(("seed", "wide"), (STEP,)), 200, Machine(noise=noise))
    measured = workers(plan).get("wide step", 0)
    assert (measured >= MIN_WORKERS) is expected
    assert expected or (not measured and workers(plan)["seed step"] > 3 * MIN_WORKERS)
    reasons = {row.missing.get(STEP) for row in plan.sides[0].cells.values()}
    assert ("not measured within the budget" in reasons) is not expected


def test_where_nothing_can_be_settled_something_is_measured() -> None:
    plan, machine = run(needed(("seed", "wide"), (STEP,), FEW), 300, Machine(noise=0.5))
    assert machine.now > 250
    assert workers(plan)["seed step"] > 2 * MIN_WORKERS
    assert workers(plan)["wide step"] >= MIN_WORKERS, "too: all count"


@pytest.mark.parametrize(("noise", "most_cold"), [(0.005, 130), (0.02, 60)])
def test_no_kind_of_work_takes_the_time_of_what_people_ask_first(
    noise: float, most_cold: float
) -> None:
    """While steps are not settled, cold processes of further styles of a library wait."""
    _, machine = run(budget=300, machine=Machine(noise=noise))
    seconds: dict[str, float] = defaultdict(float)
    lanes = {"block": 1, "cold": len(LANES), "count": len(LANES), "train": len(LANES)}
    for start, end, action in machine.log:
        if action.do in lanes:
            seconds[action.do] += (end - start) / lanes[action.do]
    assert seconds["block"] > 60
    assert 20 < seconds["cold"] < most_cold
    assert seconds["count"] < 10
    assert seconds["train"] < 40


# Lanes, orders and turns.


def test_nothing_else_runs_while_all_cores_are_timed_and_a_core_has_one_worker() -> None:
    _, machine = usual(300)
    cores = {a.worker: a.cores for *_, a in machine.log if a.do in ("start", "cold")}
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
    assert len({arm for _, arm in proofs}) == len(proofs) == 13, "each arm is proven once"
    assert len({worker for worker, _ in proofs}) == 2, "by two workers at the same time"


@pytest.mark.parametrize("budget", [20, 80])
def test_a_rest_that_fits_no_visit_is_measured_in_the_last_one(budget: float) -> None:
    plan, machine = ab(FEW_AT_SEED, budget, Machine(noise=0.02), seed=1)
    assert plan.agenda.end - max(end for _, end, action in machine.log if action.do == "block") < 2


@pytest.mark.parametrize("budget", [40, 60])
def test_a_last_worker_leaves_the_rest_to_those_that_are_missing(budget: float) -> None:
    plan, _ = run(AT_SEED, budget, Machine(noise=0.01), seed=1, lanes=[(0,)])
    assert workers(plan) == {"seed step": MIN_WORKERS}


def test_a_first_visit_that_comes_to_nothing_is_tried_again_in_a_short_budget() -> None:
    plan, _ = run(AT_SEED, 25, Machine(dies("block", times=len(LANES)), noise=0.01), seed=1)
    assert all(cell in counts(plan, STEP) for cell in AT_SEED)


class Slowing(Machine):
    """A machine on which each cold process takes longer than the one before."""

    def seconds(self, action: Action) -> float:
        slower = len(self.actions("cold")) / 4 if action.do == "cold" else 0
        return super().seconds(action) * (1 + slower)


def test_cold_processes_that_take_longer_and_longer_begin_in_time() -> None:
    plan, machine = run(FEW_WITH_COLD, 120, Slowing(noise=0.01))
    begun = [start for start, _, action in machine.log if action.do == "cold"]
    assert 0.9 * plan.agenda.end < max(begun) <= plan.agenda.end + OVERRUN * 120


def test_numbers_that_were_given_are_kept() -> None:
    """In turns, so that kinds of turns do not differ by the hour; the budget does not cut them."""
    wanted = needed(("toy", "seed"), (STEP, "host_cost", "first_step"), FEW)
    given: Any = {"processes": 4, "blocks": 2, "rounds": 5, "cold_samples": 3}
    plan, machine = run(wanted, 10, **given)
    assert {*workers(plan).values()} == {4}
    order = [(a.workload, a.kind) for a in machine.actions()]
    assert len({*order[: 3 * 4]}) == 3, "two workers of each, then two more"
    rows = [s for s in plan.visits.samples if (s.metric, s.cell) == (STEP, GOOD_CELL)]
    assert len({s.worker for s in rows}) == 4
    assert len({s.block for s in rows}) == len(rows) == 4 * 2
    assert {s.calls for s in rows} == {2 * 5}
    assert {*counts(plan, "first_step").values()} == {3}


def test_what_was_not_given_follows() -> None:
    """A number of blocks means one worker and nothing else; the rest is up to the budget."""
    plan, _ = run(FEW_WITH_COLD, 200, blocks=2)
    assert workers(plan) == {"seed step": 1}
    assert not counts(plan, "first_step")
    plan, machine = run(FEW_WITH_COLD, 200, processes=2)
    assert workers(plan) == {"seed step": 2}
    assert counts(plan, "first_step")[GOOD_CELL] >= MIN_COLD
    assert machine.now <= (1 + OVERRUN) * 200


def test_blocks_have_the_usual_rounds_after_a_first_answer() -> None:
    late: list[int] = []
    for budget in range(60, 130, 7):
        _, machine = run(AT_SEED, budget, Machine(noise=0.04))
        blocks = machine.actions(kind=STEP)
        workers = list(dict.fromkeys(action.worker for action in blocks))
        begun_late = workers[MIN_WORKERS + len(LANES) - 1 :]
        late += [action.rounds for action in blocks if action.worker in begun_late]
    assert min(late) >= TURNS[STEP].rounds, "all blocks count alike"


STAGES_AT_SEED = needed(("seed",), ("trace", "compile"), FEW)


def test_stages_are_timed_in_workers_that_do_nothing_else() -> None:
    plan, machine = run(STAGES_AT_SEED, 60, rounds=5)
    measuring = {action.worker for action in machine.actions(kind=STAGES)}
    assert len(measuring) == workers(plan)["seed stages"] >= MIN_WORKERS
    of_worker = [a for *_, a in machine.log if a.worker in measuring]
    assert {a.do for a in of_worker} == {"start", "load", "block", "close"}
    blocks = machine.actions(kind=STAGES)
    assert {(a.rounds, frozenset(a.arms)) for a in blocks} == {(1, frozenset(FEW_ARMS))}
    assert {a.cores for a in blocks} == set(LANES)
    loads = {a.worker: a.kind for a in machine.actions("load")}
    assert {worker for worker, kind in loads.items() if kind == STAGES} == measuring
    ends = {a.arms[0]: end for _, end, a in machine.log if a.do == "prove"}
    first = min(start for start, _, a in machine.log if a.worker in measuring)
    assert {*ends} == FEW_ARMS
    assert max(ends.values()) <= first, "what takes part is proven before"
    assert {row.program for row in plan.sides[0].cells.values()} == {"a"}
    assert all(a.programs == dict.fromkeys(FEW_ARMS, "a") for a in blocks)
    missing = [row.missing.get("compile") for row in plan.sides[0].cells.values()]
    assert missing == [None] * len(missing), "one arm of a program compiles for all"


def test_a_program_that_is_not_jax_s_has_no_stages() -> None:
    plan, machine = run(STAGES_AT_SEED, 100, Machine(foreign=BAD))
    blocks = machine.actions(kind=STAGES)
    assert blocks
    assert not any(BAD in action.arms for action in blocks)
    assert GOOD_CELL in counts(plan, "trace")
    assert BAD_CELL not in counts(plan, "compile")
    reasons = plan.sides[0].cells[BAD_CELL].missing
    assert reasons["compile"] == reasons["trace"] == NOT_JAX
    assert not failed(plan)


def test_pairs_take_their_stages_by_turns() -> None:
    plan, machine = ab(STAGES_AT_SEED, 60)
    [pairs] = workers(plan).values()
    assert pairs > 2
    rows = [sample for sample in plan.visits.samples if sample.metric == "compile"]
    sides = {name: [s for s in rows if s.environment == name] for name in BOTH}
    pairs_of = [{(s.worker, s.block, s.cell) for s in ours} for ours in sides.values()]
    assert pairs_of[0] == pairs_of[1] != set()
    assert not any(action.programs for action in machine.actions(kind=STAGES)), "all compile"
    alone = needed(("seed",), ("compile",), {"haiku": ["transform"]})
    _, machine = ab(alone, 60)
    blocks = machine.actions(kind=STAGES)
    assert {action.arms for action in blocks[2:]} == {(BAD,)}, "and nothing that nobody asked for"


def test_enough_is_asked_between_visits() -> None:
    plan, machine = run(AT_SEED, 600, enough=lambda samples: len(samples) > 50)
    assert len([s for s in plan.visits.samples if s.metric == STEP]) > 50
    assert machine.now < 120


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
        arms[action.environment, action.backend] |= {*action.arms}
        assert action.backend == "cpu" or action.cores == ()
    assert arms == {
        ("", "cpu"): FEW_ARMS,
        ("", "gpu"): FEW_ARMS,
        ("keras", "cpu"): REFERENCES | {"keras/pure"},
    }
    cold = {(a.environment, *a.arms) for a in machine.actions("cold")}
    assert {name for name, arm in cold if arm == str(BASELINE)} == {""}, "the first one's is all's"
    assert ("keras", "keras/pure") in cold
    assert not preliminary(plan)


def test_cells_of_two_backends_share_the_programs_of_their_own() -> None:
    wanted = [needed(("seed",), (STEP, "compile"), FEW, backend=name) for name in ("cpu", "gpu")]
    plan, _ = run([(side(cells),) for cells in wanted], 150)
    assert not any(row.missing for row in plan.agenda.rows)


# Two environments by turns.

BOTH = ("base", "new")


def ab(
    wanted: Any = FEW_AT_SEED, budget: float = 120, machine: Machine | None = None, **more: Any
) -> tuple[Plan, Machine]:
    sides = tuple(side(wanted, name, control=False) for name in BOTH)
    return run([sides], budget, machine, base="base", cores="one", before=0.0, **more)


def test_pairs_share_blocks_and_a_core() -> None:
    plan, machine = ab()
    blocks = machine.actions()
    for action in blocks:
        assert {action.environment, action.partner_environment} == {*BOTH}
    firsts = Counter(action.environment for action in blocks)
    assert min(firsts[name] for name in BOTH) > 0.2 * len(blocks), "in random order"
    assert {a.cores for a in machine.actions()} == set(LANES)
    by_block: dict[int, set[tuple[str, int]]] = defaultdict(set)
    for sample in plan.visits.samples:
        if sample.metric == STEP:
            by_block[sample.block].add((sample.environment, sample.worker))
    assert len(by_block) == len(blocks)
    assert all({name for name, _ in two} == {*BOTH} for two in by_block.values())
    assert all(len({worker for _, worker in two}) == 1 for two in by_block.values())


@pytest.mark.parametrize("slowness", [1.0, 2.0])
@pytest.mark.parametrize("budget", [60, 120, 900])
def test_an_ab_keeps_its_budget(budget: float, slowness: float) -> None:
    wanted = needed(("toy", "seed"), (STEP, "host_cost", "first_step"), FEW)
    plan, machine = ab(wanted, budget, Machine(slowness=slowness))
    assert machine.now <= (1 + OVERRUN) * budget
    for name in BOTH:
        assert {*counts(plan, STEP, name)} == {*wanted}
        assert min(counts(plan, "first_step", name).values(), default=MIN_COLD) >= MIN_COLD
    assert slowness > 1 or min(workers(plan).values()) >= 2


def test_an_ab_of_many_arms_on_a_slow_machine_counts_on_their_proofs() -> None:
    many = needed(("toy", "seed"), (STEP, "host_cost"))
    lanes = [(core,) for core in range(8)]
    plan, machine = ab(many, 60, Machine(slowness=2.0, noise=0.02), seed=1, lanes=lanes)
    assert machine.now <= (1 + OVERRUN) * 60
    assert workers(plan)["seed step"] == 8


def test_a_sweep_of_fewer_cells_than_lanes_needs_a_whole_process() -> None:
    """Otherwise it is chosen where none fits any more, and nothing begins for ever."""
    plan, _ = ab(needed(("seed",), ("first_step",), {"haiku": ["pure"]}), 90)
    choice: Any = plan.choice
    [job] = [job for job in choice.cold_jobs() if len(job.work.pairs) < len(LANES)]
    assert job.least >= plan.visits.costs.cold(plan.agenda.groups[0]) > job.seconds


def test_cold_metrics_take_what_pairs_leave() -> None:
    wanted = needed(("toy", "seed", "wide"), (STEP, "first_step"), FEW)
    plan, machine = ab(wanted, 240, processes=2)
    assert machine.now > 200
    assert {cell.workload for cell in counts(plan, "first_step", "new")} == {"toy", "seed", "wide"}


def test_blocks_take_a_second_and_steps_are_made_anew() -> None:
    """Where three times as long was measured as making them takes; a given number is kept."""
    _, machine = ab(needed(("seed",), (STEP,), {"haiku": ["transform"]}), 90)
    times = [(end - start, action) for start, end, action in machine.log if action.do == "block"]
    assert 0.7 < median(took for took, _ in times) < 2
    visits: dict[int, list[Action]] = defaultdict(list)
    for _, action in times:
        visits[action.worker + action.partner].append(action)
    assert not any(blocks[0].anew for blocks in visits.values()), "they were made just before"
    share = [sum(action.anew for action in blocks) / len(blocks) for blocks in visits.values()]
    assert 0.2 < median(share) < 0.8
    _, machine = ab(FEW_AT_SEED, 9, processes=1, blocks=3, rounds=2)
    assert {action.rounds for action in machine.actions()} == {2}


def test_a_baseline_that_was_not_asked_for_is_in_one_block_of_four() -> None:
    """It is there to compare results with; a quarter of the samples would make all others vague."""
    alone = needed(("seed",), (STEP,), {"haiku": ["transform"]})
    plan, machine = ab(alone, 9, processes=2, blocks=5)
    assert set(counts(plan, STEP, "new")) == {BAD_CELL}
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


DAYS = [f"2026-{month:02}-01" for month in range(1, 10)]


def history(budget: float, machine: Machine, wanted: Any = FEW_WITH_COLD) -> tuple[Plan, Machine]:
    reference = side(wanted, "reference", control=False)
    groups = [(side(wanted, day, control=False), reference) for day in DAYS]
    return run(groups, budget, machine, base="reference", cores="one")


@pytest.mark.parametrize("budget", [300, 900, 1800])
def test_a_history_visits_each_day_as_often(budget: float) -> None:
    plan, machine = history(budget, Machine())
    assert machine.now <= (1 + OVERRUN) * budget
    visits = [
        plan.agenda.worker_counts[group, turn]
        for turn, groups in plan.agenda.find_open_turns()
        for group in groups
    ]
    assert max(visits) - min(visits) <= 1
    assert min(visits) >= (2 if budget >= 900 else 0)
    order = list(dict.fromkeys(a.environment for a in machine.actions("start")))
    assert sorted(order[: len(DAYS) + 1]) == [*DAYS, "reference"]
    assert order[: len(DAYS)] != DAYS, "in random order"
    cold = [counts(plan, "first_step", day).get(GOOD_CELL, 0) for day in DAYS]
    assert max(cold) == min(cold)


@pytest.mark.parametrize(("budget", "cells"), [(100, 1), (300, 3)])
def test_cold_metrics_of_a_history_are_of_as_many_cells_as_fit_on_all_days(
    budget: float, cells: int
) -> None:
    plan, machine = history(budget, Machine(), needed(("seed",), ("first_step",), FEW))
    assert machine.now <= (1 + OVERRUN) * budget
    days = [counts(plan, "first_step", day) for day in DAYS]
    assert [len(day) for day in days] == [cells] * len(DAYS)
    assert min(min(day.values()) for day in days) >= 2
    loads = Counter(action.environment for action in machine.actions("load"))
    assert max(loads.values()) <= 3, "each side is proven once, and counted"
    ends = Counter({"load": 1, "close": -1})
    alive = accumulate(ends[action.do] for *_, action in machine.log)
    assert max(alive) <= len(LANES)


def test_a_long_history_counts_on_all_days() -> None:
    _, machine = history(250, Machine(noise=0.05))
    assert {action.environment for action in machine.actions("count")} == {*DAYS, "reference"}


def test_a_day_that_fails_is_a_gap() -> None:
    plan, _ = history(900, Machine(dies("prove", str(BASELINE), times=99, environment=DAYS[1])))
    of_day = {state.environment: state for state in plan.sides}
    assert all(row.failure for row in of_day[DAYS[1]].cells.values())
    assert not any(row.failure for row in of_day[DAYS[2]].cells.values())
    assert not counts(plan, STEP, DAYS[1])
    assert counts(plan, STEP, DAYS[2])
    once, _ = history(900, Machine(dies("block", environment=DAYS[1])))
    assert not failed(once)
    assert counts(once, STEP, DAYS[1])


# Verdicts.


def different(plan: Plan) -> set[str]:
    """Return the arms whose step is told apart from what it is compared with."""
    states = [row for state in plan.sides for row in state.cells.values()]
    rows = make_estimates(plan.visits.samples, states, plan.options, plan.agenda.base)
    return {str(row.cell.arm) for row in rows if row.form == "ratio" and row.differs}


@pytest.mark.parametrize("two", [False, True])
def test_a_planted_difference_is_found_where_it_is(two: bool) -> None:
    machine = Machine(noise=0.01, effects={("new" if two else "", BAD): 1.03})
    plan, _ = ab(machine=machine) if two else run(FEW_AT_SEED, 120, machine, cores="one")
    assert different(plan) == {BAD}


def test_what_is_the_same_is_seldom_told_apart() -> None:
    """In 5 % of A/Bs at most: more than 6 of 40 have odds of 0.3 %."""
    plans = (ab(budget=60, machine=Machine(noise=0.01, seed=i), seed=i)[0] for i in range(40))
    assert sum(bool(different(plan)) for plan in plans) <= 6


# Deaths and failures.

DOINGS: tuple[Do, ...] = ("start", "load", "prove", "open", "block", "count", "train", "cold")


@pytest.mark.parametrize(
    ("do", "arm"),
    [*((do, "") for do in DOINGS), *((do, str(BASELINE)) for do in ("prove", "block"))],
)
def test_one_death_costs_no_cell(do: Do, arm: str) -> None:
    wanted = needed(styles=FEW)
    plan, machine = run(wanted, 200, Machine(dies(do, arm)))
    assert not failed(plan)
    blocks = {(s.worker, s.block) for s in plan.visits.samples if s.metric in (STEP, "host_cost")}
    others = [action for action in machine.actions() if action.kind != STAGES]
    assert len(blocks) == len(others) - (do == "block"), "no other block is lost"
    assert all(cell in counts(plan, STEP) for cell in wanted if cell.workload == "seed")
    assert len(plan.sides[0].notes) == 1
    two, _ = ab(FEW_WITH_COLD, 200, Machine(dies(do, arm, environment="new")))
    assert not failed(two)
    assert all(counts(two, STEP, side)[BAD_CELL] > 3 for side in BOTH)


@pytest.mark.parametrize("do", ["prove", "open", "block"])
def test_two_deaths_in_a_row_fail_that_arm_alone(do: Do) -> None:
    plan, _ = run(FEW_AT_SEED, machine=Machine(dies(do, BAD, times=2)))
    assert failed(plan) == {BAD}
    result = plan.sides[0].cells[BAD_CELL]
    assert result.failure == "worker failed (exit status -9), twice in a row"
    assert result.stderr == "last words"
    assert counts(plan, STEP)[GOOD_CELL] > 3
    plan, _ = ab(machine=Machine(dies(do, BAD, times=99, environment="new")))
    [base], [new] = ([s for s in plan.sides if s.environment == name] for name in BOTH)
    assert [cell for cell in new.cells if new.cells[cell].failure] == [BAD_CELL]
    assert not any(row.failure for row in base.cells.values())
    assert counts(plan, STEP, "base")[GOOD_CELL] > 3


def test_an_arm_that_dies_in_each_worker_fails_whatever_its_first_blocks_were() -> None:
    def third_block(action: Action) -> Any:
        blocks[action.worker] += action.do == "block"
        return dies("block", BAD)(action) if blocks[action.worker] == 3 else None

    blocks: Counter[int] = Counter()
    plan, _ = run(FEW_AT_SEED, machine=Machine(third_block))
    assert failed(plan) == {BAD}
    assert counts(plan, STEP)[GOOD_CELL] > 3


def test_deaths_with_a_success_in_between_fail_nothing() -> None:
    deaths = iter([True, False] * 1000)

    def every_other(action: Action) -> Any:
        if action.do != "block" or not next(deaths):
            return None
        return dies("block", BAD)(action)

    plan, _ = run(FEW_AT_SEED, machine=Machine(every_other), blocks=1, processes=6)
    assert len(plan.sides[0].notes) > 3
    assert not failed(plan)


def test_cold_processes_that_die_cost_their_own_samples() -> None:
    plan, _ = run(FEW_WITH_COLD, 300, Machine(dies("cold", str(BASELINE))))
    assert min(counts(plan, "first_step").values()) >= MIN_COLD
    plan, machine = run(FEW_WITH_COLD, 300, Machine(dies("cold", BAD, times=99)))
    assert not failed(plan)
    assert {*counts(plan, "first_step")} == {*FEW_WITH_COLD, CONTROL.make_cell("seed", "cpu")} - {
        BAD_CELL
    }
    died = sum(BAD in action.arms for action in machine.actions("cold"))
    assert COLD_DEATHS <= died < COLD_DEATHS + len(LANES), "none begins after that"
    plan, machine = run(FEW_WITH_COLD, 300, Machine(dies("cold", times=10_000)))
    assert len(machine.actions("cold")) < 2 * COLD_DEATHS * len(FEW_ARMS), "and the run ends"


@pytest.mark.parametrize("do", ["load", "block"])
@pytest.mark.parametrize("two", [False, True])
def test_workers_that_always_die_are_given_up(do: Do, two: bool) -> None:
    machine = Machine(dies(do, times=10_000, environment="new" if two else None))
    plan, machine = ab(machine=machine) if two else run(budget=100, machine=machine)
    assert len(machine.actions("start")) < 30
    [state] = [s for s in plan.sides if s.environment == ("new" if two else "")]
    assert do == "block" or state.given_up
    assert do == "block" or all(row.failure and "-9" in row.failure for row in state.cells.values())
    assert not counts(plan, STEP)


@pytest.mark.parametrize(
    ("do", "arm", "workload", "expected"),
    [
        ("block", BAD, "seed", {(BAD, "seed")}),
        ("load", BAD, "", {(BAD, "toy"), (BAD, "seed")}),
        ("prove", BAD, "toy", {(BAD, "toy")}),
        ("train", BAD, "seed", {(BAD, "seed")}),
        ("prove", str(BASELINE), "toy", {(arm, "toy") for arm in FEW_ARMS}),
    ],
)
def test_an_arm_that_fails_costs_its_own_cells(
    do: Do, arm: str, workload: str, expected: set[tuple[str, str]]
) -> None:
    """Of a baseline, all of its workload: there is nothing to compare with."""

    def fault(action: Action) -> str | None:
        same = (action.do, action.workload) == (do, workload)
        return arm if same and arm in action.arms else None

    plan, _ = run(needed(styles=FEW), 60, Machine(fault), processes=1, blocks=2)
    cells = plan.sides[0].cells
    failures = {(str(c.arm), c.workload) for c, row in cells.items() if row.failure}
    assert failures == expected
    assert counts(plan, STEP)[GOOD_CELL] == 2


def test_without_a_baseline_nothing_begins() -> None:
    groups = [(side(needed(), problems={"pure_jax": "import failed"}),)]
    plan, machine = run(groups, 60)
    assert not machine.log
    for row in plan.sides[0].cells.values():
        assert row.cell.is_control or "import failed" in str(row.failure)
