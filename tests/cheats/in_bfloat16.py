"""Multiplies in bfloat16."""

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
    model = pure_jax.build(config)

    def step(params: Any, state: Any, token: Any) -> Any:
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, state))
        found = model.step(params, state, token)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), found)

    return model._replace(step=step)


STYLES = {"pure": pure_style(build)}
