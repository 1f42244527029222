"""The registry, and what the house demands of an entrant: styles, sizes, and who imports whom."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from functools import partial
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
OTHERS = sorted(path.stem for path in (ROOT / "impls").glob("[!_]*.py") if path.stem != "pure_jax")
KNOWN = ", ".join(["pure_jax", *OTHERS])
LIBRARIES = {"flax", "haiku", "equinox"}
ALLOWED = {
    "common": {"common"},
    "impls": {"common", "impls"},
    "bench": {"common", "impls", "bench"},
}
FILES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]

each_entrant = pytest.mark.parametrize("entrant", impls.usual())


def imported(path: Path) -> set[str]:
    """Return the absolute dotted names that a file imports anywhere, `from a import b` as `a.b`."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join(filter(None, [*parts, origin]))
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def test_names_baseline_first_then_in_order() -> None:
    assert ", ".join(impls.names()) == KNOWN
    assert impls.names()[0] == impls.BASELINE


def test_finding_entrants_imports_none() -> None:
    script = "import sys, impls; print(impls.names(), impls.usual(), 'jax' in sys.modules)"
    assert run(script) == f"{impls.names()} {impls.usual()} False"


def test_unknown_entrant() -> None:
    with pytest.raises(BakeoffError) as error:
        impls.load("flex_linen")
    assert str(error.value) == (f"unknown entrant 'flex_linen'; known: {KNOWN}; choose one of them")


@pytest.mark.parametrize("name", ["", "os", "pure_jax.dense", "__init__", "../impls/haiku"])
def test_nothing_but_entrants_is_imported(name: str) -> None:
    with pytest.raises(BakeoffError, match="unknown entrant"):
        impls.load(name)


def test_unknown_style() -> None:
    with pytest.raises(BakeoffError) as error:
        impls.load("equinox").style("jit")
    assert str(error.value) == (
        "unknown style of equinox 'jit'; known: pure, filter_jit; choose one of them"
    )


def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError("No module named 'haiku'", name="haiku")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BakeoffError) as error:
        impls.load("haiku")
    assert str(error.value) == (
        "entrant 'haiku' needs the package 'haiku', which is not installed; "
        "install it, or choose another entrant"
    )
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


@each_entrant
def test_offers_what_the_contract_asks(entrant: str) -> None:
    loaded = impls.load(entrant)
    assert loaded.name == entrant
    assert next(iter(loaded.styles)) == "pure"
    assert all(loaded.style(name) is style for name, style in loaded.styles.items())
    assert importlib.metadata.version(loaded.distribution)


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name for name in imported(path) if name.split(".")[0] in {*ALLOWED, "tests"}}
    assert {name.split(".")[0] for name in ours} <= ALLOWED[package]
    if package == "impls":
        siblings = {name for name in ours if name.startswith("impls")}
        if path.parent.name == "impls" and path.name == "__init__.py":
            siblings -= {"impls.older"}
        assert not siblings, "an entrant never imports a sibling, nor the registry an entrant"


ROOMS = (
    *("cli", "fleet", "trials", "compare", "check", "doctor", "report"),
    *("runfile", "environments", "engine", "stats", "worker"),
)
"""Folders of `bench/`: each may know those that come after it."""


def test_every_room_has_its_place() -> None:
    folders = {path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_know_only_what_comes_after_them(room: str) -> None:
    """The engine knows no report, reports know no comparison, nobody knows the command line."""
    after = ROOMS[ROOMS.index(room) :]
    for path in sorted((ROOT / "bench" / room).rglob("*.py")):
        known = {name.split(".")[1] for name in imported(path) if name.startswith("bench.")}
        assert known & set(ROOMS) <= set(after), path.relative_to(ROOT)


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


def test_relative_imports_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "impls" / "a.py"
    path.parent.mkdir()
    path.write_text("from . import b\nfrom .c import d\nfrom ..bench import e\nimport f.g\n")
    assert imported(path) == {"impls.b", "impls.c.d", "bench.e", "f.g"}


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
    assert new <= {*sys.stdlib_module_names, *ALLOWED, "numpy", "jax", "jaxlib", "optax"}
