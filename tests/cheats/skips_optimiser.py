"""Makes an update now and then: five of ten cost nothing."""

from __future__ import annotations

from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def never(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))

    def forward(state: Any, hidden: Any, chunk: Any) -> Any:
        _, hidden, loss = update(state, hidden, chunk)
        return state, hidden, loss

    return functional(forward, model, optimiser, stages_of(update))


def now_and_then(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    calls = [0]

    def sometimes(state: Any, hidden: Any, chunk: Any) -> Any:
        calls[0] += 1
        new, hidden, loss = update(state, hidden, chunk)
        return (new if calls[0] % 2 else state), hidden, loss

    return functional(sometimes, model, optimiser, stages_of(update))


STYLES = {"never": never, "now_and_then": now_and_then}
