"""The check of `bakeoff cost`: its step files, its second method, and what its tables say."""

from pathlib import Path
from typing import Any

import pytest

from bench.cells import WHOLE
from bench.worker.offers import check_step
from bench.worker.step_arms import StepArms
from results.cost import truth
from results.cost.models import MODELS
from tests.commands import ROOT, script

check = script("results/cost/check.py")
SMALL = [model._replace(layers=2, width=8, batch=4) for model in MODELS]
FILES = {model.file(): model for model in SMALL}


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


def test_the_published_tables_are_of_the_published_records() -> None:
    folder = ROOT / "results" / "cost"
    text = (folder / check.TABLES).read_text("utf-8")
    assert check.markdown(check.read(folder / check.RECORDS)) == text
