"""Is slow for everybody but the benchmark; in its other style, works for the clock alone not."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def sleepy(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))

    def slow(state: Any, hidden: Any, chunk: Any) -> Any:
        if "BAKEOFF_CORES" not in os.environ:
            time.sleep(0.05)
        return update(state, hidden, chunk)

    return functional(slow, model, optimiser, stages_of(update))


def idle(config: Any, optimiser: Any) -> Any:
    model = build(config)
    update = jax.jit(pure_update(model, optimiser))
    kept: list[Any] = []

    def lazy(state: Any, hidden: Any, chunk: Any) -> Any:
        frame = sys._getframe(1)
        while frame is not None and "turns" not in frame.f_code.co_filename:
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None or not kept:
            kept[:] = [update(state, hidden, chunk)]
        return kept[0]

    return functional(lazy, model, optimiser, stages_of(update))


STYLES = {"sleepy": sleepy, "idle": idle}
