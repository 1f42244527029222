"""Forgets what it has compiled every 25 calls: a mean shows it, a median does not."""

from __future__ import annotations

from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
CALLS = 25


def every_25_calls(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    calls = 0

    def forgetful(state: Any, hidden: Any, chunk: Any) -> Any:
        nonlocal calls, update
        calls += 1
        if calls % CALLS == 0:
            update = jax.jit(pure_update(model, optimiser))
        return update(state, hidden, chunk)

    return functional(forgetful, model, optimiser, stages_of(update))


STYLES = {"every_25_calls": every_25_calls}
