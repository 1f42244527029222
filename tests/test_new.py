"""`bakeoff new`, and the tutorial that begins with it: every block is executed, in order."""

from __future__ import annotations

import ast
import re
import resource
import shlex
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import impls
from bench.check.checks import CHECKS
from bench.cli import main
from bench.cli.new import skeleton
from tests.commands import bench, how

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "adding.md").read_text()
BLOCKS = re.findall(r"(?:In place of `(\w+)`:\n\n)?```(python|console)\n(.*?)```", TUTORIAL, re.S)
"""The name that a block replaces, its language, its text."""


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", {})


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def squeezed(text: str) -> str:
    """Return a text without what depends on the terminal's width."""
    return "".join(text.split())


def replaced(source: str, name: str, new: str) -> str:
    """Return a file in which the definition or the import of a name is another one."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=found):
                defined = {found}
            case ast.Assign(targets=[ast.Name(id=found)]):
                defined = {found}
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                defined = {alias.asname or alias.name for alias in names}
            case _:
                continue
        if name in defined:
            assert isinstance(node, ast.stmt)
            lines[node.lineno - 1 : node.end_lineno] = textwrap.indent(new, " " * node.col_offset)
            return "".join(lines)
    raise AssertionError(f"the file has no {name}")


def run(command: str, capsys: pytest.CaptureFixture[str], here: Path) -> str:
    """Run a command of the tutorial; return what it printed."""
    words = shlex.split(command)
    if words[0] == "bakeoff":
        main(words[1:])
        return capsys.readouterr().out
    assert words[:2] == ["pytest", "bench"]
    measuring = bench("--backend=cpu", *words[2:])
    done = subprocess.run(measuring, **how(here), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    assert len(BLOCKS) == len(re.findall(r"^```\w+$", TUTORIAL, re.M))
    for replaces, kind, text in BLOCKS:
        if kind == "python":
            path.write_text(replaced(path.read_text(), replaces, text))
            continue
        for command, expected in commands(text):
            printed = squeezed(run(command, capsys, tmp_path))
            for part in expected.split("…"):
                assert squeezed(part) in printed, f"{command} does not say: {part}"


def test_its_table_is_the_checks() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", TUTORIAL, re.M)
    assert rows == [(name, check.about) for name, check in CHECKS.items()]


def test_the_skeleton_is_python_and_names_its_stages_in_order() -> None:
    text = skeleton("mine")
    ast.parse(text)
    assert "NAME" not in text
    assert sorted(re.findall(r"# (\d)\. ", text)) == list("123456")


def test_new_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine", "--into", str(tmp_path)]) == 0
    path = tmp_path / "mine.py"
    assert path.read_text() == skeleton("mine")
    assert f"bakeoff check {path}\n" in capsys.readouterr().out


def test_new_leaves_nothing_on_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that may not grow stands for it: the write fails after the file was made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        status = main(["new", "mine", "--into", str(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert capsys.readouterr().err.startswith(f"bakeoff: cannot write {tmp_path / 'mine.py'}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "a-b": "entrant 'a-b' is not a Python identifier; give a name of letters, digits and _",
        "class": "entrant 'class' is not a Python identifier",
        "haiku": "there is an entrant 'haiku' already; known: pure_jax, ",
        "control": "entrant 'control': control and all are reserved",
        "here": "here.py exists already; files are never overwritten: name a new one",
        "mine --into nowhere": "there is no folder nowhere; make it first",
        "mine --into here.py": "here.py is not a folder; name another one",
        "": "Missing argument 'NAME'",
    }.items(),
)
def test_wrong_use(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.py").write_text("mine")
    assert main(["new", *arguments.split()]) == 2
    assert message in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("here.py", "mine")]
