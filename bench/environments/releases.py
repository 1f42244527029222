"""The releases of a package, asked of uv: again and again, the newest one below the last."""

from __future__ import annotations

from bench.environments.uv import WHEELS, UnsolvableError, compiled

MOST_RELEASES = 200
"""Releases that are listed at most: more than a year of nightly ones need no list."""


def between(package: str, low: str, high: str, python: str) -> list[str]:
    """Return the releases of a package above `low` and below `high`, in their order.

    Releases without a wheel for `python`, a version as in `3.12`, are left out.

    Raises:
        NetworkError: the index cannot be reached.
    """
    releases: list[str] = []
    while len(releases) < MOST_RELEASES:
        below = releases[-1] if releases else high
        wanted = [f"{package}>{low},<{below}"]
        try:
            [pin] = compiled(wanted, python, options=(*WHEELS, "--no-deps"))
        except UnsolvableError:
            break
        releases.append(pin.partition("==")[2])
    return releases[::-1]
