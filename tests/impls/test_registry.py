"""The registry of entrants, and what each file declares, which is read without running it."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

import impls
from common.declaration import Declaration, declaration
from common.errors import BakeoffError
from common.versions import COMMON

if TYPE_CHECKING:
    from collections.abc import Collection

SHARED = ["pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku", "stax"]
RELEASES = {"in_a_year": 1, "latest": "2", "latest_on": "2025-01-02", "as_of": "2026-01-02"}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of its own that takes part, once it is added."""
    monkeypatch.setattr(impls, "OUTSIDE", {})
    path = tmp_path / "mine.py"
    path.write_text('DISTRIBUTION = "flax"\n')
    return path


def test_names_are_those_of_the_files_the_baseline_first() -> None:
    files = {path.stem for path in Path(impls.__path__[0]).glob("[!_]*.py")}
    assert impls.names() == [impls.BASELINE, *sorted(files - {impls.BASELINE})]
    assert impls.usual() == SHARED
    assert set(impls.here()) == {*SHARED, "numpy"}


@pytest.mark.parametrize("name", ["", "os", "pure_jax.dense", "__init__", "../impls/haiku"])
def test_nothing_but_entrants_is_imported(name: str) -> None:
    with pytest.raises(BakeoffError, match="unknown entrant"):
        impls.load(name)


def test_a_file_takes_part_beside_the_others(mine: Path) -> None:
    assert impls.add(impls.source("haiku")) == "haiku"
    assert impls.OUTSIDE == {}
    assert impls.add(mine) == impls.add(mine) == "mine"
    assert impls.usual() == [*SHARED, "mine"]
    mine.write_text("def (")
    assert "mine" in impls.usual(), "loading it says what is wrong"


def test_packages_of_the_stack(mine: Path) -> None:
    assert impls.libraries() == ["equinox", "flax", "dm-haiku"]
    packages = impls.pinnable()
    assert packages[:5] == ["jax", "jaxlib", *impls.libraries()]
    assert {"optax", "numpy", "scipy", "orbax-checkpoint", "jmp", "python"} < set(packages)
    assert "keras" not in packages
    mine.write_text('DISTRIBUTION = "evil"\nPACKAGES = ("worse",)\n')
    impls.add(mine)
    assert (impls.pinnable(), len(set(packages))) == (packages, len(packages))


@pytest.mark.parametrize(
    ("packages", "entrants"),
    [
        ({"flax"}, ["flax_linen", "flax_nnx", "mine"]),
        ({"orbax-checkpoint", "rich"}, ["flax_linen", "flax_nnx"]),
        ({"jmp", "equinox"}, ["equinox", "haiku"]),
        *((packages, [*SHARED, "mine"]) for packages in ({"jaxlib"}, {"optax", "flax"}, {"rich"})),
    ],
)
def test_who_depends_on_what(packages: Collection[str], entrants: list[str], mine: Path) -> None:
    impls.add(mine)
    assert impls.depending_on(packages) == entrants


def test_colours_stay_whatever_else_a_chart_shows(mine: Path) -> None:
    names = impls.names()
    colours = impls.colours(names)
    assert len(set(colours.values())) == len(names)
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in colours.values())
    shown = impls.colours(["control", "haiku", "gone", "haiku", impls.add(mine)])
    assert shown["haiku"] == colours["haiku"]
    assert len({*shown.values()} | {*colours.values()}) == len(names) + 3


@pytest.mark.parametrize(
    ("entrant", "before", "after", "words"),
    [
        ("flax_nnx", "jit", "jit_partial", "only models in which no two places share a Variable"),
        ("flax_nnx", "jit_partial", "flat", ""),
        ("flax_nnx", "jit_partial", "jit", ""),
        ("equinox", "filter_jit", "pure", "`filter_jit` waits for the device in each call"),
        ("equinox", "pure", "flat", ""),
    ],
)
def test_what_to_know_before_another_style(
    entrant: str, before: str, after: str, words: str
) -> None:
    assert impls.caveat(entrant, before, after).startswith(words)
    assert bool(impls.caveat(entrant, before, after)) == bool(words)


@pytest.mark.parametrize("entrant", impls.names())
def test_what_an_entrant_declares(entrant: str) -> None:
    about, styles = impls.declared(entrant), impls.styles_of(entrant)
    assert styles[0] == ("pure" if about.jax else {"numpy": "loop", "torch": "eager"}[entrant])
    for named in (about.alone, about.if_named, about.references, about.waits, about.limits):
        assert set(named) <= set(styles)
    assert re.fullmatch(r"\w.*\.|", about.note)
    assert about.note or (about.recommended and about.jax)
    assert about.releases["latest_on"] <= about.releases["as_of"]
    assert about.distribution
    if about.own_environment and importlib.util.find_spec(entrant) is None:
        with pytest.raises(BakeoffError, match=f"needs the package '{entrant}', which is not inst"):
            impls.load(entrant)


@pytest.mark.parametrize("entrant", impls.names())
def test_imports_its_own_library_alone(entrant: str) -> None:
    """Read from the file: what a library brings along itself is the library's affair."""
    about, origins = impls.declared(entrant), metadata.packages_distributions()
    own = {about.distribution, *(Requirement(text).name for text in about.requirements)}
    packages = {package for package, names in origins.items() if own & {*names}} | {entrant}
    allowed = {*COMMON, "common", *packages}
    for node in ast.parse(impls.source(entrant).read_text("utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for part in ast.walk(node):
            names = [a.name for a in part.names] if isinstance(part, ast.Import) else []
            names += [str(part.module)] if isinstance(part, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} - sys.stdlib_module_names <= allowed


# Files of others


def test_a_file_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        '"""Docstring."""\n\n# /// script\n# requires-python = "==3.12.*"\n#\n'
        '# tool.bakeoff.installed = "5 MB"\n'
        '# dependencies = [\n#   "a==1",\n#   "b",\n# ]\n# ///\n'
        'raise SystemExit\nDISTRIBUTION = "a"\nJAX = False\nNOTE: str = "Old."\nother = JAX[0]\n'
        f'ALONE = ["x"]\nLIMITS = {{"x": "few"}}\nRELEASES = {RELEASES}\n'
    )
    expected: dict[str, Any] = {"distribution": "a", "jax": False, "note": "Old."}
    expected |= {"requirements": ("a==1", "b"), "requires_python": "==3.12.*", "installed": "5 MB"}
    expected |= {"alone": ("x",), "limits": {"x": "few"}, "releases": RELEASES}
    assert declaration(path) == Declaration(**expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DISTRIBUTION = name()", "DISTRIBUTION in line 1 has to be a string"),
        ("ALONE = ('a', 1)", "ALONE in line 1 has to be a tuple of strings, written"),
        ("JAX = {[]: 1}", "JAX in line 1 has to be True or False"),
        ("LIMITS = {'a': 1}", "LIMITS in line 1 has to be a dict of strings"),
        ("RELEASES = {'latest': '2'}", "has to be a dict with in_a_year, latest, latest_on, as_of"),
        (f"RELEASES = {RELEASES | {'in_a_year': '1'}}", "RELEASES in line 1 has to be"),
        ("def :", "entrant 'mine' has a syntax error in line 1: invalid syntax"),
        ("\0", "entrant 'mine' "),
        ("x = " + "-" * 100_000 + "1", "entrant 'mine' "),
        ("# /// script\n# dependencies = [\n# ///", "entrant 'mine': its block"),
        ("# /// script\n# dependencies = [1]\n# ///", "has to be a list of strings"),
    ],
)
def test_a_file_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BakeoffError) as error:
        declaration(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
