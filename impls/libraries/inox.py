"""Models of Inox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import inox
from inox import nn

from common.library import Library, make_program

if TYPE_CHECKING:
    from common.contract import Params, Program


class Inox(Library):
    """Modules, whose parameters are a dict by their paths."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return isinstance(model, nn.Module)

    def split(self, model: nn.Module) -> tuple[Params, Any, Any]:  # noqa: D102
        static, params, others = model.partition(nn.Parameter)
        return params, others, static

    def merge(self, params: Params, others: Any, static: Any) -> nn.Module:  # noqa: D102
        return static(params, others or {})

    def find_program(self, step: Any, *arguments: Any) -> Program:  # noqa: D102
        if hasattr(step, "__wrapped__") and not hasattr(step, "lower"):
            return make_program(step.__wrapped__, *inox.tree.mask(arguments))
        return super().find_program(step, *arguments)


LIBRARY = Inox()
