"""`bakeoff entrants`: who takes part, and whose environment is built."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import impls
from bench.environments.builder import Builder
from tests.commands import Bakeoff


def bad_file_of(name: str, path: Path) -> Callable[[str], Path]:
    """Return a `source` that has another file for one entrant."""
    source = impls.source
    return lambda entrant: path if entrant == name else source(entrant)


def test_a_file_that_cannot_be_loaded_costs_its_own_row(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "impls.haiku", raising=False)
    (tmp_path / "stax.py").write_text("def (")
    monkeypatch.setattr(impls, "source", bad_file_of("stax", tmp_path / "stax.py"))
    monkeypatch.setenv("COLUMNS", "200")
    done = bakeoff("entrants")
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 200
    assert done.out.count("warning: ") == 2
    assert "needs the package 'haiku', which is not installed" in done.out
    assert "syntax error" in done.out
    for name in {*impls.names()} - {"haiku", "stax"}:
        [row] = re.findall(rf"^ *{name} +(.*)", done.out, re.M)
        shared = name in impls.list_shared()
        where = "shared" if shared else impls.read_declaration(name).installed + " to build"
        styles = ", ".join(impls.load(name).styles if shared else impls.list_styles(name))
        assert re.fullmatch(rf"[\w-]+ +[\w.]+ +{where} +\d+ +{re.escape(styles)} *", row)


def test_building(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(Builder, "build_place", lambda self, name: built.append(name))
    assert bakeoff("entrants", "--build", "keras", "--build", "penzai").status == 0
    assert built == ["keras", "penzai"]
    assert bakeoff("entrants", "--build", "all").status == 0
    assert built[2:] == [name for name in impls.names() if name not in impls.list_shared()]
