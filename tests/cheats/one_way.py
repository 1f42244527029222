"""Gives weights out, and forgets the biases of those that come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from common.steps import pure_style
from impls import pure_jax

if TYPE_CHECKING:
    from common.contract import Model

DISTRIBUTION = "jax"


def build(config: Any) -> Model:
    model = pure_jax.build(config)

    def from_weights(weights: Any) -> Any:
        layers = model.from_weights(weights)
        return [layer | {"bias": jnp.zeros_like(layer["bias"])} for layer in layers]

    return model._replace(from_weights=from_weights)


STYLES = {"pure": pure_style(build)}
