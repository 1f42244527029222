"""Commands where the terminal, the interpreter or the machine is another one than usual."""

import os
import subprocess
import sys

import pytest

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
