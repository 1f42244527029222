"""Files to begin with, which `bakeoff new` copies: a step of a user's own, or an entrant.

Those with a library's name have a model of that library; `cost --arrays` measures them as well,
with another number of arrays.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__path__[0])
ENTRANT, WHOLE_STEP = "entrant", "make_step"
"""Starters that have no model of a library: an entrant's skeleton, and a whole step."""
SIZES = re.compile(r"^WIDTH, ARRAYS = \d+, \d+.*$", re.MULTILINE)
"""Pattern of the line that says how wide a starter's layers are, and how many arrays they have."""
STACK_WIDTH = 8
"""Width of a stack of layers: Python's work does not depend on it, and this compiles fast."""


def list_models() -> list[str]:
    """Return the names of the libraries whose models there are starters with."""
    names = {path.stem for path in FOLDER.glob("[!_]*.py")}
    return sorted(names - {ENTRANT, WHOLE_STEP})


def read_starter(starter: str, name: str) -> str:
    """Return the text of a starter for a file of this name."""
    return (FOLDER / f"{starter}.py").read_text("utf-8").replace("NAME", name)


def make_stack(library: str, arrays: int) -> str:
    """Return the text of a library's starter whose layers have so many parameter arrays."""
    text = read_starter(library, "stack")
    return SIZES.sub(f"WIDTH, ARRAYS = {STACK_WIDTH}, {arrays}", text)
