"""The libraries that a user's model may be of, by the names of their entrants."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from impls import BASELINE, load

if TYPE_CHECKING:
    from common.library import Library


def list_libraries() -> list[str]:
    """Return the names of the libraries, the baseline last.

    Any tree can be the baseline's model, so the others are asked first.
    """
    names = {module.name for module in pkgutil.iter_modules(__path__)}
    return [*sorted(names - {BASELINE}), BASELINE]


def load_library(name: str) -> Library:
    """Import an entrant, and return what is known of its library's models."""
    load(name)
    return importlib.import_module(f"{__name__}.{name}").LIBRARY
