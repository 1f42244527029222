"""Models of Flax NNX: modules, whose Variables are changed in place."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from common.library import AtRest, Library, Names, replace_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.contract import ModelStyle

MOST_PLACES = 3
"""Most places of a shared Variable that a sentence names; it counts the others. An `Rngs` that all
modules keep is in dozens of places."""
WITHOUT_SHARING = ("jit_tree", "jit_partial", "jax_jit")
"""Styles that take only models in which no two places share a Variable."""


class Nnx(Library):
    """Modules, and optimisers that have a state of Variables."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return isinstance(model, nnx.Module)

    def split(self, model: nnx.Module) -> tuple[nnx.State, nnx.State, nnx.GraphDef]:  # noqa: D102
        graphdef, params, others = nnx.split(model, nnx.Param, ...)
        return params, others, graphdef

    def merge(self, params: nnx.State, others: nnx.State, static: Any) -> nnx.Module:  # noqa: D102
        # Make new Variables: those of another trace level cannot be changed
        return nnx.merge(static, params, jax.tree.map(lambda array: array, others))

    def find_unsuited(self, model: nnx.Module) -> Mapping[str, str]:  # noqa: D102
        find = getattr(nnx, "find_duplicates", None)  # since 0.11.2; the styles are newer
        shared = find(model) if find else []
        # A module without Variables may be in two places
        if not shared or len(jax.tree.leaves(model)) == len(jax.tree.leaves(nnx.state(model))):
            return {}
        places = [f"`{'.'.join(map(str, path))}`" for path in shared[0]]
        if len(places) > MOST_PLACES + 1:
            places[MOST_PLACES:] = [f"{len(places) - MOST_PLACES} more"]
        named = f"{', '.join(places[:-1])} and {places[-1]}"
        return dict.fromkeys(WITHOUT_SHARING, f"{named} share a Variable")

    def replace_others(self, model: nnx.Module, others: Any) -> None:  # noqa: D102
        nnx.update(model, others)

    def put(self, outlines: tuple[Any, ...], rest: AtRest, static: Any) -> tuple[Any, ...]:  # noqa: D102
        if not isinstance(outlines[-1], nnx.Optimizer):
            return super().put(outlines, rest, static)
        state = jax.tree.map(lambda outline: outline, outlines)  # new objects, to be filled
        self.fill(state, rest)
        return state

    def take(self, state: tuple[Any, ...]) -> AtRest:  # noqa: D102
        if not isinstance(state[-1], nnx.Optimizer):
            return super().take(state)
        model, optimizer = state
        params, others, _ = self.split(model)
        return AtRest(params, self.read_opt_state(optimizer), others)

    def fill(self, state: tuple[Any, ...], rest: AtRest) -> None:  # noqa: D102
        model, optimizer = state
        nnx.update(model, rest.params)
        if rest.others:
            nnx.update(model, rest.others)
        self.fill_opt_state(optimizer, rest.opt_state)
        optimizer.step.set_value(jax.device_put(np.uint32(0)))  # nobody reads it

    def read_opt_state(self, optimizer: nnx.Optimizer) -> Any:
        """Return optax's state out of an optimiser."""
        opt_state = optimizer.opt_state
        return jax.tree.map(lambda v: v.get_value(), opt_state, is_leaf=is_variable)

    def fill_opt_state(self, optimizer: nnx.Optimizer, opt_state: Any) -> None:
        """Replace optax's state in an optimiser in place."""
        boxes = jax.tree.leaves(optimizer.opt_state, is_leaf=is_variable)
        variables = (box for box in boxes if jax.tree.leaves(box))  # a mask leaves some empty
        for variable, value in zip(variables, jax.tree.leaves(opt_state), strict=True):
            variable.set_value(value)

    def donate(self, style: ModelStyle) -> ModelStyle:  # noqa: D102
        def jit_partial(*given: Any, **named: Any) -> Any:
            # Of the function that it makes, where model and optimiser are the first argument
            return nnx.jit_partial(*given, donate_argnums=(0,), **named)

        jit = partial(nnx.jit, donate_argnums=(0, 1))
        donating: Any = Names(style.__globals__["nnx"], jit=jit, jit_partial=jit_partial)
        return replace_names(super().donate(style), nnx=donating)


def is_variable(node: Any) -> bool:
    """Tell whether `node` is one of NNX's boxes around an array."""
    return isinstance(node, nnx.Variable)


LIBRARY = Nnx()
