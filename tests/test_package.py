"""The package as it is installed: without the repository around it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, and unpack it where nothing of the repository is."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("jax_bakeoff-*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def bakeoff(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=installed.parent,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_holds_code_and_licence_and_nothing_else(installed: Path) -> None:
    tops = {path.name for path in installed.iterdir()}
    [info] = [name for name in tops if name.endswith(".dist-info")]
    assert tops == {"impls", "common", "bench", info}
    assert (installed / info / "licenses" / "LICENSE").exists()


@pytest.mark.slow
def test_commands_work_from_the_wheel(installed: Path) -> None:
    done = bakeoff(installed, "train", "--corpus=toy", "--width=8", "--epochs=1", "--save=w.st")
    assert done.returncode == 0, done.stderr
    assert bakeoff(installed, "sample", "w.st", "--length=5").returncode == 0
    rows = json.loads(bakeoff(installed, "entrants", "--json").stdout)
    assert {row["entrant"] for row in rows} >= {"pure_jax", "flax_linen", "equinox"}


def test_help_says_where_benchmarks_run(installed: Path) -> None:
    assert "from a clone of the repository" in " ".join(bakeoff(installed, "--help").stdout.split())
