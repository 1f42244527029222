"""Each trick computes the same, and the table says what a run found of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import impls
from bench import tricks
from bench.cli import main, program
from bench.runfile import BakeoffSection
from bench.runfile.reader import Run
from common.config import ModelConfig
from common.equality import Case, deviation, make, trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from common.contract import TrainStep

    type StepOf = Callable[[str, str, Case], TrainStep]

GROUPS = Case(ModelConfig(5, 4, layers=2), chunk=4, batch=16)


@pytest.fixture(scope="module")
def entrant() -> Iterator[impls.Entrant]:
    """Return the tricks as `pytest bench --entrant bench/tricks.py` loads them."""
    name = impls.add(tricks.__file__)
    yield impls.load(name)
    impls.OUTSIDE.pop(name)


@pytest.mark.parametrize("style", [name for name in tricks.STYLES if name != "pure"])
def test_each_trick_is_equal(style: str, entrant: impls.Entrant, step_of: StepOf) -> None:
    assert entrant.styles[style].__doc__
    baseline = trajectory(step_of("pure_jax", "pure", GROUPS), GROUPS)
    deviation(make(entrant.style(style), GROUPS), GROUPS, baseline).require()


def cell(entrant: str, style: str, workload: str = "seed", **metric: Any) -> dict[str, Any]:
    names = {"entrant": entrant, "style": style, "workload": workload, "backend": "cpu"}
    return names | {"failure": None, "metrics": {"step": {"unit": "s"} | metric}}


def test_the_table_of_gains() -> None:
    names = ("median", "ratio", "low", "high", "verdict")
    same: dict[str, Any] = dict(zip(names, (3e-3, 1.0, 0.995, 1.005, "equivalent"), strict=True))
    faster: dict[str, Any] = dict(zip(names, (2e-3, 0.67, 0.65, 0.69, "faster"), strict=True))
    cells = [
        cell("pure_jax", "pure", median=3e-3),
        cell("tricks", "pure", **same),
        cell("tricks", "hoisted", **faster),
        cell("tricks", "hoisted", "toy", **same),
        cell("tricks", "grouped") | {"failure": "not equal: loss off"},
        cell("pure_jax", "tuned", **faster),
    ]
    lines = tricks.table(
        Run("made", msgspec.convert({"cells": cells}, BakeoffSection))
    ).splitlines()
    rows = [[text.strip() for text in line.strip("|").split("|")] for line in lines if "|" in line]
    equal, gain = "= 1.000 (0.995–1.005), 3.00 ms", "**0.67 (0.65–0.69)**, 2.00 ms"
    assert [row[:1] + row[2:] for row in rows] == [
        ["trick", "step at `toy`", "step at `seed`"],
        ["---", "--:", "--:"],
        ["`pure`", "", equal],
        ["`hoisted`", equal, gain],
        ["`grouped`", "", "failed: not equal: loss off"],
        ["pure_jax `tuned`: all of them", "", gain],
    ]
    assert all(row[1] for row in rows)
    assert "±2 %" in lines[-1]


@pytest.mark.parametrize("cells", [[], [cell("pure_jax", "tuned", median=2e-3)]])
def test_a_run_without_tricks(
    cells: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made.json"
    section = {"schema": 3, "cells": cells, "plan": {"margin": 0.02}}
    path.write_text(json.dumps({"benchmarks": [], "bakeoff": section}))
    assert main([str(path)], program(tricks.tricks, "tricks")) == 2
    assert capsys.readouterr().err.startswith("bakeoff: made has no tricks; measure them: pytest ")
