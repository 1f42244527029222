"""Which releases of a package there are, asked of uv alone: the newest below, again and again."""

from __future__ import annotations

from packaging.version import Version

from bench.environments.uv import WHEELS, UnsolvableError, compiled

MOST_RELEASES = 200


def between(name: str, low: str, high: str, python: str) -> list[str]:
    """Return the releases of a package above `low` and below `high`, in order.

    Only those are listed that have a wheel for a version of `python`.

    Raises:
        NetworkError: the index cannot be reached.
    """
    found: list[str] = []
    below = high
    while len(found) < MOST_RELEASES:
        try:
            wanted = [f"{name}>{low},<{below}"]
            pins = compiled(wanted, python, options=(*WHEELS, "--no-deps"))
        except UnsolvableError:
            break
        below = dict(pin.split("==") for pin in pins)[name]
        if Version(below) <= Version(low):
            break
        found.append(below)
    return found[::-1]
