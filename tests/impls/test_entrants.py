"""What the house demands of entrants beside equality, which tests/test_equality.py proves."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest

import impls
from common.config import ModelConfig, OptimiserConfig
from common.contract import flat, fresh_checkpoint, unflat
from common.equality import (
    Case,
    loss_and_gradient_deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
)
from common.reference import loss_and_grads
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from impls import numpy as by_hand

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import Dense, TrainStep, Weights

    type StepOf = Callable[[str, str, Case], TrainStep]

TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)
ONE_LAYER = Case(ModelConfig(7, 6, layers=1), chunk=4, batch=2)
FIRST = {name: next(iter(impls.load(name).styles)) for name in [*impls.usual(), "numpy"]}
"""The first style of each entrant."""
each_entrant = pytest.mark.parametrize("entrant", FIRST)


@each_entrant
def test_offers_what_the_contract_asks(entrant: str) -> None:
    loaded = impls.load(entrant)
    assert loaded.name == entrant
    assert all(loaded.style(name) is style for name, style in loaded.styles.items())
    assert metadata.version(loaded.distribution)


@each_entrant
def test_one_layer(entrant: str, step_of: StepOf) -> None:
    """Two and three layers are in the table of tests/test_equality.py."""
    step = step_of(entrant, FIRST[entrant], ONE_LAYER)
    loss, gradient = loss_and_gradient_deviation(step, ONE_LAYER)
    assert loss <= LOSS_TOLERANCE
    assert gradient <= GRADIENT_TOLERANCE


@each_entrant
def test_init_depends_on_the_key(entrant: str) -> None:
    """Two keys give two models, one key the same one twice, and no two layers are alike."""
    model = impls.load(entrant).build(ModelConfig(5, 8))
    one, again, other = (model.to_weights(model.init(jax.random.key(k))) for k in (0, 0, 1))
    for a, b, c in zip(*([*w.cells, w.readout] for w in (one, again, other)), strict=True):
        np.testing.assert_array_equal(a.kernel, b.kernel)
        assert not np.array_equal(a.kernel, c.kernel)
    assert not np.array_equal(one.cells[1].kernel, one.cells[2].kernel)


def test_keras_is_imported_after_its_backend_is_chosen() -> None:
    text = impls.source("keras").read_text("utf-8")
    assert text.index('KERAS_BACKEND="jax"') < text.index("import keras")


# NumPy's step, which is written by hand


@pytest.mark.parametrize("shape", [(13, 8), (16, 8), (8, 5)])
def test_a_bias_forgotten_by_hand_is_seen(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch, step_of: StepOf
) -> None:
    """The proof must be able to fail."""
    right = by_hand.backward

    def wrong(params: Dense, grads: Dense, *arrays: Any) -> Any:
        d_x = right(params, grads, *arrays)
        if params.kernel.shape == shape:
            grads.bias[...] = 0
        return d_x

    monkeypatch.setattr(by_hand, "backward", wrong)
    loss, gradient = loss_and_gradient_deviation(step_of("numpy", "loop", TOY), TOY)
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


def test_numpy_computes_in_float32() -> None:
    """Also where Python's numbers, or a float64 array, would widen it."""
    case = replace(TOY, optimiser=OptimiserConfig(0.01, weight_decay=0.1))
    step = make(impls.load("numpy").style("loop"), case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    wide: Weights = jax.tree.map(np.float64, random_weights(case.model))
    for checkpoint in (step.save(), fresh_checkpoint(wide)):
        step.load(checkpoint)
        after, loss = step(random_hidden(case), random_chunk(case, 1))
        trees = (after, loss, step.save()[:3])
        assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {np.dtype(np.float32)}
