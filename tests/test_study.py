"""The published study of initialisers: its script makes its tables, and trains."""

import json
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


@pytest.mark.slow
def test_it_trains_from_what_was_published(tmp_path: Path) -> None:
    """Losses of the first epoch and sizes of the weights, of one seed in place of ten; from the
    second epoch on, rounding decides."""
    study(tmp_path, "new.json", "--train", "synthetic", "--seeds", "1", "--epochs", "2")
    published = json.loads((STUDY / "losses" / "synthetic.json").read_text("utf-8"))
    trained = json.loads((tmp_path / "new.json").read_text("utf-8"))
    for ours, theirs in zip(trained["starts"], published["starts"], strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["losses"]["0"][0] == pytest.approx(theirs["losses"]["0"][0], abs=0.02)
        for made, known in zip(ours["layers"], theirs["layers"], strict=True):
            assert made["kernel"] == pytest.approx(known["kernel"], rel=0.03)
            assert made["below"] == pytest.approx(known["below"], rel=0.1)
