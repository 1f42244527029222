"""The registry, and what the house demands of an entrant: styles, sizes, and who imports whom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
import pytest

import impls
from bench.worker.settings import environment
from common import reference
from common.config import ModelConfig
from common.equality import (
    Case,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
)
from common.errors import BakeoffError
from common.loss import scan_loss
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE

if TYPE_CHECKING:
    from common.contract import Weights

ROOT = Path(impls.__file__).parents[1]
LIBRARIES = {"flax", "haiku", "equinox"}
PACKAGES = ("bench", "impls", "common")
"""Each may know those that come after it."""
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

each_entrant = pytest.mark.parametrize("entrant", impls.usual())


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports anywhere, `from a import b` as `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide what is imported"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_names_baseline_first_then_in_order() -> None:
    others = [path.stem for path in (ROOT / "impls").glob("[!_]*.py") if path.stem != "pure_jax"]
    assert impls.names() == [impls.BASELINE, *sorted(others)]


@pytest.mark.parametrize("name", ["", "os", "pure_jax.dense", "__init__", "../impls/haiku"])
def test_nothing_but_entrants_is_imported(name: str) -> None:
    with pytest.raises(BakeoffError, match="unknown entrant"):
        impls.load(name)


@each_entrant
def test_offers_what_the_contract_asks(entrant: str) -> None:
    loaded = impls.load(entrant)
    assert loaded.name == entrant
    assert next(iter(loaded.styles)) == "pure"
    assert all(loaded.style(name) is style for name, style in loaded.styles.items())
    assert metadata.version(loaded.distribution)


@each_entrant
def test_one_layer(entrant: str) -> None:
    """Loss and gradient are the reference's, and a fresh init has the sizes that were asked for.

    Two and three layers are in the table of test_equality.py.
    """
    case = Case(ModelConfig(7, 6, layers=1), chunk=4, batch=2)
    model, weights = impls.load(entrant).build(case.model), random_weights(case.model)
    hidden, chunk = random_hidden(case), random_chunk(case, 1, masked=1)

    @jax.jit
    def loss_and_grads(params: object) -> tuple[tuple[jax.Array, object], Weights]:
        def loss_fn(params: object) -> tuple[jax.Array, object]:
            return scan_loss(partial(model.step, params), hidden, chunk)

        value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return value, model.to_weights(grads)

    (loss, _), grads = loss_and_grads(model.from_weights(weights))
    answer = reference.loss_and_grads(weights, hidden, chunk)
    assert float(loss) == pytest.approx(answer.loss, rel=LOSS_TOLERANCE)
    assert relative_norm(grads, answer.grads) <= GRADIENT_TOLERANCE

    fresh = jax.eval_shape(lambda: model.to_weights(model.init(jax.random.key(0))))
    assert [len(fresh.cells), *map(len, fresh.cells)] == [1, 2]
    for ours, theirs in zip(jax.tree.leaves(fresh), jax.tree.leaves(weights), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)


@each_entrant
def test_init_depends_on_the_key(entrant: str) -> None:
    """Two keys give two models, one key the same one twice, and no two layers are alike."""
    model = impls.load(entrant).build(ModelConfig(5, 8))
    one, again, other = (model.to_weights(model.init(jax.random.key(k))) for k in (0, 0, 1))
    for a, b, c in zip(*([*w.cells, w.readout] for w in (one, again, other)), strict=True):
        np.testing.assert_array_equal(a.kernel, b.kernel)
        assert not np.array_equal(a.kernel, c.kernel)
    assert not np.array_equal(one.cells[1].kernel, one.cells[2].kernel)


ROOMS = (
    *("cli", "cost", "initialisers", "fleet", "trials", "compare", "check", "doctor", "report"),
    *("runfile", "environments", "engine", "stats", "worker"),
)
"""Folders of `bench/`: each may know those that come after it."""


def test_every_room_has_its_place() -> None:
    folders = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    """The engine knows no report, reports know no comparison, nobody knows the command line."""
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


def test_what_is_reported_needs_no_engine() -> None:
    """Reports and run files read what was found, directly or by a module beside the rooms."""
    waiting = [*(ROOT / "bench" / "report").rglob("*.py"), *(ROOT / "bench/runfile").glob("*.py")]
    seen = set(waiting)
    while waiting:
        names = {name for name in imported(waiting.pop()) if name.startswith("bench.")}
        assert not [name for name in names if name.split(".")[1] == "engine"]
        beside = {ROOT / "bench" / f"{name.split('.')[1]}.py" for name in names}
        new = {path for path in beside - seen if path.exists()}
        waiting += new
        seen |= new
    assert ROOT / "bench" / "samples.py" in seen


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
        *("common." + name for name in ("equality", "steps", "train", "sample", "chunker")),
        *("common." + name for name in ("vocab", "corpus", "weights")),
        *("bench.worker.__main__", "bench.worker.program", "bench.cells"),
        "impls.pure_jax",
    ]
    unwanted = LIBRARIES | {
        *("pytest", "rich", "typer", "safetensors", "pooch", "jaxtyping", "scipy"),
    }
    # jax itself imports scipy for a few special functions: what it brings without us is its own
    script = (
        "import sys, json, importlib, jax, optax; before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    new = set(json.loads(run(script)))
    assert not new & unwanted
    assert new <= {*sys.stdlib_module_names, *PACKAGES, "numpy", "jax", "jaxlib", "optax"}
