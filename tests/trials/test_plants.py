"""Planted differences are as large as their names say."""

import time
from pathlib import Path

import jax
import pytest

import impls
from common.contract import fresh_checkpoint
from common.equality import make, random_chunk, random_hidden, random_weights
from results.selftest.plants import MICROSECONDS, wait, wait_of_side, write_entrant
from tests.commands import TOY


def test_a_wait_takes_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MICROSECONDS, "1000")
    steps = [make(wait(0), TOY), make(wait_of_side(), TOY)]
    hidden, chunk = random_hidden(TOY), random_chunk(TOY, 1)
    seconds: list[list[float]] = [[], []]
    for step in steps:
        step.load(fresh_checkpoint(random_weights(TOY.model)))
    for _ in range(60):
        for step, several in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(step(hidden, chunk))
            several.append(time.perf_counter() - start)
    added = 1e6 * (min(seconds[1]) - min(seconds[0]))
    assert 900 < added < 1500, "others may use this machine"


def test_an_entrant_file_takes_part(tmp_path: Path) -> None:
    styles = {"same": "wait(0)", "slower": "wait( 27 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(impls.add(path))
    assert list(entrant.styles) == list(styles)
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
