"""What is particular to NumPy, and what the files of the other entrants show.

The equality of entrants with an environment of their own is proven there; what can be read without
their library is judged here.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from packaging.requirements import Requirement

import impls
from bench.library_details import styles_of
from common.config import ModelConfig, OptimiserConfig
from common.contract import Checkpoint, flat, fresh_checkpoint, unflat
from common.equality import (
    Case,
    loss_and_gradient_deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
)
from common.errors import BakeoffError
from common.reference import loss_and_grads
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from impls import numpy as by_hand

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import Dense, TrainStep, Weights

    type StepOf = Callable[[str, str, Case], TrainStep]

APART = ("blox", "brainstate", "haliax", "inox", "keras", "penzai", "trax", "torch")
"""Entrants with an environment of their own, each named as the package that it imports."""
DISTRIBUTIONS = {"blox": "jax-blox", "haliax": "marin-haliax", "stax": "jax"}
"""Those that are not named as their package is imported."""
TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)


def numpy_step(case: Case) -> TrainStep:
    return make(impls.load("numpy").style("loop"), case)


# What the reference says.


def test_one_layer() -> None:
    case = Case(ModelConfig(7, 6, layers=1), chunk=4, batch=2)
    loss, gradient = loss_and_gradient_deviation(numpy_step(case), case)
    assert loss <= LOSS_TOLERANCE
    assert gradient <= GRADIENT_TOLERANCE


@pytest.mark.parametrize("shape", [(13, 8), (16, 8), (8, 5)])
def test_a_bias_forgotten_by_hand_is_seen(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof must be able to fail: NumPy's gradient is written by hand, so break it there."""
    right = by_hand.backward

    def wrong(params: Dense, grads: Dense, *arrays: Any) -> Any:
        d_x = right(params, grads, *arrays)
        if params.kernel.shape == shape:
            grads.bias[...] = 0
        return d_x

    monkeypatch.setattr(by_hand, "backward", wrong)
    loss, gradient = loss_and_gradient_deviation(numpy_step(TOY), TOY)
    assert loss <= LOSS_TOLERANCE
    assert gradient > GRADIENT_TOLERANCE


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


def copied(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def test_what_was_given_or_given_back_is_left_alone() -> None:
    """Updates in place must not reach the caller's arrays, nor those of another step."""
    step, other = numpy_step(TOY), numpy_step(TOY)
    trees = [random_weights(TOY.model, seed) for seed in range(3)]
    given = Checkpoint(trees[0], mu=trees[1], nu=jax.tree.map(np.square, trees[2]), updates=7)
    before, hidden, chunk = copied(given), random_hidden(TOY), random_chunk(TOY, 1)
    step.load(given)
    other.load(given)
    after, loss = step(hidden, chunk)
    kept = copied((after, loss, saved := step.save()))
    step(after, chunk)
    jax.tree.map(np.testing.assert_array_equal, (after, loss, saved), kept)
    jax.tree.map(np.testing.assert_array_equal, given, before)
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


@pytest.mark.parametrize("entrant", impls.names())
def test_imports_its_own_library_alone(entrant: str) -> None:
    """Read from the file: what a library brings along itself is the library's affair."""
    about, origins = impls.declared(entrant), metadata.packages_distributions()
    own = {about.distribution, *(Requirement(text).name for text in about.requirements)}
    packages = {package for package, found in origins.items() if own & {*found}} | {entrant}
    allowed = {*sys.stdlib_module_names, "common", "jax", "optax", "numpy", *packages}
    for node in ast.parse(impls.source(entrant).read_text("utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for each in ast.walk(node):
            if isinstance(each, ast.Import):
                assert {alias.name.split(".")[0] for alias in each.names} <= allowed
            elif isinstance(each, ast.ImportFrom):
                assert str(each.module).split(".")[0] in allowed


@pytest.mark.parametrize("entrant", ["stax", "numpy", *APART])
def test_declares_what_it_is(entrant: str) -> None:
    about, first = impls.declared(entrant), {"numpy": "loop", "torch": "eager"}
    assert about.distribution == DISTRIBUTIONS.get(entrant, entrant)
    assert about.jax == (entrant not in first)
    assert about.own_environment == (entrant in APART)
    words = {"trax": "2021"} | dict.fromkeys(first, "not a JAX library")
    assert words.get(entrant, "") in about.note
    assert about.note.endswith(".") or not about.note
    styles = styles_of(entrant)
    assert styles[0] == first.get(entrant, "pure")
    assert all(style.isidentifier() for style in styles)
    if entrant in APART and importlib.util.find_spec(entrant) is None:
        with pytest.raises(BakeoffError, match=f"needs the package '{entrant}', which is not inst"):
            impls.load(entrant)


def test_keras_is_imported_after_its_backend_is_chosen() -> None:
    text = impls.source("keras").read_text("utf-8")
    assert text.index('os.environ.setdefault("KERAS_BACKEND", "jax")') < text.index("import keras")
