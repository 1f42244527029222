"""Doubts: how far a number is from being settled, and what more workers would do about that."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from bench.cells import BASELINE, Cell
from bench.engine.doubts import COLD_TARGET, HOST_SECONDS, WIDEST, Question, find_target_widths
from bench.estimates import MIN_WORKERS, Estimate
from bench.metrics import COLD, METRICS, STEP
from tests.engine.simulated import FEW, Machine, needed, plan_of

MARGIN = math.log(1.02)
HAIKU, WIDE = (Cell("haiku", "pure", workload, "cpu") for workload in ("seed", "wide"))


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
    row = Estimate(cell=HAIKU, metric=metric, form=form, value=value)
    assert find_target_widths(row, 0.02) == pytest.approx((enough, settling))


def test_more_workers_remove_doubt_by_their_root_after_a_first_answer() -> None:
    settled = Question(weight=2, doubt=4, excess=0.9, workers=4, least=MIN_WORKERS)
    assert settled.gain(12) == 8 * (1 - math.sqrt(4 / 16))
    assert settled._replace(workers=1).gain(1) == 8 * (1 - 1 / 2)
    assert not settled.is_open
    assert settled._replace(excess=1.1).is_open
    assert settled._replace(workers=1).is_open


@dataclass
class Asked:
    """What is asked of a run of two arms at `seed` alone."""

    noise: float
    metrics: tuple[str, ...] = (STEP,)

    def __post_init__(self) -> None:
        plan = plan_of(needed(("seed",), self.metrics, FEW), 60)
        Machine(noise=self.noise).drive(plan)
        self.doubts = plan.choice.doubts

    def question(self, cell: Cell, metric: str = STEP, rounds: float = 100) -> Question:
        return self.doubts.make_question(METRICS[metric], cell, "", 3.0, MIN_WORKERS, rounds)


def test_a_measured_number_is_as_doubtful_as_its_interval_is_wide() -> None:
    quiet, busy = (Asked(noise).question(HAIKU) for noise in (0.002, 0.2))
    assert quiet.excess < 1 < busy.excess
    assert quiet.doubt < busy.doubt == WIDEST
    assert quiet.workers >= MIN_WORKERS
    assert quiet.weight == 3 * METRICS[STEP].weight


def test_an_unmeasured_number_is_foreseen_from_other_workloads() -> None:
    asked = Asked(0.05)
    one, four = (asked.question(WIDE, rounds=rounds) for rounds in (100, 400))
    assert (one.workers, one.doubt) == (0, WIDEST)
    assert one.excess == pytest.approx(2 * four.excess)
    assert Asked(0.1).question(WIDE).excess == pytest.approx(2 * one.excess, rel=0.5)
    assert asked.question(WIDE, "step_pipelined").excess == 0, "nothing like it was measured"
    cold = Asked(0.1, COLD)
    assert cold.question(WIDE, "first_step", rounds=1).excess > 0


def test_what_is_compared_with_nothing_needs_one_number() -> None:
    asked = Asked(0.05)
    level, unknown = (asked.question(BASELINE.make_cell(w, "cpu")) for w in ("seed", "wide"))
    assert (level.doubt, level.excess) == (1, 0)
    assert (unknown.doubt, unknown.excess) == (1, math.inf)
