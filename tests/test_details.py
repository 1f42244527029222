"""Details of entrants: counted by hand on small sources, on the entrants, and as printed."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import TYPE_CHECKING

import pytest

import impls
from bench.cli import main
from bench.environments.builder import MARK, Builder, Resolution, python_of
from bench.environments.request import of_entrant
from bench.library_details import details, installation, style_lines
from bench.report.choices import LIBRARIES
from bench.worker.source import code_lines
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

# Lines

STYLES = '''"""Doc."""

import lib as l  # 1


def shared(x):  # 2: a and b
    """Doc."""
    return l.nn.helper(x)


def core(x):  # 2: core
    return l.Linear(x)


@l.decorated
def build(config):  # 3: core
    return core(config)  # why


def a(config, optimiser):  # 2: a
    return l.jit(shared)(build(config))


def b(config, optimiser):  # 3: b
    core = l.tanh(1.0)
    return shared(only_b(core))


@l.vectorize
def only_b(a: Shape) -> Shape:  # 3: b, and not the style a
    return a


if l.windows:  # 2: b, by its annotation
    type Shape = list[int]


def unused():  # 2: core
    return 1


STYLES = {"pure": pure_style(build), "a": a}  # 1
if l.has_b:  # 1
    STYLES["b"] = b  # 1
'''


def test_a_style_adds_what_it_uses_and_the_core_does_not(tmp_path: Path) -> None:
    path = tmp_path / "styles.py"
    path.write_text(STYLES)
    assert style_lines(path) == {"core": 11, "a": 4, "b": 10}


@pytest.mark.parametrize(
    ("use", "added"),
    [("cell = x; return cell", 0), ("return lambda x: cell", 1), ("return x.cell", 0)],
)
def test_a_definition_is_used_where_no_local_name_hides_it(
    tmp_path: Path, use: str, added: int
) -> None:
    path = tmp_path / "scopes.py"
    path.write_text(f"def jit(x):\n  {use}\ncell: int = 1\nSTYLES: Styles = {{'jit': jit}}\n")
    assert style_lines(path) == {"core": 2 - added, "jit": 2 + added}


@pytest.mark.parametrize("name", impls.names())
def test_every_entrant_is_counted_by_style(name: str) -> None:
    lines = style_lines(impls.source(name))
    total = code_lines(impls.source(name))
    assert 20 < lines["core"] < total or lines == {"core": total}
    assert total <= sum(lines.values())
    assert all(lines.values())
    if name in impls.here():
        assert [*lines] == ["core", *(s for s in impls.load(name).styles if s != "pure")]


# Installations


def put(folder: Path, name: str, *requires: str, size: int = 0) -> None:
    """Write a distribution as an installer would."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
    (folder / f"{name}.py").write_bytes(b"#" * size)
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / f"{name}.pyc").write_bytes(b"#" * 1000)
    recorded = [f"{name}.py,,", f"__pycache__/{name}.pyc,,", f"{name}-gone.py,,"]
    (info / "RECORD").write_text("\n".join(recorded) + "\n")


def test_an_installation_is_what_a_library_needs_beyond_jax(tmp_path: Path) -> None:
    put(tmp_path, "jax", "shared", size=7)
    put(tmp_path, "shared", size=7)
    needs = ("jax>=0.5,<1", "shared", "Small_Part[more]", "absent", 'tiny; python_version<"3"')
    put(tmp_path, "lib", *needs, size=100)
    put(tmp_path, "small.part", "lib", 'extra-part; extra=="more"', 'tiny; extra=="else"', size=10)
    put(tmp_path, "extra-part", size=5)
    put(tmp_path, "tiny", size=1)
    packages = {"lib": 100, "small-part": 10, "extra-part": 5}
    found = installation("lib", tmp_path)
    assert found == {"bytes": 115, "packages": packages}
    assert list(found["packages"]) == list(packages)
    with pytest.raises(BakeoffError, match="other is not installed here"):
        installation("other", tmp_path)


# Releases


def test_the_dated_file_knows_every_library() -> None:
    known = json.loads(LIBRARIES.read_text("utf-8"))
    libraries = known["libraries"].values()
    distributions = {impls.declared(name).distribution for name in impls.names()}
    assert {library["distribution"] for library in libraries} == distributions
    assert all(date.fromisoformat(library["latest_on"]) for library in libraries)
    assert max(library["latest_on"] for library in libraries) <= known["as_of"]


# The command


def test_the_table_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["entrants", "--details"]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    assert re.search(
        r"^ *equinox +core \d+ +\d+\.\d+\.\d+ on .* [\d.]+ [kM]B +\d+ +\d+", done.out, re.M
    )


def test_details_for_machines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file that cannot be counted costs its own details only."""
    outside = {name: tmp_path / f"{name}.py" for name in ("bad", "other")}
    outside["bad"].write_text("def (")
    outside["other"].write_text("DISTRIBUTION = 'equinox'\nSTYLES = dict()\nbuild = None")
    monkeypatch.setattr(impls, "OUTSIDE", outside)
    assert main(["entrants", "--details", "--json"]) == 0
    rows = {row["entrant"]: row["details"] for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == impls.names()
    for name in impls.here():
        if name not in outside:
            assert rows[name]["problems"] == []
            assert rows[name]["lines"] == style_lines(impls.source(name))
    assert rows["flax_nnx"]["install"]["bytes"] > 100_000
    assert rows["pure_jax"]["install"] == {"bytes": 0, "packages": {}}
    assert rows["torch"]["releases"]["releases_in_a_year"] > 0
    [problem] = rows["bad"].pop("problems")
    assert "syntax error" in problem
    assert rows["bad"] == {"lines": None, "install": None, "releases": None}
    [problem] = rows["other"]["problems"]
    assert "'other' cannot be counted by style" in problem
    assert rows["other"]["lines"] is None
    assert rows["other"]["install"] == rows["equinox"]["install"]


def test_an_own_environment_is_read_where_it_is(tmp_path: Path) -> None:
    builder = Builder(tmp_path)
    found = details("keras", builder)
    assert found["install"] is None
    assert "`bakeoff entrants --build keras`" in found["problems"][0]
    wanted = of_entrant("keras")
    path = builder._folder(Resolution(wanted.lock), wanted.pythons[0])
    put(path / "lib" / "python3.13" / "site-packages", "keras", size=12)
    python_of(path).parent.mkdir()
    python_of(path).touch()
    (path / MARK).touch()
    found = details("keras", builder)
    assert found["install"] == {"bytes": 12, "packages": {"keras": 12}}
    assert found["problems"] == []
