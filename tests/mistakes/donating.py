"""Styles of plain JAX that donate: their state, the hidden state too, both if asked to, nothing."""

from typing import Any

import jax

from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"


def donating(*numbers: int) -> Any:
    """Return a style whose update donates these of its arguments."""

    def style(config: Any, optimiser: Any) -> Any:
        model = build(config)
        update = jax.jit(pure_update(model, optimiser), donate_argnums=numbers)
        return functional(update, model, optimiser, stages_of(update))

    return style


def asked(config: Any, optimiser: Any, *, donate: bool = False) -> Any:
    return donating(*([0, 1] if donate else []))(config, optimiser)


STYLES = {"state": donating(0), "hidden": donating(0, 1), "asked": asked, "nothing": donating()}
