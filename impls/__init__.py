"""The entrants, one file each; they are found by name and imported only when asked for."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, NamedTuple

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.config import ModelConfig
    from common.contract import Model, Style

BASELINE = "pure_jax"
"""The entrant that ratios refer to, and that the others' ten steps are compared with."""


class Entrant(NamedTuple):
    """One library's implementation."""

    name: str
    build: Callable[[ModelConfig], Model]
    styles: Mapping[str, Style]
    distribution: str
    """Name of the library's distribution, whose version is measured."""

    def style(self, name: str) -> Style:
        """Return the style called `name`; raise BakeoffError where there is none."""
        if name not in self.styles:
            raise unknown(f"style of {self.name}", name, self.styles)
        return self.styles[name]


def names() -> list[str]:
    """Return the ids of all entrants, the baseline first; none is imported."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return [BASELINE, *sorted(found - {BASELINE})]


def load(name: str) -> Entrant:
    """Import one entrant.

    Raises:
        BakeoffError: there is no such entrant, or its library is not installed.
    """
    if name not in names():
        raise unknown("entrant", name, names())
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise BakeoffError(
            f"entrant {name!r} needs the package {error.name!r}, which is not installed; "
            "install it, or choose another entrant"
        ) from error
    return Entrant(name, module.build, module.STYLES, module.DISTRIBUTION)
