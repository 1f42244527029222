"""Imports of the house: its arrows, and the packages that stay outside."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import impls
from bench.worker.settings import environment
from common.versions import COMMON
from tests.commands import ROOT

PACKAGES = ("bench", "impls", "common")
"""Each may know those that come after it."""
REGISTRY = ("BASELINE", "load")
"""Names of `impls/__init__.py` that `impls/libraries/` uses."""
HELPERS = ("impls._layerwise", "impls.libraries")
"""Packages that an entrant may import from: of the second, its library's module."""


def imported(path: Path, *, types: bool = True) -> set[str]:
    """Return the dotted names that a file imports anywhere, `from a import b` as `a.b`.

    With `types`, those that are imported for type checking alone are among them.
    """
    names, nodes = set[str](), list[ast.AST]([ast.parse(path.read_text())])
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            nodes += ast.iter_child_nodes(node)
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrows(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        room = path.relative_to(ROOT / package).parts[0]
        for name in imported(path):
            top, below = f"{name}.".split(".")[:2]
            arrow = f"{path.relative_to(ROOT)} imports {name}"
            assert top != "tests", arrow
            if top in PACKAGES:
                assert PACKAGES.index(top) >= PACKAGES.index(package), arrow
            if package == top == "impls":
                # An entrant never imports a sibling, nor the registry an entrant.
                helper = name.startswith(HELPERS) and path.stem in (*name.split("."), "pure_jax")
                registry = room == "libraries" and below in REGISTRY
                older = (name, room) == ("impls.older_releases", "__init__.py")
                assert helper or registry or older, arrow


def test_the_rooms_import_those_below_them_that_their_table_names_and_its_paths_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:3] == "| `"]
    drawn = {room.strip("`"): {*re.findall(r"`(\w+)`", names)} for room, _, names in rows}
    rooms = [*drawn]
    assert {*rooms} == {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    for place, (room, names) in enumerate(drawn.items()):
        arrows = {
            (name.split(".")[1], f"{path.relative_to(ROOT)} imports {name}")
            for path in (ROOT / "bench" / room).rglob("*.py")
            for name in imported(path)
            if name.startswith("bench.")
        }
        below = {*rooms[place + 1 :]}
        assert [arrow for to, arrow in arrows if to in {*rooms} - below - {room}] == []
        assert {to for to, _ in arrows} & below == names, room
    for path in re.findall(r"`((?:bench|impls|tests|docs)/[\w/.*]*)`", text):
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("entrant", impls.names())
def test_an_entrant_imports_its_own_library_alone(entrant: str) -> None:
    """Packages that the library brings along are its own affair."""
    about = impls.read_declaration(entrant)
    needed = {about.distribution, *(Requirement(text).name for text in about.requirements)}
    origins = metadata.packages_distributions()
    packages = {package for package, names in origins.items() if needed & {*names}}
    names = imported(impls.source(entrant), types=False)
    names = {name for name in names if not name.startswith(HELPERS)}
    tops = {name.split(".")[0] for name in names}
    assert tops - sys.stdlib_module_names <= {*COMMON, "common", entrant, *packages}


def run(script: str) -> str:
    """Return what a fresh interpreter prints, started as a worker is."""
    fresh = [sys.executable, "-W", "error", "-c", script]
    return subprocess.check_output(fresh, env=environment(), cwd=ROOT, text=True)


HELP = """
import sys
from bench.cli import app, main
for command in app.registered_commands:
    assert main([command.name, "--help"]) == 0
print({"jax", "numpy", "flax", "haiku", "equinox"} & set(sys.modules))
import bench.conftest
print({"jax", "flax", "haiku", "equinox"} & set(sys.modules))
"""


def test_help_and_the_process_that_only_starts_workers_import_no_library() -> None:
    assert run(HELP).splitlines()[-2:] == ["set()", "set()"]


def test_a_worker_imports_no_more_than_it_needs() -> None:
    """It has to run under other releases, where the rest need not be installed."""
    modules = [
        *("bench.worker.__main__", "bench.worker.session", "bench.worker.cold"),
        *("bench.worker.offers", "bench.check.judge", "impls.pure_jax"),
    ]
    # jax itself imports scipy for a few special functions: what it brings without us is its own
    script = (
        "import sys, json, importlib, jax, optax; before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    allowed = {*sys.stdlib_module_names, *PACKAGES, "numpy", "jax", "jaxlib", "optax"}
    assert set(json.loads(run(script))) <= allowed


def test_a_wheel_keeps_its_packages_in_a_folder_of_their_own(tmp_path: Path) -> None:
    """`bench`, `common` and `impls` are nobody's packages, and workers get nothing else."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [wheel] = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"jax_bakeoff_code", "jax_bakeoff.pth"}
    needed = ("requirements.lock", "impls/locks/keras.txt")
    assert {f"jax_bakeoff_code/{name}" for name in needed} <= set(names)


def test_the_table_of_tests_names_tests_that_exist() -> None:
    """Each name in a row of tests/README.md is a test of a file that the row links."""
    for line in (ROOT / "tests/README.md").read_text("utf-8").splitlines():
        files = re.findall(r"\]\(([\w/]+\.py)\)", line)
        texts = "".join((ROOT / "tests" / file).read_text("utf-8") for file in files)
        for name in re.findall(r"`(test_\w+)`", line):
            assert f"def {name}(" in texts, name
