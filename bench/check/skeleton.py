"""A new entrant's file: a skeleton whose findings say, one after the other, what to write."""

from __future__ import annotations

import keyword
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING

import impls
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = "skeleton.py.txt"
MARK = "NAME"


def skeleton(name: str) -> str:
    """Return the text of a new entrant's file."""
    text = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return text.replace(MARK, name)


def write(name: str, folder: Path) -> Path:
    """Write the skeleton of a new entrant, and return its path.

    Raises:
        BakeoffError: the name is not an identifier, or taken, or the file exists.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BakeoffError(
            f"entrant {name!r} is not a Python identifier; give a name of letters, digits and _"
        )
    if name in impls.RESERVED:
        raise BakeoffError(
            f"entrant {name!r} would have a name with a meaning of its own ("
            f"{', '.join(impls.RESERVED)}): give another name"
        )
    if name in impls.names():
        raise BakeoffError(
            f"there is an entrant {name!r} already; known: {', '.join(impls.names())}: "
            "give another name"
        )
    path = folder / f"{name}.py"
    require_new(path, "entrant file")
    try:
        path.write_text(skeleton(name), encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # where there was no room for all of it
        raise BakeoffError(
            f"cannot write {path}: {error.strerror}; make room there, or name another folder with "
            "--into"
        ) from error
    return path
