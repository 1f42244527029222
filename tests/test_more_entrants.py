"""What is particular to NumPy, and what the files of the other entrants show.

Keras, Penzai, Trax and PyTorch have environments of their own, where their equality is proven; what
can be read without their library is judged here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest

import impls
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, flat, fresh_checkpoint, unflat
from common.equality import (
    Case,
    NotEqualError,
    deviation,
    loss_and_gradient_deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)
from common.errors import BakeoffError
from common.reference import loss_and_grads
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from common.contract import TrainStep, Weights

    type StepOf = Callable[[str, str, Case], TrainStep]

PACKAGES = {"keras": "keras", "penzai": "penzai", "trax": "trax", "torch": "torch"}
"""Entrants with an environment of their own, and the one package that each may import."""
TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)

each_elsewhere = pytest.mark.parametrize("entrant", PACKAGES)
each_file = pytest.mark.parametrize("entrant", ["stax", "numpy", *PACKAGES])


def numpy_step(case: Case) -> TrainStep:
    return make(impls.load("numpy").style("loop"), case)


def checkpoint_of(config: ModelConfig) -> Checkpoint:
    trees = [random_weights(config, seed) for seed in range(3)]
    return Checkpoint(trees[0], mu=trees[1], nu=jax.tree.map(np.square, trees[2]), updates=7)


# What the reference says.


def test_one_layer() -> None:
    case = Case(ModelConfig(7, 6, layers=1), chunk=4, batch=2)
    loss, gradient = loss_and_gradient_deviation(numpy_step(case), case)
    assert loss <= LOSS_TOLERANCE
    assert gradient <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("layer", range(TOY.model.layers + 1))
def test_a_bias_forgotten_by_hand_is_seen(
    layer: int, step_of: StepOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof must be able to fail: NumPy's gradient is written by hand, so break it there."""
    module = importlib.import_module("impls.numpy")
    right, (rows, columns) = module.backward, np.shape(flat(random_weights(TOY.model))[layer][0])

    def wrong(params: Any, grads: Any, *arrays: Any) -> Any:
        d_x = right(params, grads, *arrays)
        if params.kernel.shape == (rows, columns):
            grads.bias[...] = 0
        return d_x

    baseline = trajectory(step_of(impls.BASELINE, "pure", TOY), TOY)
    monkeypatch.setattr(module, "backward", wrong)
    with pytest.raises(NotEqualError, match="gradient off by"):
        deviation(numpy_step(TOY), TOY, baseline).require()


@pytest.mark.parametrize("arm", [("numpy", "loop"), (impls.BASELINE, "pure")], ids="-".join)
def test_large_logits_give_no_nan(arm: tuple[str, str], step_of: StepOf) -> None:
    """A gap of 90 nats, at which softmax and then its logarithm overflow."""
    layers = flat(random_weights(TOY.model))
    weights = unflat([*layers[:-1], layers[-1]._replace(kernel=layers[-1].kernel * 1000)])
    step, chunk = step_of(*arm, TOY), random_chunk(TOY, 1)
    step.load(fresh_checkpoint(weights))
    _, loss = step(random_hidden(TOY), chunk)
    expected = loss_and_grads(weights, random_hidden(TOY), chunk).loss
    assert expected > 90
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step.save()))


# Weights, and what a step holds.


def test_numpy_draws_lecun_normal() -> None:
    """Standard deviation 1 / √rows, as in the baseline, and no bias."""
    config = ModelConfig(64, 256)
    weights = impls.load("numpy").build(config).init(jax.random.key(3))
    for kernel, bias in flat(weights):
        assert np.std(kernel) * np.sqrt(len(kernel)) == pytest.approx(1, abs=0.02)
        assert not bias.any()


def test_what_was_given_or_given_back_is_left_alone() -> None:
    """Updates in place must not reach the caller's arrays, nor those of another step."""
    step, other = numpy_step(TOY), numpy_step(TOY)
    given, hidden, chunk = checkpoint_of(TOY.model), random_hidden(TOY), random_chunk(TOY, 1)
    step.load(given)
    other.load(given)
    after, loss = step(hidden, chunk)
    kept = jax.tree.map(np.array, (after, loss, saved := step.save()))
    step(after, chunk)
    jax.tree.map(np.testing.assert_array_equal, (after, loss, saved), kept)
    jax.tree.map(np.testing.assert_array_equal, given, checkpoint_of(TOY.model))
    jax.tree.map(np.testing.assert_array_equal, hidden, random_hidden(TOY))
    jax.tree.map(np.testing.assert_array_equal, other.save(), given)


def test_numpy_computes_in_float32() -> None:
    """Also where Python's numbers, or a float64 array, would widen it."""
    case = replace(TOY, optimiser=OptimiserConfig(0.01, weight_decay=0.1))
    step = numpy_step(case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    wide: Weights = jax.tree.map(np.float64, random_weights(case.model))
    for checkpoint in (step.save(), fresh_checkpoint(wide)):
        step.load(checkpoint)
        after, loss = step(random_hidden(case), random_chunk(case, 1))
        trees = (after, loss, step.save()[:3])
        assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {np.dtype(np.float32)}


# What a file says of itself, without its library.


def tree_of(entrant: str) -> ast.Module:
    return ast.parse(impls.source(entrant).read_text("utf-8"))


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """Yield the top-level packages that statements import, those for type checkers apart."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for each in ast.walk(node):
            if isinstance(each, ast.Import):
                yield from (alias.name.split(".")[0] for alias in each.names)
            elif isinstance(each, ast.ImportFrom):
                assert each.level == 0
                yield str(each.module).split(".")[0]


@pytest.mark.parametrize("entrant", impls.names())
def test_imports_its_own_library_alone(entrant: str) -> None:
    """Read from the file: what a library brings along itself is the library's affair."""
    own, origins = impls.declared(entrant).distribution, metadata.packages_distributions()
    packages = {package for package, found in origins.items() if own in found} | {entrant}
    allowed = {*sys.stdlib_module_names, "common", "jax", "optax", "numpy", *packages}
    assert set(imported(tree_of(entrant).body)) <= allowed


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import a.b as c, d", {"a", "d"}),
        ("def f():\n    from e.f import g", {"e"}),
        ("if TYPE_CHECKING:\n    import h", set()),
    ],
)
def test_imports_are_seen(code: str, found: set[str]) -> None:
    assert set(imported(ast.parse(code).body)) == found


@each_file
def test_declares_what_it_is(entrant: str) -> None:
    about = impls.declared(entrant)
    assert about.distribution == {"stax": "jax"}.get(entrant, entrant)
    assert about.jax == (entrant not in {"numpy", "torch"})
    assert about.own_environment == (entrant in PACKAGES)
    assert about.note.endswith(".") or not about.note
    assert ast.get_docstring(tree_of(entrant))


def test_what_is_no_longer_kept_up_or_not_jax_is_said() -> None:
    assert "2021" in impls.declared("trax").note
    for entrant in ("torch", "numpy"):
        assert "not a JAX library" in impls.declared(entrant).note


@each_file
def test_styles_are_named_and_pure_is_first_where_there_is_jax(entrant: str) -> None:
    for node in tree_of(entrant).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STYLES":
            assert isinstance(node.value, ast.Dict)
            styles = [ast.literal_eval(key) for key in node.value.keys if key is not None]
    first = {"numpy": "loop", "torch": "eager"}.get(entrant, "pure")
    assert styles[0] == first
    assert all(style.isidentifier() for style in styles)


def test_keras_is_imported_after_its_backend_is_chosen() -> None:
    lines = [ast.unparse(node) for node in tree_of("keras").body]
    assert lines.index("os.environ.setdefault('KERAS_BACKEND', 'jax')") < lines.index(
        "import keras"
    )


@each_elsewhere
def test_a_library_that_is_not_installed_is_named(entrant: str) -> None:
    package = PACKAGES[entrant]
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(BakeoffError) as error:
        impls.load(entrant)
    assert str(error.value).startswith(
        f"entrant {entrant!r} needs the package {package!r}, which is not installed"
    )
