"""Who imports whom, and what nobody imports: the arrows of the house."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import impls
from bench.worker.settings import environment

ROOT = Path(impls.__file__).parents[1]
PACKAGES = ("bench", "impls", "common")
"""Each may know those that come after it."""
ROOMS = (
    *("cli", "fleet", "trials", "cost", "track", "check", "report"),
    *("environments", "engine", "runfile", "stats", "worker"),
)
"""Folders of `bench/`: each may know those that come after it."""
LIBRARIES = {"flax", "haiku", "equinox"}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, `from a import b` as `a.b`.

    What is imported for type checking alone is an arrow of words, not of code.
    """
    names = set()
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    package, room = path.relative_to(ROOT).parts[:2]
    for name in imported(path):
        top, below = f"{name}.".split(".")[:2]
        assert top != "tests"
        if top in PACKAGES:
            assert PACKAGES.index(top) >= PACKAGES.index(package), name
        if package == top == "impls":
            # An entrant never imports a sibling, nor the registry an entrant.
            assert (name, room) == ("impls.older", "__init__.py")
        if top == "bench" and {room, below} <= set(ROOMS):
            assert ROOMS.index(below) >= ROOMS.index(room), name


def test_every_room_has_its_place() -> None:
    folders = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert folders <= set(ROOMS)


def run(script: str) -> str:
    """Return what a fresh interpreter prints, started as a worker is."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment(),
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HELP = """
from bench.cli import app, main
for command in app.registered_commands:
    assert main([command.name, "--help"]) == 0
"""


@pytest.mark.parametrize(
    ("script", "unwanted"),
    [
        ("import impls; impls.names(), impls.usual()", {"jax"}),
        ("import bench.conftest", {"jax", *LIBRARIES}),
        (HELP, {"jax", "numpy", *LIBRARIES}),
    ],
    ids=["names", "the parent", "help"],
)
def test_what_needs_no_library_imports_none(script: str, unwanted: set[str]) -> None:
    found = run(f"{script}\nimport sys; print({unwanted!r} & set(sys.modules))")
    assert found.splitlines()[-1] == "set()"


def test_a_worker_imports_no_more_than_it_needs() -> None:
    """It has to run under other releases, where the rest need not be installed."""
    modules = [
        *("bench.worker.__main__", "bench.worker.session", "bench.worker.cold"),
        *("bench.worker.offers", "impls.pure_jax"),
    ]
    # jax itself imports scipy for a few special functions: what it brings without us is its own
    script = (
        "import sys, json, importlib, jax, optax; before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    allowed = {*sys.stdlib_module_names, *PACKAGES, "numpy", "jax", "jaxlib", "optax"}
    assert set(json.loads(run(script))) <= allowed
