"""The check of `bakeoff cost`: its step files, its second method, and what its tables say."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cells import WHOLE
from bench.worker.step_arms import StepArms
from bench.worker.step_check import check_step
from results.cost import truth
from results.cost.models import MODELS
from tests.commands import script

check = script("results/cost/check.py")
SMALL = [model._replace(layers=2, width=8, batch=4) for model in MODELS]
FILES = {model.file(): model for model in SMALL}
ABOUT = {
    "processor": "a, 2 cores",
    "engine": "e",
    "cached": False,
    "arrays": 8.0,
    "calls": [80, 81, 82],
    "loop": [39, 40],
}


def test_45_steps() -> None:
    assert sum(len(set(model.styles)) for model in MODELS) == 45
    assert len({model.name for model in MODELS}) == 15
    libraries = {"pure_jax", "equinox", "flax_linen", "haiku", "flax_nnx"}
    assert {model.library for model in MODELS} == libraries


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            model, id=model.name, marks=() if model.library == "haiku" else pytest.mark.slow
        )
        for model in FILES.values()
    ],
)
def test_both_methods_have_the_same_losses(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"{model.name}.py")
    path.write_text(model.file(), "utf-8")
    arms = StepArms(path.resolve(), "cpu", donate=False)
    assert check_step(arms.file) == []
    assert arms.file.entrant == model.library
    offered = {arm.style for arm in arms.file.arms}
    styles = {style for each in SMALL if each.name == model.name for style in each.styles}
    assert styles <= offered
    expected = arms.compute_losses(arms.make(arms.file.arms[0]))[:3]
    for make in (truth.arrays_alone, *(truth.STYLES[style] for style in styles)):
        step = make(truth.Training(truth.module(path), model.library))
        losses = [float(step(arms.case.data())) for _ in expected]
        assert losses == pytest.approx(expected, rel=1e-4), make
    assert (WHOLE in offered) == (not model.norm and model.library != "flax_nnx")


@pytest.mark.parametrize(
    ("told", "true", "near", "held"),
    [
        ([31, 29, 33], 32, True, True),
        ([31, 29, 33], 35, True, False),  # 5 µs
        ([500, 490, 510], 460, True, False),  # 10 %
        ([500, 300, 700], 450, False, True),
        ([-50, -52, -48], 0, False, False),
        ([31, 29, None], 32, True, True),
        ([31, None, None], 32, True, False),  # of one worker
        (None, 32, False, False),
    ],
)
def test_what_is_right(told: Any, true: float, near: bool, held: bool) -> None:
    record = {"told": told, "truth": [true - 1, true, true + 1]}
    assert check.judged(record)[2:] == (near, held)


def test_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {"quiet": [40.0] * 3}
    first: dict[str, Any] = {"model": MODELS[2].name, "style": "pure", **quiet}
    second: dict[str, Any] = {"model": "gone", "style": "jit", **quiet}
    records = [
        second | ABOUT | {"told": None, "failed": "raised", "truth": [500, 510, 520]},
        first | ABOUT | {"told": [31.6, 30, 33.3], "truth": [31.1, 30.8, 31.9], "loop": [40, 60]},
    ]
    (tmp_path / check.RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    assert check.main(["--folder", str(tmp_path), "--repeat", "0"]) == 0
    text = (tmp_path / check.TABLES).read_text("utf-8")
    assert text in capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("* ")]
    all_, of_quiet_calls, in_quiet, _, in_busy, _ = lines
    assert all_.endswith(
        "within 10 % or 5 µs: 1 of 2; the interval holds it: 1 of 2; without a number: 1"
    )
    assert ": 0 of 2; the interval holds it: 0 of 2" in of_quiet_calls
    assert ("0 of 1" in in_quiet, "1 of 1" in in_busy) == (True, True)
    rows = [line for line in text.splitlines() if line.startswith(("| equinox", "| gone"))]
    assert rows == [
        "| equinox_3x16x8 | pure | 8 | 81.0 µs | +31.6 µs (+30.0 to +33.3) | +31.3 µs ± 0.3 | "
        "+40.0 µs | +0.3 µs (+1 %) | yes | yes | 60 µs |",
        "| gone | jit | 8 | 81.0 µs | raised | +510 µs ± 5.8 | +40.0 µs |  | no | no | 40 µs |",
    ]
