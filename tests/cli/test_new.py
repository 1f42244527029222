"""`bakeoff new`, and the pages that begin with it: every block is executed, in order."""

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
from bench.check.skeleton import skeleton, style_file
from bench.cli import main
from tests.commands import bench, how

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Bakeoff

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:In (place of )?`([\w.]+)`:\n\n)?```(python|console)\n(.*?)```", re.S)
"""Whether a block replaces a name of mine.py or makes a file, that name, its language, its text."""
SHORT = "--metric step --processes 1 --blocks 2 --rounds 2"
"""Instead of the budgets of the pages: a few seconds, on any machine."""


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
    if words[0] == "bakeoff":
        main(words[1:])
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
    assert len(blocks) == len(re.findall(r"^```\w+$", page, re.M))
    monkeypatch.chdir(tmp_path)
    for replaces, where, kind, text in blocks:
        if kind == "python":
            path = Path("mine.py" if replaces else where)
            path.write_text(replaced(path.read_text(), where, text) if replaces else text)
            continue
        for command, expected in commands(text):
            printed = squeezed(run(command, capsys, tmp_path))
            for part in expected.split("…"):
                assert squeezed(part) in printed, f"{command} does not say: {part}"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), skeleton("mine")),
        (("--from", "haiku"), style_file("mine", "haiku", "transform")),
        (("--from", "haiku/pure"), style_file("mine", "haiku", "pure")),
    ],
)
def test_new_writes_where_it_is_told(options: tuple[str, ...], text: str, bakeoff: Bakeoff) -> None:
    Path("there").mkdir()
    done = bakeoff("new", "mine", "--into", "there", *options)
    assert done == (0, "wrote there/mine.py; next: bakeoff check there/mine.py\n", "")
    assert Path("there/mine.py").read_text("utf-8") == text


def test_new_leaves_nothing_on_a_full_disk(bakeoff: Bakeoff) -> None:
    """A file that may not grow stands for it: the write fails after the file was made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        done = bakeoff("new", "mine")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.status == 2
    assert done.err.startswith("bakeoff: cannot write mine.py: ")
    assert not Path("mine.py").exists()


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
        "mine --from flex": "unknown entrant 'flex'; known: pure_jax, ",
        "mine --from haiku/jit": "unknown style of haiku 'jit'; known: pure, transform; choose",
        "mine --from haiku/": "unknown style of haiku ''; known: pure, transform; choose",
    }.items(),
)
def test_wrong_use(arguments: str, message: str, bakeoff: Bakeoff) -> None:
    Path("here.py").write_text("mine")
    done = bakeoff("new", *arguments.split())
    assert done.status == 2
    assert message in done.err
    assert [path.name for path in Path().glob("*.py")] == ["here.py"]
    assert Path("here.py").read_text() == "mine"
