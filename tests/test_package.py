"""The project is installed in place, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_is_refused_in_one_line(tmp_path: Path) -> None:
    """Packages named `bench`, `common` and `impls` belong in nobody's site-packages."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "clone the repository, then `make setup`" in done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_what_runs_is_the_clone() -> None:
    files = [str(path) for path in metadata.files("jax-bakeoff") or ()]
    assert not [name for name in files if name.startswith(("bench/", "common/", "impls/"))]
