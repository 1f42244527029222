"""Planted differences compute the same, and exact metrics catch them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

import impls
from bench.trials.plants import copy, layer, retrace, same, temp, work, write_entrant
from bench.worker.counts import exact
from bench.worker.program import exact_metrics, facts
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

    from common.contract import Program, Style, TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

TOY = Case(ModelConfig(5, 8), 8, 1)
BYTES = 100_000
PROGRAM = "bytes_accessed fingerprint flops hlo_instructions jaxpr_equations temp_bytes"
PYTHON = "python_calls python_starts"
PLANTS: dict[str, tuple[Style, str]] = {
    "same()": (same(), ""),
    "work(1)": (work(1), PROGRAM),
    "work(12)": (work(12), PROGRAM),
    "work(120)": (work(120), PROGRAM),
    "temp(100_000)": (temp(BYTES), PROGRAM),
    "layer(1)": (layer(1), PYTHON),
    "layer(20)": (layer(20), PYTHON),
    "retrace()": (retrace(), f"compilations_first compilations_warm {PYTHON}"),
    "copy()": (copy(), f"compilations_first {PYTHON} whole"),
}
"""Each with the facts by which it differs from the baseline."""


@cache
def step_of_plant(expression: str) -> Any:
    return make(PLANTS[expression][0], TOY)


def program(step: TrainStep) -> Program:
    step.load(fresh_checkpoint(random_weights(TOY.model)))
    found = step.program(random_hidden(TOY), random_chunk(TOY, 1))
    assert found is not None
    return found


@cache
def facts_of(step: Any) -> dict[str, Any]:
    found = facts(program(step))
    about = {"fingerprint": found.fingerprint, "whole": found.whole}
    return about | exact_metrics(found) | exact(step, TOY)


@pytest.mark.parametrize("expression", PLANTS)
def test_equal_and_caught(expression: str, step_of: StepOf) -> None:
    step: Any = step_of_plant(expression)
    baseline: Any = step_of(impls.BASELINE, "pure", TOY)
    deviation(step, TOY, trajectory(baseline, TOY)).require()
    ours, theirs = facts_of(step), facts_of(baseline)
    caught = {name for name, value in ours.items() if value != theirs[name]}
    assert caught == set(PLANTS[expression][1].split())
    rising = caught - {"fingerprint", "whole", *(name for name in caught if ours[name] is None)}
    assert all(ours[name] > theirs[name] for name in rising)


def test_how_much_is_caught() -> None:
    names = ("same()", "work(1)", "work(12)", "work(120)", "temp(100_000)", "layer(1)", "layer(20)")
    none, one, twelve, many, temporary, once, often = (facts_of(step_of_plant(n)) for n in names)
    assert one["hlo_instructions"] < twelve["hlo_instructions"]
    assert len({each["fingerprint"] for each in (one, twelve, many)}) == 3
    text = program(step_of_plant("work(120)")).lower().compile().as_text() or ""
    assert "120" in re.findall(r'"known_trip_count":\{"n":"(\d+)"', text)
    assert BYTES <= temporary["temp_bytes"] - none["temp_bytes"] < 1.02 * BYTES
    assert temporary["bytes_accessed"] - none["bytes_accessed"] >= BYTES
    assert [often[name] - once[name] for name in PYTHON.split()] == [19, 19]
    retraced = facts_of(step_of_plant("retrace()"))
    assert (retraced["compilations_first"], retraced["compilations_warm"]) == (3, 10)


def test_an_entrant_file_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impls, "OUTSIDE", {})
    styles = {"again": "same()", "more_work": "work( 12 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(impls.add(path))
    assert list(entrant.styles) == list(styles)
    step: Any = make(entrant.style("more_work"), TOY)
    assert facts_of(step) == facts_of(step_of_plant("work(12)"))
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
