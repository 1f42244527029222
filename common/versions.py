"""Versions of everything that a result depends on."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMON = ("jax", "jaxlib", "optax", "numpy")
"""Packages of the stack that every worker imports, whatever it measures."""
PYTHON = ".".join(platform.python_version_tuple()[:2])
"""Minor version of the running Python, as in `3.12`."""


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the installed versions of Python, this project, the stack and `more` distributions."""
    installed = {"python": platform.python_version()}
    for name in dict.fromkeys(("jax-bakeoff", *COMMON, *more)):
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
