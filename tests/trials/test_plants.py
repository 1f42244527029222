"""Planted differences compute the same numbers, and are as large as their names say."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import pytest

import impls
from bench.trials.plants import MICROSECONDS, copy, layer, wait, wait_of_side, write_entrant
from bench.worker.counts import exact
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import (
    Case,
    deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.contract import Style, TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

TOY = Case(ModelConfig(5, 8), 8, 1)
PYTHON = "python_calls python_starts"
PLANTS: dict[str, tuple[Style, str]] = {
    "wait(0)": (wait(0), PYTHON),
    "layer(1)": (layer(1), PYTHON),
    "layer(20)": (layer(20), PYTHON),
    "copy()": (copy(), f"compilations_first {PYTHON}"),
}
"""Each with the counts that are larger than the baseline's."""


@cache
def counts_of(step: Any) -> dict[str, Any]:
    return dict(exact(step, TOY))


@pytest.mark.parametrize("plant", PLANTS)
def test_equal_and_counted(plant: str, step_of: StepOf) -> None:
    style, rising = PLANTS[plant]
    step: Any = make(style, TOY)
    baseline: Any = step_of(impls.BASELINE, "pure", TOY)
    deviation(step, TOY, trajectory(baseline, TOY)).require()
    ours, theirs = counts_of(step), counts_of(baseline)
    assert {name for name, value in ours.items() if value != theirs[name]} == set(rising.split())
    assert all(ours[name] > theirs[name] for name in rising.split())


@pytest.mark.parametrize("microseconds", [300, 3000])
def test_a_wait_takes_what_it_says(
    microseconds: float, step_of: StepOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MICROSECONDS, str(microseconds))
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
    assert 0.9 * microseconds < added < 1.5 * microseconds, "others may use this machine"


def test_an_entrant_file_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impls, "OUTSIDE", {})
    styles = {"same": "wait(0)", "more": "layer( 20 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(impls.add(path))
    assert list(entrant.styles) == list(styles)
    step: Any = make(entrant.style("more"), TOY)
    same: Any = make(PLANTS["layer(20)"][0], TOY)
    assert counts_of(step) == counts_of(same)
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
