"""Locks of entrants with an environment of their own, and the sizes of these environments."""

from __future__ import annotations

import platform
import re
from datetime import date
from typing import TYPE_CHECKING

from rich.filesize import decimal

import impls
from bench.environments.request import LOCKS, lock_of, of_entrant
from bench.environments.uv import compiled
from common.errors import BakeoffError
from common.files import atomic_write

if TYPE_CHECKING:
    from bench.environments.builder import Builder

SIZE = re.compile(r"^# installed: ([\d.]+ [MG]B)", re.MULTILINE)


def relock(name: str, builder: Builder) -> None:
    """Resolve an entrant of this project anew, write its lock, build that, and note its size.

    Raises:
        BakeoffError: it is not this project's, or its requirements cannot be met.
    """
    if name in impls.OUTSIDE:
        raise BakeoffError(f"entrant {name!r} is not in impls/: its pins are in the cache")
    request, lock = of_entrant(name), LOCKS / f"{name}.txt"
    pins = compiled(
        request.requirements,
        min(request.pythons),
        preferences=request.preferences,
        options=("--universal", "--generate-hashes"),
    )
    title = f"# Made by `bakeoff entrants --lock {name}`."
    atomic_write(lock, "\n".join([title, *pins, ""]))
    builder.place_of(name)
    files = [path for path in (builder.folder_of(name) or lock).rglob("*") if path.is_file()]
    size = decimal(sum(file.stat().st_size for file in files if not file.is_symlink()))
    noted = f"# installed: {size} on {platform.system()} {platform.machine()}, {date.today()}"
    atomic_write(lock, "\n".join([title, noted, *pins, ""]))


def size_of(name: str) -> str:
    """Return the size of an entrant's own environment as its lock notes it, or an empty string."""
    noted = SIZE.search(lock_of(name))
    return noted[1] if noted else ""
