"""Returns NumPy's arrays, float64 ones and NaN, each in a style."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def changed(change: Any) -> Any:
    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser))

        def other(state: Any, hidden: Any, chunk: Any) -> Any:
            state, hidden, loss = update(state, hidden, chunk)
            return state, *change(hidden, loss)

        return functional(other, model, optimiser, stages_of(update))

    return style


STYLES = {
    "numpy_arrays": changed(lambda hidden, loss: (tuple(map(np.asarray, hidden)), loss)),
    "float64": changed(lambda hidden, loss: (hidden, np.float64(loss))),
    "nan": changed(lambda hidden, loss: (hidden, loss * np.float32("nan"))),
    "other_shape": changed(lambda hidden, loss: (hidden, loss[None])),
}
