"""Jits a function of its own in each call."""

from __future__ import annotations

from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def anew(config: Any, optimiser: Any) -> Any:
    model = build(config)

    def update(state: Any, hidden: Any, chunk: Any) -> Any:
        return jax.jit(pure_update(model, optimiser))(state, hidden, chunk)

    return functional(update, model, optimiser, stages_of(jax.jit(update)))


STYLES = {"anew": anew}
