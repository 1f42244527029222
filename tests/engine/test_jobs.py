"""What the next job is chosen by: costs that are guessed or measured, and questions."""

import math
from typing import Any

import pytest

from bench.cells import BASELINE, Arm, Cell
from bench.engine.costs import FEW_ROUNDS, OPEN_SECONDS, PROVE_SECONDS, TURNS, Costs, TurnKind
from bench.engine.jobs import WEIGHTS, ColdSweeps, Job, choose_job
from bench.engine.questions import COLD_TARGET, HOST_SECONDS, Question, find_target_widths
from bench.estimates import MIN_WORKERS, Estimate
from bench.metrics import STAGES, STEP
from bench.worker.protocol import FINAL_STEPS, KINDS, OWN_SEEDS
from tests.engine.simulated import FEW, needed, side

ARMS = [str(BASELINE), "haiku/transform"]
SEED, WIDE = TurnKind("seed", STEP), TurnKind("wide", STEP)
BASE, NEW = (side(needed(("seed",), (STEP,), FEW), name, control=False) for name in ("base", "new"))
MARGIN = math.log(1.02)


def test_each_kind_of_turns_has_traits_and_a_weight() -> None:
    assert {*TURNS} == {*KINDS} < {*WEIGHTS}
    assert (SEED.rounds, WIDE.rounds) == (TURNS[STEP].rounds, FEW_ROUNDS), "there, a round is long"
    assert WIDE.guess > SEED.guess


def test_sides_are_opened_at_the_same_time_and_proven_in_lanes() -> None:
    costs, pair, cells = Costs(), (BASE, NEW), [*BASE.cells]
    costs.load_seconds[NEW] = 9.0
    assert costs.opening(pair, "seed", STEP) == pytest.approx(9 + len(cells) * OPEN_SECONDS)
    costs.note_proof("seed", 10 * PROVE_SECONDS, is_first=False)
    opening = costs.opening(pair, "seed", STEP)
    assert opening == pytest.approx(9 + 10 * len(cells) * OPEN_SECONDS), "as its proofs"
    costs.open_seconds[NEW, cells[0]] = 1.0
    assert costs.opening(pair, "seed", STEP) == 9 + len(cells) * 1.0, "as others"
    assert costs.opening(pair, "seed", STEP, [str(cells[1].arm)]) == 9 + 1.0
    assert costs.opening(pair, "seed", STAGES) == 9, "stages open none"
    pairs = [(pair, cell) for cell in cells]
    proofs = 2 * len(cells) * costs.proof("seed")
    assert costs.proving(pairs, 1) == pytest.approx(2 * 9 + proofs)
    assert costs.proving(pairs, 2) == pytest.approx(9 + proofs / 2)


def test_a_block_that_was_never_measured_is_as_slow_as_others() -> None:
    costs = Costs()
    assert costs.block((BASE,), SEED, ARMS) == 2 * SEED.guess
    costs.turn_seconds[BASE, SEED, ARMS[0]] = 3 * SEED.guess
    assert costs.block((BASE,), SEED, ARMS) == pytest.approx(6 * SEED.guess)
    assert costs.block((BASE, NEW), SEED, ARMS) == pytest.approx(12 * SEED.guess), "by turns"
    assert costs.block((BASE,), WIDE, ARMS[:1]) == pytest.approx(3 * WIDE.guess)
    shared, own = (Arm("haiku", style).make_cell("seed", "cpu") for style in ("pure", "transform"))
    calls = costs.training(BASE, [shared]) / costs.training(BASE, [own])
    assert calls == pytest.approx(1 + OWN_SEEDS), "from its library's own initialisers, too"
    assert costs.training(BASE, [own]) < 3 * SEED.guess * FINAL_STEPS


@pytest.mark.parametrize(
    ("metric", "form", "value", "enough", "settling"),
    [
        (STEP, "ratio", 1.0, MARGIN / 3, MARGIN),
        (STEP, "ratio", 1.02, 0.005, 0.005),  # on the margin's end
        (STEP, "ratio", 1.5, (math.log(1.5) - MARGIN) / 3, math.log(1.5) - MARGIN),
        ("first_step", "ratio", 1.0, COLD_TARGET, COLD_TARGET),
        ("compile", "ratio", 1.0, 0.03, 0.03),
        ("host_cost", "added", 1e-5, HOST_SECONDS, HOST_SECONDS),
        ("host_cost", "added", -1e-3, 2e-5, 2e-5),
    ],
)
def test_how_narrow_an_interval_has_to_be(
    metric: str, form: Any, value: float, enough: float, settling: float
) -> None:
    cell = Cell("haiku", "pure", "seed", "cpu")
    row = Estimate(cell=cell, metric=metric, form=form, value=value)
    assert find_target_widths(row, 0.02) == pytest.approx((enough, settling))


def test_more_workers_remove_doubt_by_their_root_after_a_first_answer() -> None:
    settled = Question(weight=2, doubt=4, excess=0.9, workers=4, workers_needed=MIN_WORKERS)
    assert settled.gain(12) == 8 * (1 - math.sqrt(4 / 16))
    assert settled._replace(workers=1).gain(1) == 8 * (1 - 1 / 2)
    assert not settled.is_open
    assert settled._replace(excess=1.1).is_open
    assert settled._replace(workers=1).is_open


def job(
    name: str,
    gain: float,
    excess: float,
    weight: float = 1.0,
    workers: int = 4,
    cost: float = 10.0,
) -> Job:
    """Return ten seconds that give a number with four workers as many again."""
    question = Question(weight, gain / (1 - 0.5**0.5) / weight, excess, workers, MIN_WORKERS)
    about: dict[str, Any] = {"questions": [question], "more": 4, "seconds_needed": 10}
    return ColdSweeps(workload=name, pairs=[], sweeps=1, cost=cost, **about)


SEED_JOB, HOPELESS = job("seed", 1, 2.9, weight=3), job("wide", 5, 3.1, weight=0.75)
FIRST_HOPELESS = job("wide", 5, 20.0, weight=0.75, workers=0)


@pytest.mark.parametrize(
    ("one", "other", "left", "chosen"),
    [
        (job("small", 1, 1.5), job("large", 2, 1.5), 30, "large"),
        (job("small", 1, 1.5), job("large", 2, 1.5, cost=30), 30, "small"),
        (job("done", 0, 0.0), job("done, too", 0, 0.0), 30, None),
        # Thirty seconds halve an interval, so an excess of three leaves 1.5
        (SEED_JOB, HOPELESS, 30, "seed"),
        (SEED_JOB, HOPELESS, 60, "wide"),  # it can be settled, now
        (job("seed", 1, 3.1, weight=3), HOPELESS, 30, "wide"),  # none can: all count
        (job("seed", 1, 0.9, weight=3), HOPELESS, 30, "wide"),  # nothing else is open
        (job("cold", 1, 2.9, weight=0.3), HOPELESS, 30, "wide"),  # it matters less
        (SEED_JOB, job("wide", 5, 0.0, weight=0.75, workers=2), 30, "wide"),  # it was begun
        # A first answer that no time settles: ten seconds have to be a sixth of what is left
        (SEED_JOB, FIRST_HOPELESS, 59, "seed"),
        (SEED_JOB, FIRST_HOPELESS, 60, "wide"),
    ],
)
def test_the_largest_gain_for_each_second_comes_next_if_it_can_be_settled(
    one: Job, other: Job, left: float, chosen: str | None
) -> None:
    best: Any = choose_job([one, other], left)
    assert (best and best.workload) == chosen
