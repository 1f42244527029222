"""Costs: guesses, until something like it was measured."""

import pytest

from bench.cells import BASELINE, Arm
from bench.engine.choice import WEIGHTS
from bench.engine.costs import (
    COLD_SECONDS,
    FEW_ROUNDS,
    LOAD_SECONDS,
    OPEN_SECONDS,
    PROVE_SECONDS,
    TURNS,
    Costs,
    TurnKind,
)
from bench.metrics import STAGES, STEP
from bench.samples import Proof
from bench.worker.protocol import FINAL_STEPS, KINDS, OWN_SEEDS
from tests.engine.simulated import FEW, needed, side

ARMS = [str(BASELINE), "haiku/transform"]
SEED, WIDE = TurnKind("seed", STEP), TurnKind("wide", STEP)
BASE, NEW = (side(needed(("seed",), (STEP,), FEW), name, control=False) for name in ("base", "new"))
CELLS = [*BASE.cells]
PAIR = BASE, NEW


def test_each_kind_of_turns_has_traits_and_a_weight() -> None:
    assert {*TURNS} == {*KINDS} < {*WEIGHTS}
    assert (SEED.rounds, WIDE.rounds) == (TURNS[STEP].rounds, FEW_ROUNDS), "there, a round is long"
    assert WIDE.guess > SEED.guess


def test_a_block_that_was_never_measured_is_as_slow_as_others() -> None:
    costs = Costs()
    assert costs.block((BASE,), SEED, ARMS) == 2 * SEED.guess
    costs.turn_seconds[BASE, SEED, ARMS[0]] = 3 * SEED.guess
    assert costs.block((BASE,), SEED, ARMS) == pytest.approx(6 * SEED.guess)
    assert costs.block(PAIR, SEED, ARMS) == pytest.approx(12 * SEED.guess), "sides take turns"
    assert costs.block((BASE,), WIDE, ARMS[:1]) == pytest.approx(3 * WIDE.guess)
    shared, own = (Arm("haiku", style).make_cell("seed", "cpu") for style in ("pure", "transform"))
    calls = costs.training(BASE, [shared]) / costs.training(BASE, [own])
    assert calls == pytest.approx(1 + OWN_SEEDS), "from its library's own initialisers, too"
    assert costs.training(BASE, [own]) < 3 * SEED.guess * FINAL_STEPS


def test_sides_are_opened_at_the_same_time_and_proven_in_lanes() -> None:
    costs = Costs()
    assert costs.opening(PAIR, "seed", STEP) == LOAD_SECONDS + len(CELLS) * OPEN_SECONDS
    costs.load_seconds[NEW] = 9.0
    costs.open_seconds[NEW, CELLS[0]] = 1.0
    assert costs.opening(PAIR, "seed", STEP) == 9 + 1 + (len(CELLS) - 1) * OPEN_SECONDS
    assert costs.opening(PAIR, "seed", STAGES) == 9, "stages open none"
    assert costs.making(PAIR, "seed", ["pure_jax/pure"]) == (1 + OPEN_SECONDS) / 2
    pairs = [(PAIR, cell) for cell in CELLS]
    proofs = 2 * len(CELLS) * PROVE_SECONDS
    assert costs.proving(pairs, 1) == pytest.approx(2 * 9 + proofs)
    assert costs.proving(pairs, 2) == pytest.approx(9 + proofs / 2)
    rest = proofs - 2 * len(CELLS) * OPEN_SECONDS
    assert costs.proving(pairs, 2, alone=False) == pytest.approx(rest / 2), "workers open them then"
    costs.proof_seconds += [1.0, 3.0]
    for one in PAIR:
        one.cells[CELLS[0]].proof = Proof(loss=0, gradient=0, trajectory=0)
    assert costs.proving(pairs[:2], 2) == 9 + 2, "one is proven"
    assert costs.proving(pairs[:1], 2) == 0


def test_a_cold_process_takes_what_the_last_one_took_or_another_side_s() -> None:
    costs = Costs()
    assert costs.cold((BASE,)) == COLD_SECONDS
    costs.load_seconds[BASE] = 2 * LOAD_SECONDS
    assert costs.cold((BASE,)) == 2 * COLD_SECONDS, "on a machine that is slow to load"
    costs.cold_seconds[BASE] = 5.0
    assert (costs.cold((NEW,)), costs.cold(PAIR)) == (5, 10)
