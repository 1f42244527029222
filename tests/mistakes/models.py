"""Models that compute something else, each in a style."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from common.steps import pure_style
from impls import pure_jax
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def with_step(change: Any) -> Any:
    """Return a style of plain JAX's model with another step, which `change` makes from its step."""

    def changed(config: Any) -> Any:
        model = build(config)
        return model._replace(step=change(model.step))

    return pure_style(changed)


def detached(inner: Any) -> Any:
    """Stop the gradient at the state of the character before."""

    def step(params: Any, state: Any, token: Any) -> Any:
        return inner(params, jax.lax.stop_gradient(state), token)

    return step


def ignores_input(inner: Any) -> Any:
    """Read the first character of the vocabulary, whatever the text is."""

    def step(params: Any, state: Any, token: Any) -> Any:
        return inner(params, state, token * 0)

    return step


def in_bfloat16(inner: Any) -> Any:
    """Multiply in bfloat16."""

    def step(params: Any, state: Any, token: Any) -> Any:
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, state))
        after = inner(params, state, token)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), after)

    return step


def input_first(_: Any) -> Any:
    """Join the input and the state in the other order."""

    def step(params: Any, state: Any, token: Any) -> Any:
        *cells, readout = params
        x, after = jax.nn.one_hot(token, readout["bias"].shape[0]), []
        for cell, hidden in zip(cells, state, strict=True):
            x = jnp.tanh(pure_jax.dense(cell, jnp.concatenate([x, hidden])))
            after.append(x)
        return tuple(after), pure_jax.dense(readout, x)

    return step


CHANGES = (detached, ignores_input, in_bfloat16, input_first)
STYLES = {change.__name__: with_step(change) for change in CHANGES}
