"""Versions of everything that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MEASURED = ("jax", "jaxlib", "flax", "dm-haiku", "equinox", "optax", "numpy")


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the version of Python, of this project and of each library, where it is installed.

    `more` are names of further distributions.
    """
    found = {"python": platform.python_version()}
    for name in dict.fromkeys(("jax-bakeoff", *MEASURED, *more)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
