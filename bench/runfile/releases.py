"""Differences in the releases of two environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = "jax-bakeoff"
"""Name of this project, left out here: its commits are compared, not its version."""


def find_differing_releases(
    base: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """Return the releases that differ; None where a side has none. jaxlib goes with jax."""
    pairs = {name: (base.get(name), new.get(name)) for name in {**base, **new} if name != PROJECT}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differing.get("jaxlib") == differing.get("jax"):
        differing.pop("jaxlib", None)
    return differing
