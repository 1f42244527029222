"""Starters: files that run as they are; test_cost_advice.py has the steps of their models."""

import runpy

import pytest

import impls
from impls.starters import FOLDER, WHOLE_STEP, list_models, make_stack, read_starter


@pytest.mark.parametrize("library", list_models())
def test_a_starter_trains(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / f"{library}.py"), run_name="__main__")
    first, *_, last = map(float, capsys.readouterr().out.split())
    assert last < first
    assert impls.read_declaration(library).models


def test_a_whole_step_trains() -> None:
    names = runpy.run_path(str(FOLDER / f"{WHOLE_STEP}.py"))
    step, batch = names["make_step"](), names["make_batch"]()
    assert float(step(batch)) > float(step(batch))


def test_a_stack_is_a_starter_of_another_size() -> None:
    text = make_stack("haiku", 7)
    assert "\nWIDTH, ARRAYS = 8, 7\n" in text
    assert text.count("\n") == read_starter("haiku", "stack").count("\n")
    assert "NAME" not in read_starter("haiku", "mine")
