"""Which releases of a package there are, asked of uv alone: the newest below, again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.version import Version

from bench.environments.uv import WHEELS, UnsolvableError, compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def moved(good: Sequence[str], bad: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
    """Return the packages of which two environments have different releases; None: not at all."""
    before, after = (dict(pin.split("==", 1) for pin in pins) for pins in (good, bad))
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
