"""Commands where the terminal, the interpreter or the machine is another one than usual."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.cli import main
from bench.streams import print_text
from tests.commands import ROOT, command

RUN = ROOT / "results/selftest/aa/hour/05.json"
SEARCH = ROOT / "results/tracking/flax-0.12.1.json"


def show(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with further environment variables."""
    env = os.environ | variables
    return subprocess.run(command(*words), capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "-5"},
        {"COLUMNS": "wide"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict", "LC_ALL": "C"},
        {"PYTHONOPTIMIZE": "2"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
def test_a_report_is_shown(variables: dict[str, str]) -> None:
    done = show("report", str(SEARCH), "--format", "text", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.12.1" in done.stdout


def test_no_mistake_of_ours_looks_like_a_verdict() -> None:
    """Status 1 says that something is worse."""
    done = show("compare", str(RUN), "gone.json", PYTHONOPTIMIZE="2")
    assert done.returncode == 2
    code = "import bench.cli; bench.cli.main = lambda: 1 / 0; bench.cli.run()"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 70


def test_too_little_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.app", Mock(side_effect=MemoryError))
    assert main(["report", "run.json"]) == 2
    assert capsys.readouterr().err.startswith("bakeoff: there is too little memory for this")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_text_steers_no_terminal_and_stays_as_it_is_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    print_text("a\x1b[31m\u202eb\n\tc'")
    shown = "a\\x1b[31m\\u202eb\n\tc'\n" if is_terminal else "a\x1b[31m\u202eb\n\tc'\n"
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    "words",
    [("ab", "--base", "@2025-06-01"), ("history",), ("cost", "mine.py")],
)
def test_a_damaged_file_to_go_on_with_is_refused_before_anything_is_built(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.environments.builder.Builder", Mock(side_effect=AssertionError))
    (tmp_path / "mine.py").write_text("def make_step(): ...\n")
    text = RUN.read_text().replace('"metric":"step"', '"metric":"leap"')
    (tmp_path / "bad.json").write_text(text)
    assert main([*words, "--more", "bad.json"]) == 2
    error = capsys.readouterr().err
    assert "bad.json is damaged: it has a metric leap, which this version does not know" in error
    assert error.count("\n") == 1
