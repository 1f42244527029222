"""Leaves one update out, and counts it all the same; or lets a few be forgotten altogether."""

from __future__ import annotations

from typing import Any

import jax

from common.older import tree_get, tree_set
from common.steps import FunctionalStep, functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
FROM = 31
"""Call after a load that leaves its update out."""


def style(count_on: bool, last: int) -> Any:
    def made(config: Any, optimiser: Any) -> FunctionalStep:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser))
        calls = 0

        def skipping(state: Any, hidden: Any, chunk: Any) -> Any:
            nonlocal calls
            calls += 1
            after, hidden, loss = update(state, hidden, chunk)
            if not FROM <= calls < last:
                return after, hidden, loss
            params, opt_state = state
            if count_on:
                opt_state = tree_set(opt_state, count=tree_get(after[1], "count"))
            return (params, opt_state), hidden, loss

        found = functional(skipping, model, optimiser, stages_of(update))
        load = found.load

        def loaded(checkpoint: Any) -> None:
            nonlocal calls
            calls = 0
            load(checkpoint)

        found.load = loaded  # type: ignore[method-assign]
        return found

    return made


STYLES = {
    "once": style(count_on=True, last=FROM + 1),
    "stops": style(count_on=True, last=10**9),
    "forgets": style(count_on=False, last=FROM + 1),
}
