"""Models of BrainState."""

from __future__ import annotations

from typing import Any

import jax

from common.library import AtRest, Library


class BrainState(Library):
    """States, which a step changes in place; their random numbers belong to no trace."""

    makes_while_tracing = False

    def fill(self, state: tuple[Any, ...], rest: AtRest) -> None:  # noqa: D102 -- Library says it
        params, opt_state = state
        structure = jax.tree.structure({path: box.value for path, box in params.items()})
        values = jax.tree.unflatten(structure, jax.tree.leaves(rest.params))
        for path, value in values.items():
            params[path].value = value
        structure = jax.tree.structure(opt_state.value)
        opt_state.value = jax.tree.unflatten(structure, jax.tree.leaves(rest.opt_state))

    def take(self, state: tuple[Any, ...]) -> AtRest:  # noqa: D102
        params, opt_state = state
        if not hasattr(opt_state, "value"):
            return super().take(state)
        return AtRest({path: box.value for path, box in params.items()}, opt_state.value)


LIBRARY = BrainState()
