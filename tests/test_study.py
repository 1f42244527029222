"""The published study of initialisers: its script makes its tables, and trains."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, how

STUDY = ROOT / "results" / "initialisers"


def study(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(STUDY / "study.py"), *arguments]
    done = subprocess.run(command, **how(folder), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["metamorphosis", "synthetic"])
def test_the_published_tables_are_those_of_the_published_losses(tmp_path: Path, text: str) -> None:
    table, why = study(tmp_path, str(STUDY / "losses" / f"{text}.json")).split("\n\n")
    readme = (STUDY / "README.md").read_text("utf-8")
    assert table in readme
    assert (why in readme) == (text == "metamorphosis")
    for patch in STUDY.glob("*.patch"):
        assert patch.read_text("utf-8") in readme
