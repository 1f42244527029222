"""The files that `bakeoff new` writes: a skeleton, and each entrant's file with one style."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

import impls
from bench.check.checks import findings_of
from bench.check.findings import FILE
from bench.check.skeleton import PURE, chosen_style, skeleton, style_file
from bench.check.subject import Subject
from bench.environments.request import of_entrant
from common.declaration import declaration

if TYPE_CHECKING:
    from pathlib import Path

STYLES = [(name, style) for name in impls.names() for style in impls.styles_of(name)]
QUICK = [("pure_jax", "pure")]


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", {})


def test_the_skeleton_is_python_and_names_its_stages_in_order() -> None:
    text = skeleton("mine")
    ast.parse(text)
    assert "NAME" not in text
    assert sorted(re.findall(r"# (\d)\. ", text)) == list("123456")


@pytest.mark.parametrize(("entrant", "style"), STYLES)
def test_a_copy_has_one_style_and_declares_what_the_entrant_does(
    entrant: str, style: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(style_file("mine", entrant, style), "utf-8")
    impls.add(path)
    assert impls.styles_of("mine") == [style]
    tree = ast.parse(path.read_text("utf-8"))
    docstring = ast.get_docstring(tree, clean=False)
    original = ast.get_docstring(ast.parse(impls.source(entrant).read_bytes()), clean=False)
    assert docstring
    assert original
    assert docstring.startswith(original.rstrip())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert entrant != "flax_nnx" or functions & {*impls.styles_of(entrant)} == {style}
    ours, theirs = declaration(path), impls.declared(entrant)
    for name in ("distribution", "jax", "requirements", "requires_python", "installed"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("alone", "references", "waits", "limits"):
        assert set(getattr(ours, name)) == {style} & set(getattr(theirs, name))
    assert (ours.if_named, ours.colour) == ((), "")


@pytest.mark.parametrize(
    ("entrant", "style"),
    [
        pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow)
        for row in STYLES
        if row[0] in impls.here()
    ],
)
def test_a_copy_is_equal(entrant: str, style: str, tmp_path: Path) -> None:
    """With a step that is written out, the style `pure` too."""
    name = f"copy_of_{entrant}_{style}"
    path = tmp_path / f"{name}.py"
    path.write_text(style_file(name, entrant, style), "utf-8")
    assert "pure_style(build)" not in path.read_text("utf-8")
    checks = ["contract", "equality", "gradient", "ten-steps"]
    checks += ["retrace"] if impls.declared(entrant).jax else []
    assert findings_of(Subject(impls.add(path), FILE), "contract") == []
    subject = Subject(name, style)
    assert [finding for check in checks for finding in findings_of(subject, check)] == []


def test_a_copy_has_the_locked_environment_of_its_entrant(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(style_file("mine", "penzai", "stateful_trainer"))
    impls.add(path)
    assert of_entrant("mine").lock == of_entrant("penzai").lock != ()
    path.write_text(path.read_text().replace("penzai==", "penzai>="))
    assert of_entrant("mine").lock == ()


@pytest.mark.parametrize(
    ("given", "style"),
    {
        "flax_nnx": "jit",
        "equinox": "filter_jit",
        "numpy": "loop",
        "pure_jax": PURE,
        "stax": PURE,
        "flax_nnx/jit_partial": "jit_partial",
    }.items(),
)
def test_the_style_that_is_begun_with(given: str, style: str) -> None:
    assert chosen_style(given) == (given.partition("/")[0], style)
