"""Planted differences are as large as their names say."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import impls
from common.contract import fresh_checkpoint
from common.equality import make, random_chunk, random_hidden, random_weights
from results.selftest import plants
from results.selftest.plants import MICROSECONDS, wait, wait_of_side, write_entrant
from tests.commands import TOY


def test_a_wait_takes_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MICROSECONDS, "1000")
    steps = [make(wait(0), TOY), make(wait_of_side(), TOY)]
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


def test_an_entrant_file_takes_part(tmp_path: Path) -> None:
    styles = {"same": "wait(0)", "slower": "wait( 27 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(impls.add(path))
    assert list(entrant.styles) == list(styles)
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
