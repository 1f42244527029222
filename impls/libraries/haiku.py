"""Models of Haiku: parameters, and the `apply` of `hk.transform`."""

from __future__ import annotations

from typing import Any

from common.library import Pairs


class Haiku(Pairs):
    """Parameters and a transformed function."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return super().is_model(model) and model[1].__module__.startswith("haiku.")


LIBRARY = Haiku()
