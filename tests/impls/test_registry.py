"""The registry of entrants, and what each file declares, which is read without running it."""

import importlib.util
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import impls
from common.declaration import Declaration
from tests.commands import TWIN, refusal

SHARED = ["pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku", "stax"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An entrant of a user's own."""
    path = tmp_path / "mine.py"
    path.write_text('DISTRIBUTION = "flax"\n')
    return path


def test_names_are_those_of_the_files_the_baseline_first(mine: Path) -> None:
    files = {path.stem for path in Path(impls.__path__[0]).glob("[!_]*.py")}
    assert impls.names() == [impls.BASELINE, *sorted(files - {impls.BASELINE})]
    usual, shared = impls.list_usual(), impls.list_shared()
    assert [name for name in usual if name in SHARED] == SHARED
    assert {*shared} >= {*usual, "numpy"}
    assert not {"keras", "penzai"} & {*shared}, "they have environments of their own"
    for name in ("os", "__init__", "../impls/haiku"):
        assert "unknown entrant" in refusal(impls.load, name)
    assert impls.read_name(impls.source("haiku")) == "haiku"
    assert impls.read_name(mine) == "mine"
    assert "unknown entrant" in refusal(impls.load, str(mine)), "a name never stands for a file"


def test_a_users_entrant_is_loaded_from_its_file_then_by_its_name(mine: Path) -> None:
    mine.write_text(TWIN)
    assert "unknown entrant 'mine'" in refusal(impls.load, "mine")
    entrant = impls.load(impls.locate("mine", {"mine": str(mine)}))
    assert (entrant.name, entrant.file) == ("mine", mine)
    assert impls.load("mine") == entrant
    assert "mine" not in impls.names()


def test_packages_of_the_stack() -> None:
    assert impls.list_shared_libraries() == ["equinox", "flax", "dm-haiku"]
    packages = impls.list_pinnable()
    assert {*impls.list_shared_libraries(), "jax", "optax", "orbax-checkpoint"} < set(packages)
    assert "keras" not in packages


@pytest.mark.parametrize("entrant", impls.names())
def test_what_an_entrant_declares(entrant: str) -> None:
    about, styles = impls.read_declaration(entrant), impls.list_styles(entrant)
    assert styles[0] == ("pure" if about.jax else {"numpy": "loop", "torch": "eager"}[entrant])
    for named in (about.if_named, about.references, about.waits, about.limits):
        assert set(named) <= set(styles)
    assert re.fullmatch(r"\w.*\.|", about.note)
    assert about.note or (about.recommended and about.jax)
    if not about.own_environment:
        assert metadata.version(about.distribution)
        assert [*impls.load(entrant).styles] == styles
    elif importlib.util.find_spec(entrant) is None:
        assert f"needs the package '{entrant}', which is not" in refusal(impls.load, entrant)


def test_a_file_is_read_without_running_it(mine: Path) -> None:
    mine.write_text(
        '# /// script\n# requires-python = "==3.12.*"\n# tool.bakeoff.installed = "5 MB"\n'
        '# dependencies = [\n#   "a==1",\n#   "b",\n# ]\n# ///\nraise SystemExit\n'
        'DISTRIBUTION = "a"\nJAX = False\nNOTE: str = "Old."\nWAITS = ["x"]\n'
        'LIMITS = {"x": "few"}\n'
    )
    expected: dict[str, Any] = {"distribution": "a", "jax": False, "note": "Old."}
    expected |= {"requirements": ("a==1", "b"), "requires_python": "==3.12.*", "installed": "5 MB"}
    expected |= {"waits": ("x",), "limits": {"x": "few"}}
    assert impls.read_declaration(mine) == Declaration(**expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DISTRIBUTION = name()", "DISTRIBUTION in line 1 has to be a string"),
        ("WAITS = ('a', 1)", "WAITS in line 1 has to be a tuple of strings, written"),
        ("LIMITS = {'a': 1}", "LIMITS in line 1 has to be a dict of strings"),
        ("def :", "entrant 'mine' has a syntax error in line 1: invalid syntax"),
        ("x = " + "-" * 100_000 + "1", "entrant 'mine' "),
        ("# /// script\n# dependencies = [1]\n# ///", "has to be a list of strings"),
    ],
)
def test_a_file_that_cannot_be_read(text: str, words: str, mine: Path) -> None:
    mine.write_text(text)
    assert words in refusal(impls.read_declaration, mine)
