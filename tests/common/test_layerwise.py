"""The layerwise loss is `scan_loss`: its value, its state, and every gradient."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import layerwise, reference
from common.config import ModelConfig
from common.equality import (
    Case,
    deviation,
    make,
    pair,
    random_chunk,
    random_hidden,
    random_weights,
    relative_norm,
    trajectory,
)
from common.layerwise import layerwise_loss, loss_and_gradient
from common.loss import scan_loss
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from impls import pure_jax

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import Chunk, Hidden, TrainStep, Weights


def shared_loss(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Any, Hidden]:
    params = pure_jax.build(ModelConfig(7, 6)).from_weights(weights)
    return scan_loss(partial(pure_jax.char_rnn, params), hidden, chunk)


def one_group(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Any, Hidden]:
    return layerwise_loss(weights, hidden, chunk, jnp.sum(chunk.mask))


@pytest.mark.parametrize(("layers", "chunk", "batch"), [(1, 1, 1), (3, 6, 1), (2, 4, 8)])
def test_values_and_all_gradients_are_the_shared_ones(layers: int, chunk: int, batch: int) -> None:
    """The state's gradient too, and through the state that comes out."""
    case = Case(ModelConfig(7, 6, layers), chunk, batch)
    weights, hidden = jax.device_put(random_weights(case.model)), random_hidden(case)
    given = random_chunk(case, 1, masked=chunk // 3)
    pull = random_hidden(case, seed=5)

    def both(loss: Callable[..., tuple[Any, Hidden]]) -> Any:
        def total(weights: Weights, hidden: Hidden) -> Any:
            value, after = loss(weights, hidden, given)
            return value + sum(jnp.vdot(a, b) for a, b in zip(after, pull, strict=True)), after

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(weights, hidden)

    ours, theirs = both(one_group), both(shared_loss)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6), ours, theirs)


def test_a_wrong_derivative_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the kernel's gradient pairs a state with its own sum, not with the next one."""
    right = layerwise.kernel_gradient
    monkeypatch.setattr(layerwise, "kernel_gradient", lambda x, g: right(x, jnp.roll(g, 1, 0)))
    with pytest.raises(AssertionError):
        test_values_and_all_gradients_are_the_shared_ones(3, 6, 1)


@pytest.mark.parametrize(("batch", "groups"), [(7, 1), (12, 2), (24, 3)])
def test_groups_change_nothing(batch: int, groups: int) -> None:
    """In the last chunk, some groups have no character."""
    case = Case(ModelConfig(7, 6, 2), 4, batch)
    weights, hidden = jax.device_put(random_weights(case.model)), random_hidden(case)
    grouped = jax.jit(loss_and_gradient)
    first, second = pair(case)
    loops = scans(jax.make_jaxpr(grouped)(weights, hidden, first).jaxpr)
    assert {loop.params["length"] for loop in loops} == {case.chunk, groups} - {1}
    third = first._replace(mask=jnp.asarray(first.mask).at[:, 6:].set(0))
    for chunk in (first, second, third):
        loss, after, grads = grouped(weights, hidden, chunk)
        answer = reference.loss_and_grads(weights, hidden, chunk)
        assert float(loss) == pytest.approx(answer.loss, rel=LOSS_TOLERANCE)
        assert relative_norm(grads, answer.grads) <= GRADIENT_TOLERANCE
        for ours, theirs in zip(after, answer.hidden, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_tuned_is_equal_in_three_groups(step_of: Callable[[str, str, Case], TrainStep]) -> None:
    """In one group it is one of the rows of test_equality.py."""
    case = Case(ModelConfig(7, 8), chunk=4, batch=24)
    baseline = trajectory(step_of("pure_jax", "pure", case), case)
    deviation(make(pure_jax.tuned, case), case, baseline).require()


def scans(jaxpr: Any) -> list[Any]:
    """Return the loops of a program and of the programs that it calls."""
    loops = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            loops.append(equation)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                loops += scans(inner)
    return loops
