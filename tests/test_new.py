"""`bakeoff new`, and the pages that begin with it: every block is executed, in order."""

from __future__ import annotations

import ast
import builtins
import re
import resource
import shlex
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import impls
from bench.check.contract import file_contract
from bench.check.style_file import PURE, chosen_style, style_file
from bench.check.subject import SMALL, Subject
from bench.cli import main
from bench.cli.new import skeleton
from bench.environments.request import of_entrant
from bench.library_details import definitions_of, names_of, style_lines, style_values, styles_of
from common.declaration import declaration
from tests.commands import bench, how

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Bakeoff

ROOT = Path(__file__).parents[1]
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


def test_the_skeleton_is_python_and_names_its_stages_in_order() -> None:
    text = skeleton("mine")
    ast.parse(text)
    assert "NAME" not in text
    assert sorted(re.findall(r"# (\d)\. ", text)) == list("123456")


# With --from


def everything() -> list[tuple[str, str]]:
    """Return every style of every entrant."""
    return [(name, style) for name in impls.names() for style in styles_of(name)]


@pytest.mark.parametrize(("entrant", "style"), everything())
def test_every_style_can_be_begun_with(entrant: str, style: str, tmp_path: Path) -> None:
    """Its file defines all that it reads, offers this style, and declares what the entrant does."""
    text = style_file("mine", entrant, style)
    path = tmp_path / "mine.py"
    path.write_text(text, "utf-8")
    tree = ast.parse(text)
    assert [*style_values(tree)] == [style]
    defined = {*dir(builtins), *definitions_of(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    assert names_of(tree)[1] <= defined
    ours, theirs = declaration(path), impls.declared(entrant)
    for name in ("distribution", "jax", "requirements", "requires_python", "installed"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.alone == tuple({style} & {*theirs.alone})
    assert style == PURE or style_lines(path)[style] == style_lines(impls.source(entrant))[style]


@pytest.mark.parametrize(
    ("given", "style"),
    {
        "flax_nnx": "jit",
        "equinox": "filter_jit",
        "flax_linen": "train_state",
        "haiku": "transform",
        "pure_jax": "pure",
        "stax": "pure",
        "flax_nnx/jit_partial": "jit_partial",
    }.items(),
)
def test_the_style_that_is_begun_with(given: str, style: str) -> None:
    assert chosen_style(given) == (given.partition("/")[0], style)


@pytest.mark.parametrize("given", ["pure_jax", "haiku"])
def test_a_style_that_was_begun_with_is_equal(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bakeoff: Bakeoff
) -> None:
    """As it is: with code from the entrant's file, and with the step that all entrants share."""
    monkeypatch.chdir(tmp_path)
    assert bakeoff("new", "mine", "--from", given).status == 0
    done = bakeoff("check", "mine.py", "--only", "equality,gradient,ten-steps,retrace")
    assert done.status == 0, done.out
    assert "note" not in done.out


def test_a_file_with_packages_and_without_a_model_of_its_own_keeps_the_contract(
    tmp_path: Path,
) -> None:
    """Its packages are read from the comment block alone; `pure` is the other entrant's."""
    text = style_file("borrowed", "flax_nnx", "jit")
    block = '# /// script\n# dependencies = ["flax"]\n# ///\n'
    path = tmp_path / "borrowed.py"
    path.write_text(text.replace("from __future__", f"{block}\nfrom __future__", 1))
    impls.add(path)
    assert impls.declared("borrowed").requirements == ("flax",)
    assert list(file_contract(Subject("borrowed", None), SMALL)) == []


def test_an_environment_of_its_own_is_the_one_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(style_file("mine", "penzai", "stateful_trainer"))
    impls.add(path)
    assert of_entrant("mine").lock == of_entrant("penzai").lock != ()
    path.write_text(path.read_text().replace("penzai==", "penzai>="))
    assert of_entrant("mine").lock == ()


def test_no_entrant_imports_another(bakeoff: Bakeoff) -> None:
    folder = ROOT / "impls"
    done = bakeoff("new", "mine", "--from", "haiku", "--into", str(folder))
    assert (done.status, done.out) == (2, "")
    assert "the file would import haiku, and no entrant there imports another" in done.err
    assert not (folder / "mine.py").exists()


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
        "mine --from flex": "unknown entrant 'flex'; known: pure_jax, ",
        "mine --from haiku/jit": "unknown style of haiku 'jit'; known: pure, transform; choose",
        "mine --from haiku/": "unknown style of haiku ''; known: pure, transform; choose",
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
