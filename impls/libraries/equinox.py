"""Models of Equinox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx

from common.library import Library, Names, replace_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import ModelStyle, Params


class Equinox(Library):
    """Modules, whose leaves are arrays and anything else."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return isinstance(model, eqx.Module)

    def split(self, model: eqx.Module) -> tuple[Params, Any, Any]:  # noqa: D102
        params, static = eqx.partition(model, eqx.is_inexact_array)
        return params, (), static

    def merge(self, params: Params, others: Any, static: Any) -> eqx.Module:  # noqa: ARG002, D102
        return eqx.combine(params, static)

    def donate(self, style: ModelStyle) -> ModelStyle:  # noqa: D102
        eqx_donating: Any = Names(eqx, filter_jit=donating_filter_jit)
        return replace_names(super().donate(style), eqx=eqx_donating)


class donating_filter_jit:  # noqa: N801 -- it stands for a function
    """`eqx.filter_jit` of a step that donates its state.

    Equinox donates all arguments but the first, so hidden state and chunk come first, together.
    """

    def __init__(self, train_step: Callable[..., Any]) -> None:
        jit: Any = eqx.filter_jit(donate="all-except-first")
        self.jitted = jit(lambda data, *state: train_step(*state, *data))

    def __call__(self, *arguments: Any) -> Any:  # noqa: D102
        return self.jitted(arguments[-2:], *arguments[:-2])

    def lower(self, *arguments: Any) -> Any:
        """Return what Equinox does."""
        return self.jitted.lower(arguments[-2:], *arguments[:-2])


LIBRARY = Equinox()
