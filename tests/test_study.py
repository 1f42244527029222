"""The published study of initialisers: its script makes its tables."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, how

STUDY = ROOT / "results" / "initialisers"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["metamorphosis", "synthetic"])
def test_the_published_tables_are_those_of_the_published_losses(tmp_path: Path, text: str) -> None:
    command = [sys.executable, *map(str, (STUDY / "study.py", STUDY / "losses" / f"{text}.json"))]
    table, why = subprocess.check_output(command, **how(tmp_path)).split("\n\n")
    readme = (STUDY / "README.md").read_text("utf-8")
    assert table in readme
    assert (why in readme) == (text == "metamorphosis")
    for patch in STUDY.glob("*.patch"):
        assert patch.read_text("utf-8") in readme
