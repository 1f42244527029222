"""Adaptations to older releases of a library, one module per entrant that needs them.

Entrants are written for today's releases. A module here has the name of an entrant, and offers
`adapt(entrant)`: called once, when that module has been imported, it gives it what the installed
release spells otherwise, takes out the styles that this release cannot have, and says why in
`MISSING`. Nothing of it is imported under today's releases, and none of it runs in a timed call.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

FIRST_RELEASES = {"flax_nnx": ("flax", (0, 12, 5))}
"""Entrant with a module here → its library, and the first release that needs none."""


def adapt(name: str, entrant: Any) -> None:
    """Let an entrant that has just been imported run under the release that is installed."""
    if name not in FIRST_RELEASES or hasattr(entrant, "MISSING"):
        return
    # It imports jax, as the entrant has done by now
    from common.compatibility import parse_release

    library, enough = FIRST_RELEASES[name]
    if parse_release(sys.modules[library].__version__) < enough:
        importlib.import_module(f"impls.older_releases.{name}").adapt(entrant)
