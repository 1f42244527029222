"""Lets the project be installed in place only: it is run from a clone, by pytest."""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class InPlace(BuildHookInterface[Any]):
    """Refuses a wheel whose packages would lie among everybody's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """End with one line unless the clone is installed in place."""
        del build_data
        if version != "editable":
            sys.exit(
                "jax-bakeoff runs from a clone, not from an installed package: "
                "clone the repository, then `make setup` (or `pip install --editable .`)"
            )
