"""Versions of everything that a result depends on."""

import platform
from importlib import metadata

MEASURED = ("jax", "jaxlib", "flax", "dm-haiku", "equinox", "optax", "numpy")


def versions() -> dict[str, str]:
    """Return the version of Python, of this project and of each library, where it is installed."""
    found = {"python": platform.python_version()}
    for name in ("jax-bakeoff", *MEASURED):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
