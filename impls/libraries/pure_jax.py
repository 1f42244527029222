"""Models of plain JAX: any pytree of arrays, or that and an `apply`."""

from __future__ import annotations

from numbers import Number
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from common.library import Pairs

if TYPE_CHECKING:
    from common.contract import ModelLoss


class PlainJax(Pairs):
    """A pytree of arrays; with a function that applies it, if a user's file has one."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return super().is_model(model) or has_only_numbers(jax.tree.leaves(model))

    def split(self, model: Any) -> tuple[Any, Any, Any]:  # noqa: D102
        return super().split(model) if super().is_model(model) else (model, (), None)

    def merge(self, params: Any, others: Any, static: Any) -> Any:  # noqa: D102
        return super().merge(params, others, static) if static else params

    def bind(self, model: Any, loss_fn: ModelLoss) -> tuple[Any, ModelLoss]:  # noqa: D102
        params, _, apply = self.split(model)
        if apply is None:
            return model, loss_fn
        return params, lambda params, *data: loss_fn((params, apply), *data)


def has_only_numbers(leaves: list[Any]) -> bool:
    """Tell whether there are leaves, and each is an array or a number."""
    return bool(leaves) and all(isinstance(n, jax.Array | np.ndarray | Number) for n in leaves)


LIBRARY = PlainJax()
