"""Planted differences are as large as their names say."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import impls
from bench.worker.settings import CORES
from common.contract import fresh_checkpoint
from common.equality import make, random_chunk, random_hidden, random_weights
from results.selftest import plants
from results.selftest.plants import (
    COUNTS,
    MICROSECONDS,
    first_of_round,
    shares_of_first,
    wait,
    wait_of_side,
    write_entrant,
)
from tests.commands import TOY


def test_a_wait_takes_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MICROSECONDS, "1000")
    steps = [make(wait(0), TOY), make(wait_of_side(), TOY)]
    monkeypatch.setenv(MICROSECONDS, "0")
    steps.append(make(wait_of_side(), TOY))
    hidden, chunk, now = random_hidden(TOY), random_chunk(TOY, 1), count()
    clock = SimpleNamespace(perf_counter=lambda: 1e-6 * next(now))  # a microsecond for each look
    monkeypatch.setattr(plants, "time", clock)
    taken = []
    for step in steps:
        step.load(fresh_checkpoint(random_weights(TOY.model)))
        start = next(now)
        jax.block_until_ready(step(hidden, chunk))
        taken.append(next(now) - start)
    assert taken[0] == 1, "nothing but this test looked at the clock"
    assert 1000 <= taken[1] <= 1005
    assert 1 < taken[2] <= 5, "it looks, as the other side does"


def test_whoever_is_first_in_a_round_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {MICROSECONDS: "1000", COUNTS: str(tmp_path / "counts"), CORES: "0"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hidden, chunk, now = random_hidden(TOY), random_chunk(TOY, 1), count()
    clock = SimpleNamespace(perf_counter=lambda: 1e-6 * next(now))
    monkeypatch.setattr(plants, "time", clock)
    steps = [make(first_of_round(side), TOY) for side in (0, 1)]
    for _ in range(2):  # blocks
        for step in steps:
            step.load(fresh_checkpoint(random_weights(TOY.model)))
            for _ in range(3):
                jax.block_until_ready(step(hidden, chunk))
        for order in ((0, 1), (1, 0), (0, 1), (0, 1), (1, 0)):  # rounds, with turns of two calls
            for place, side in enumerate(order):
                for _ in range(2):
                    start = next(now)
                    jax.block_until_ready(steps[side](hidden, chunk))
                    assert (next(now) - start > 1000) == (place == 1)
    # Of 13 calls in each block: both of the rounds that it began, and once three before them.
    assert shares_of_first(tmp_path / "counts") == [(2 * 6 + 3) / 26, 2 * 4 / 26]


def test_an_entrant_file_takes_part(tmp_path: Path) -> None:
    styles = {"same": "wait(0)", "slower": "wait( 27 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(path)
    assert list(entrant.styles) == list(styles)
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
