"""Models of Flax Linen: parameters, and a module's `apply`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.training.train_state import TrainState

from common.library import AtRest, Pairs


class Linen(Pairs):
    """Parameters and a method of a module."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return super().is_model(model) and isinstance(
            getattr(model[1], "__self__", None), nn.Module
        )

    def split_state(self, made: tuple[Any, Any]) -> tuple[Any, Any]:
        """Split what `init` returned: parameters, and other collections, if any."""
        variables, apply = made
        state = {name: value for name, value in variables.items() if name != "params"}
        if "params" not in variables or not state:
            return made, ()
        return (variables["params"], apply), state

    def put(self, outlines: tuple[Any, ...], rest: AtRest, static: Any) -> tuple[Any, ...]:  # noqa: D102
        if not isinstance(outlines[0], TrainState):
            return super().put(outlines, rest, static)
        fields = {"params": rest.params, "opt_state": rest.opt_state}
        return (outlines[0].replace(step=jax.device_put(np.int32(0)), **fields),)

    def take(self, state: tuple[Any, ...]) -> AtRest:  # noqa: D102
        if isinstance(state[0], TrainState):
            return AtRest(state[0].params, state[0].opt_state)
        return super().take(state)


LIBRARY = Linen()
