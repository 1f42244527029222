"""Returns the loss of the call before."""

from __future__ import annotations

from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def stale(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    last: list[Any] = []

    def late(state: Any, hidden: Any, chunk: Any) -> Any:
        state, hidden, loss = update(state, hidden, chunk)
        last.append(loss)
        return state, hidden, last[-2] if len(last) > 1 else loss

    return functional(late, model, optimiser, stages_of(update))


STYLES = {"stale": stale}
