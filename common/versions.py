"""Versions of everything that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMON = ("jax", "jaxlib", "optax", "numpy")
"""Packages of the stack that every worker imports, whatever it measures."""


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the version of Python, of this project and of the stack, where it is installed.

    `more` are names of further distributions.
    """
    installed = {"python": platform.python_version()}
    for name in dict.fromkeys(("jax-bakeoff", *COMMON, *more)):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
