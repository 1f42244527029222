"""`bakeoff new`, and the pages that begin with it: every block is executed, in order."""

import ast
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from bench.cli import main
from tests.commands import ROOT, Bakeoff, bench, how

BLOCK = re.compile(
    r"(?:(?:In|(Replace)[a-z ]*) `([\w.]+)`(?: with)?:\n\n)?```(python|console)\n(.*?)```", re.S
)
"""Whether a block replaces a name of mine.py or makes a file, that name, its language, its text."""
SHORT = "--metric step --processes 1 --blocks 2 --rounds 2"
"""Instead of the budgets of the pages: a few seconds, on any machine."""


def squeeze(text: str) -> str:
    """Return a text without what depends on the terminal's width."""
    return "".join(text.split())


def replace_definition(source: str, name: str, new: str) -> str:
    """Return a file in which the definition or the import of a name is another one."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=function):
                defined = {function}
            case ast.Assign(targets=[ast.Name(id=variable)]):
                defined = {variable}
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
    """Run a command of a page; return what it printed."""
    words = shlex.split(re.sub(r"--budget \d+", SHORT, command))
    if words[0] == "cp":
        shutil.copy(ROOT / words[1], words[2])
        return ""
    if words[0] == "bakeoff":
        main([*words[1:], *["--budget", "15"] * (words[1:] == ["cost", "mine.py"])])
        return capsys.readouterr().out
    assert words[:2] == ["pytest", "bench"]
    measuring = bench("--backend=cpu", *words[2:])
    done = subprocess.run(measuring, **how(here), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adding.md", "your-step.md"])
def test_a_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / name).read_text("utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) == len(re.findall(r"^```(?:python|console)$", page, re.M))
    monkeypatch.chdir(tmp_path)
    for replaces, where, kind, text in blocks:
        if kind == "python":
            path = Path("mine.py" if replaces else where)
            path.write_text(replace_definition(path.read_text(), where, text) if replaces else text)
            continue
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            printed = squeeze(run(command, capsys, tmp_path))
            for piece in expected.split("…"):
                assert squeeze(piece) in printed, f"{command} does not say: {piece}"


def test_new_writes_a_skeleton_where_it_is_told(bakeoff: Bakeoff) -> None:
    Path("there").mkdir()
    done = bakeoff("new", "mine", "--into", "there")
    assert done == (0, "wrote there/mine.py; next: bakeoff check there/mine.py\n", "")
    text = Path("there/mine.py").read_text("utf-8")
    ast.parse(text)
    assert "NAME" not in text
    assert re.findall(r"# (\d)\. ", text) == list("124356"), "the order in which checks ask for it"
