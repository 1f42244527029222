"""Joins the input and the state in the other order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from common.steps import pure_style
from impls import pure_jax

if TYPE_CHECKING:
    from common.contract import Model

DISTRIBUTION = "jax"


def build(config: Any) -> Model:
    def step(params: Any, state: Any, token: Any) -> Any:
        *cells, readout = params
        x, after = jax.nn.one_hot(token, config.vocab_size), []
        for cell, hidden in zip(cells, state, strict=True):
            x = jnp.tanh(pure_jax.dense(cell, jnp.concatenate([x, hidden])))
            after.append(x)
        return tuple(after), pure_jax.dense(readout, x)

    return pure_jax.build(config)._replace(step=step)


STYLES = {"pure": pure_style(build)}
