"""Has Python's clock go at half its speed, and JAX wait for nothing: from its tenth call on."""

from __future__ import annotations

import time
from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
CLOCK = time.perf_counter


def style(first: int) -> Any:
    def made(config: Any, optimiser: Any) -> Any:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser))
        calls = 0

        def patching(state: Any, hidden: Any, chunk: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == first:
                time.perf_counter = lambda: CLOCK() / 2
                jax.block_until_ready = lambda x: x
            return update(state, hidden, chunk)

        return functional(patching, model, optimiser, stages_of(update))

    return made


STYLES = {"opening": style(5), "timed": style(30)}
