"""Verdicts: from intervals, in logarithms and in seconds, and from proofs."""

import math

import pytest

from bench.cells import Cell
from bench.estimates import PROGRAM, Verdict
from bench.metrics import HOST
from bench.stats.verdicts import (
    GROWTH,
    find_impossible,
    find_unlike_skeletons,
    make_bounds,
    settle_by_program,
)
from tests.estimates import HAIKU, PLAIN, added, amount, ratio_within

MARGIN = 0.02


@pytest.mark.parametrize(
    ("middle", "half", "result"),
    [
        (0.010, 0.005, Verdict.EQUIVALENT),  # leaves out 1, and is inside
        (0.030, 0.005, Verdict.SLOWER),
        (-0.03, 0.005, Verdict.FASTER),
        (0.010, 0.015, Verdict.INCONCLUSIVE),
        (0.000, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_an_interval_has_one_verdict_in_logarithms_and_in_seconds(
    middle: float, half: float, result: Verdict
) -> None:
    low, high = middle - half, middle + half
    assert make_bounds(low, high, MARGIN)["verdict"] is result
    low, high = (50e-6 * math.expm1(end) if end < math.inf else end for end in (low, high))
    assert make_bounds(low, high, MARGIN, level=50e-6)["verdict"] is result


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        (0.0, 0.99e-6, Verdict.EQUIVALENT),  # 2 % of 50 µs
        (0.1e-6, 1.01e-6, Verdict.SLOWER),
        (-0.98e-6, 0.0, Verdict.EQUIVALENT),  # 50 µs / 1.02 is as far as 50 µs * 1.02
        (-0.99e-6, -0.1e-6, Verdict.FASTER),
        (-math.inf, 0.5e-6, Verdict.INCONCLUSIVE),
    ],
)
def test_the_margin_of_added_seconds_is_a_fraction_of_the_call(
    low: float, high: float, result: Verdict
) -> None:
    assert make_bounds(low, high, MARGIN, level=50e-6)["verdict"] is result


def test_the_fields_of_an_interval() -> None:
    slower = make_bounds(math.log(1.1), math.log(1.2), MARGIN)
    ends = {"low": pytest.approx(1.1), "high": pytest.approx(1.2)}
    assert slower == ends | {"verdict": Verdict.SLOWER}
    added = make_bounds(1e-6, 3e-6, MARGIN, level=50e-6)
    assert (added["low"], added["high"], added["verdict"]) == (1e-6, 3e-6, Verdict.SLOWER)
    for level in (None, 50e-6):
        unknown = make_bounds(-math.inf, math.inf, MARGIN, level)
        assert (unknown["low"], unknown["high"]) == (None, None)
    assert make_bounds(700.0, 800.0, MARGIN)["high"] is None, "too large for a float"


@pytest.mark.parametrize(
    ("host", "value", "before", "same", "settled"),
    [
        (2e-6, 1.01, Verdict.INCONCLUSIVE, True, True),
        (2e-6, 1.01, Verdict.SLOWER, True, False),  # a verdict of timing stays
        (2e-6, 1.01, Verdict.INCONCLUSIVE, False, False),  # another program
        (None, 1.01, Verdict.INCONCLUSIVE, True, False),  # no host cost
        (2e-5, 1.01, Verdict.INCONCLUSIVE, True, False),  # the host costs more than the margin
        (2e-6, 1.20, Verdict.INCONCLUSIVE, True, False),  # timing contradicts
    ],
)
def test_what_a_proof_settles(
    host: float | None, value: float, before: Verdict, same: bool, settled: bool
) -> None:
    toy = HAIKU.arm.make_cell("toy", "cpu")
    rows = [amount(1e-3, cell=PLAIN), ratio_within(value, 0.05, verdict=before)]
    if host is not None:
        rows.append(added(0.0, -host / 2, host, cell=toy, metric=HOST))
    _, row, *_ = settle_by_program(rows, [HAIKU] if same else [], 0.02)
    assert row.verdict is (Verdict.EQUIVALENT if settled else before)
    assert (row.settled_by == PROGRAM) is settled
    assert row.bound == (pytest.approx(GROWTH * host / 1e-3) if same and host else None)


@pytest.mark.parametrize(
    ("value", "call", "impossible"),
    [(0.8, 5e-5, True), (0.8, 0.0, True), (0.8, 1e-4, False), (0.99, 1e-9, False)],
)
def test_a_program_takes_no_less_than_its_time(value: float, call: float, impossible: bool) -> None:
    toy = PLAIN._replace(workload="toy")
    rows = [amount(1e-3, cell=PLAIN), ratio_within(value, 0.001)]
    if call:
        rows.append(amount(call, cell=toy, metric=HOST))
    wrong = find_impossible(rows, {HAIKU})
    words = "it takes 80 % of the baseline's time for the same program: it cannot have run it"
    assert all(words in why for why in wrong.values())
    assert {*wrong} == ({HAIKU} if impossible else set())


def test_a_skeleton_that_does_other_work_than_its_step_has_no_number() -> None:
    skeleton, real = (HAIKU._replace(workload=name) for name in ("mine.skeleton", "mine"))

    def count(light: float, heavy: float) -> dict[tuple[str, Cell], str]:
        pairs = (skeleton, light), (real, heavy)
        return find_unlike_skeletons(
            amount(n, cell=cell, metric="python_starts") for cell, n in pairs
        )

    assert count(1000, 1009) == count(1000, 1000) == {}
    [why] = count(1000, 1020).values()
    assert why.startswith("a call of its skeleton starts 1000 functions of Python, and one of its")
    assert find_unlike_skeletons([amount(5.0, cell=skeleton, metric="python_starts")]) == {}
