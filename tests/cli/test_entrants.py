"""`bakeoff entrants`: who takes part, as a table and for machines."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import impls
from bench.cli.entrants import named
from bench.environments.builder import Builder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Bakeoff


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits_the_terminal(
    width: int, bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = bakeoff("entrants")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= width
    assert "…" not in done.out
    for name in impls.names():
        assert len(re.findall(rf"^{name}\b", done.out, re.M)) == (2 if width == 80 else 1)
    assert re.search(r"^keras +keras +[\d.]+ +\d+ MB to build +\d+", done.out, re.M)


def test_entrants_for_machines(bakeoff: Bakeoff) -> None:
    rows = json.loads(bakeoff("entrants", "--json").out)
    assert [row["entrant"] for row in rows] == impls.names()
    for row in rows:
        assert 20 < row["code_lines"] < 250
        shared = row["entrant"] in impls.here()
        assert (row["environment"] == "shared") == row["ready"] == shared
        if shared:
            assert row["styles"] == list(impls.load(row["entrant"]).styles)
            assert re.match(r"\d+\.\d+", row["version"])
        else:
            assert row["requirements"] == list(impls.declared(row["entrant"]).requirements)
            assert row["size"], "its file says it"


def test_a_file_that_cannot_be_loaded_costs_its_own_row(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "impls.haiku", raising=False)
    (tmp_path / "bad.py").write_text("def (")
    monkeypatch.setattr(impls, "OUTSIDE", {"bad": tmp_path / "bad.py"})
    rows = {row["entrant"]: row for row in json.loads(bakeoff("entrants", "--json").out)}
    problems = {name: row["problem"] for name, row in rows.items() if "problem" in row}
    assert problems.keys() == {"haiku", "bad"}
    assert "needs the package 'haiku', which is not installed" in problems["haiku"]
    assert "syntax error" in problems["bad"]
    assert "syntax error" in bakeoff("entrants").out


def test_building(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(Builder, "place_of", lambda self, name: built.append(name))
    assert bakeoff("entrants", "--build", "keras", "--build", "penzai", "--json").status == 0
    assert built == ["keras", "penzai"]
    assert named(["keras", "all"]) == [n for n in impls.names() if n not in impls.here()]
    for name, message in {
        "nope": "unknown entrant 'nope'; known",
        "pure_jax": "has no environment of its own; those that have: blox",
    }.items():
        done = bakeoff("entrants", "--build", name)
        assert (done.status, done.out) == (2, "")
        assert message in done.err
