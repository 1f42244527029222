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
from common.contract import Weights, fresh_checkpoint
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
from common.layerwise import in_groups, layerwise_loss
from common.loss import scan_loss
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE
from impls import pure_jax

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import Chunk, Hidden, Style, TrainStep

SIZES = [(1, 1, 1), (3, 6, 1), (2, 4, 8)]
"""Layers, characters and streams."""


def shared_loss(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Any, Hidden]:
    params = pure_jax.build(ModelConfig(7, 6)).from_weights(weights)
    return scan_loss(partial(pure_jax.char_rnn, params), hidden, chunk)


def one_group(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Any, Hidden]:
    return layerwise_loss(weights, hidden, chunk, jnp.sum(chunk.mask))


@pytest.mark.parametrize(("layers", "chunk", "batch"), SIZES)
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


@pytest.mark.parametrize("batch", [7, 12, 24])
def test_groups_change_nothing(batch: int) -> None:
    """7 are one group, 12 are groups of 6, 24 of 8; in the last chunk, some have no character."""
    case = Case(ModelConfig(7, 6, 2), 4, batch)
    weights, hidden = jax.device_put(random_weights(case.model)), random_hidden(case)
    grouped = jax.jit(partial(in_groups, layerwise_loss))
    first, second = pair(case)
    third = first._replace(mask=jnp.asarray(first.mask).at[:, 6:].set(0))
    for chunk in (first, second, third):
        loss, after, grads = grouped(weights, hidden, chunk)
        answer = reference.loss_and_grads(weights, hidden, chunk)
        assert float(loss) == pytest.approx(answer.loss, rel=LOSS_TOLERANCE)
        assert relative_norm(grads, answer.grads) <= GRADIENT_TOLERANCE
        for ours, theirs in zip(after, answer.hidden, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("batch", "sizes"), [(12, [6, 6]), (17, [17]), (24, [8, 8, 8])])
def test_streams_of_a_group(batch: int, sizes: list[int]) -> None:
    """Each stream comes once, in order, and a group sees the number of all that count."""
    seen = []

    def loss_of(weights: Any, hidden: Hidden, chunk: Chunk, total: Any) -> tuple[Any, Hidden]:
        jax.debug.callback(lambda *found: seen.append(found), hidden[0][:, 0], total, ordered=True)
        return weights * jnp.sum(chunk.inputs), hidden

    rows = jnp.arange(batch * 6.0).reshape(batch, 6)
    chunk = random_chunk(Case(ModelConfig(7, 6, 1), 3, batch), 1, masked=1)
    loss, after, grad = in_groups(loss_of, jnp.float32(2.0), (rows,), chunk)
    jax.effects_barrier()
    assert [len(first) for first, _ in seen] == sizes
    np.testing.assert_array_equal(np.concatenate([first for first, _ in seen]), rows[:, 0])
    assert {float(total) for _, total in seen} == {2.0 * batch}
    np.testing.assert_array_equal(after[0], rows)
    assert float(loss) == 2 * float(grad) == 2 * float(jnp.sum(chunk.inputs))


def test_tuned_is_equal_in_three_groups(step_of: Callable[[str, str, Case], TrainStep]) -> None:
    """In one group it is one of the rows of test_equality.py."""
    case = Case(ModelConfig(7, 8), chunk=4, batch=24)
    baseline = trajectory(step_of("pure_jax", "pure", case), case)
    deviation(make(pure_jax.tuned, case), case, baseline).require()


def test_loops_of_tuned_hand_on_no_kernel() -> None:
    """What it is for: the shared step adds to the kernels' gradients at every character."""
    case = Case(ModelConfig(5, 16), chunk=8, batch=2)

    def handed_on(style: Style) -> set[tuple[int, ...]]:
        step = make(style, case)
        step.load(fresh_checkpoint(random_weights(case.model)))
        program = step.program(random_hidden(case), random_chunk(case, 1))
        assert program is not None
        loops = scans(program.jaxpr().jaxpr)
        return {variable.aval.shape for loop in loops for variable in loop.outvars}

    assert handed_on(pure_jax.tuned) == {(2, 16), (8, 2, 16)}
    assert handed_on(pure_jax.STYLES["pure"]) > {(2, 16), (32, 16), (21, 16)}


def scans(jaxpr: Any) -> list[Any]:
    """Return the loops of a program, those in what it calls too."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            found.append(equation)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found += scans(inner)
    return found
