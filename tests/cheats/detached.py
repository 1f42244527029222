"""Stops the gradient at the state of the character before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from common.steps import pure_style
from impls import pure_jax

if TYPE_CHECKING:
    from common.contract import Model

DISTRIBUTION = "jax"


def build(config: Any) -> Model:
    model = pure_jax.build(config)

    def step(params: Any, state: Any, token: Any) -> Any:
        return model.step(params, jax.lax.stop_gradient(state), token)

    return model._replace(step=step)


STYLES = {"pure": pure_style(build)}
