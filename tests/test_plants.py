"""Planted differences compute the same, and exact metrics catch them."""

from __future__ import annotations

import re
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

import impls
from bench.trials.plants import copy, layer, retrace, same, temp, work, write_entrant
from bench.worker.counts import PythonCounts, compilations, python_counts
from bench.worker.program import ProgramFacts, facts
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import (
    Case,
    Deviation,
    loss_and_gradient_deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from common.contract import Program, TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

TOY = Case(ModelConfig(5, 8), 8, 1)
BYTES = 100_000
ALL = {
    "same()": same(),
    "work(1)": work(1),
    "work(12)": work(12),
    "work(120)": work(120),
    f"temp({BYTES})": temp(BYTES),
    "layer(1)": layer(1),
    "layer(20)": layer(20),
    "retrace()": retrace(),
    "copy()": copy(),
}
INSIDE = ("work(1)", "work(12)", "work(120)", f"temp({BYTES})")


@cache
def step_of_plant(expression: str) -> TrainStep:
    return make(ALL[expression], TOY)


def loaded(step: TrainStep) -> TrainStep:
    step.load(fresh_checkpoint(random_weights(TOY.model)))
    return step


def program(step: TrainStep) -> Program:
    found = step.program(random_hidden(TOY), random_chunk(TOY, 1))
    assert found is not None
    return found


@cache
def facts_of(expression: str) -> ProgramFacts:
    step = loaded(step_of_plant(expression))
    return facts(program(step))


@cache
def python_of(expression: str) -> PythonCounts:
    step = loaded(step_of_plant(expression))
    found = python_counts(partial(step, random_hidden(TOY), random_chunk(TOY, 1)))
    assert found is not None
    return found


def instructions(expression: str) -> int:
    return sum(facts_of(expression).hlo_instructions.values())


# The same numbers.


@cache
def losses_of(expression: str) -> np.ndarray:
    return trajectory(step_of_plant(expression), TOY)


@pytest.mark.parametrize("expression", ALL)
def test_equal(expression: str, step_of: StepOf) -> None:
    loss, gradient = loss_and_gradient_deviation(step_of_plant(expression), TOY)
    away = losses_of(expression) - trajectory(step_of(impls.BASELINE, "pure", TOY), TOY)
    Deviation(loss, gradient, float(np.max(np.abs(away)))).require()
    np.testing.assert_array_equal(losses_of(expression), losses_of("same()"))


# What catches each.


def test_same_differs_in_nothing(step_of: StepOf) -> None:
    step = loaded(step_of(impls.BASELINE, "pure", TOY))
    baseline = facts(program(step))
    assert facts_of("same()") == baseline
    called = python_counts(partial(step, random_hidden(TOY), random_chunk(TOY, 1)))
    assert python_of("same()") == called


@pytest.mark.parametrize("expression", INSIDE)
def test_what_is_inside_shows_in_the_program_alone(expression: str) -> None:
    assert facts_of(expression).fingerprint != facts_of("same()").fingerprint
    assert instructions(expression) > instructions("same()")
    assert facts_of(expression).flops > facts_of("same()").flops
    assert python_of(expression) == python_of("same()")


def test_work_survives_one_by_one_or_as_a_loop_of_so_many_iterations() -> None:
    step = loaded(step_of_plant("work(120)"))
    compiled = program(step).lower().compile()
    counts = re.findall(r'"known_trip_count":\{"n":"(\d+)"', compiled.as_text() or "")
    assert "120" in counts
    whiles = [facts_of(e).hlo_instructions["while"] for e in ("same()", "work(12)", "work(120)")]
    assert whiles == [whiles[0], whiles[0], whiles[0] + 1]
    assert instructions("work(12)") > instructions("work(1)") > instructions("same()")
    fingerprints = {facts_of(e).fingerprint for e in ALL if e.startswith("work")}
    assert len(fingerprints) == len(["1", "12", "120"])


def test_temp_is_held() -> None:
    more = facts_of(f"temp({BYTES})").temp_bytes - facts_of("same()").temp_bytes
    assert BYTES <= more < 1.02 * BYTES
    accessed = facts_of(f"temp({BYTES})").bytes_accessed - facts_of("same()").bytes_accessed
    assert accessed >= BYTES


def test_each_call_of_a_layer_shows_in_python_alone() -> None:
    none, one, twenty = map(python_of, ("same()", "layer(1)", "layer(20)"))
    assert facts_of("layer(1)") == facts_of("layer(20)") == facts_of("same()")
    assert one.starts > none.starts
    assert one.calls > none.calls
    assert (twenty.starts - one.starts, twenty.calls - one.calls) == (19, 19)


def compiled(expression: str, calls: int) -> Iterator[int]:
    """Yield how many programs each call compiles."""
    step = loaded(make(ALL[expression], TOY))
    hidden, chunk = random_hidden(TOY), random_chunk(TOY, 1)
    for _ in range(calls):
        programs = compilations()
        hidden, _ = step(hidden, chunk)
        yield programs()


@pytest.mark.parametrize(
    ("expression", "programs"),
    {"same()": [1, 0, 0], "retrace()": [1, 1, 1], "copy()": [2, 0, 0]}.items(),
)
def test_compilations(expression: str, programs: list[int]) -> None:
    assert list(compiled(expression, 3)) == programs


def test_what_is_outside_of_the_program() -> None:
    assert facts_of("retrace()").fingerprint == facts_of("same()").fingerprint
    assert facts_of("copy()").fingerprint == facts_of("same()").fingerprint
    assert facts_of("retrace()").whole
    assert not facts_of("copy()").whole
    assert python_of("copy()").calls > python_of("same()").calls


# Entrant files.


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", {})


@pytest.mark.usefixtures("outside")
def test_an_entrant_file_takes_part(tmp_path: Path) -> None:
    styles = {"again": "same()", "more_work": "work( 12 )"}
    path = write_entrant(tmp_path / "planted_here.py", styles)
    entrant = impls.load(impls.add(path))
    assert entrant.name == "planted_here"
    assert entrant.distribution == "jax"
    assert list(entrant.styles) == ["again", "more_work"]
    step = loaded(make(entrant.style("more_work"), TOY))
    found = facts(program(step))
    assert found == facts_of("work(12)")
    with pytest.raises(FileExistsError):
        write_entrant(path, styles)
