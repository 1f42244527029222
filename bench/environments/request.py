"""The contents of an environment: of a side, from its SPEC; of an entrant, from its file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

import impls
from bench.environments.uv import PYTHONS, WHEELS, installed, minor
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence
    from pathlib import Path

    from bench.environments.spec import Spec

BASE = ("jax", "jaxlib", "optax", "numpy")
"""Packages that every worker imports."""
LIBRARIES = ("flax", "dm-haiku", "equinox")
"""Packages without which their entrants are left out."""
LOCK = "requirements.lock"
"""File of a revision with all pins and their hashes."""
LOCKS = ROOT / "impls" / "locks"
"""Folder with such a file for each entrant with an environment of its own."""


@dataclass(frozen=True)
class BuildRequest:
    """The contents of an environment."""

    title: str
    """For messages."""
    requirements: tuple[str, ...] = ()
    """As pip writes them."""
    optional: tuple[str, ...] = ()
    """Packages that are left out, each for itself, where they do not go with the rest."""
    preferences: tuple[str, ...] = ()
    """Pins that are kept where they fit."""
    base: BuildRequest | None = None
    """Another request, whose pins are kept where they fit."""
    date: datetime.date | None = None
    """Releases that are newer are not considered."""
    lock: tuple[str, ...] = ()
    """Lines of a requirements file; with them, nothing is resolved."""
    options: tuple[str, ...] = WHEELS
    """Of `uv pip compile` and `uv pip install`."""
    pythons: tuple[str, ...] = PYTHONS
    """Versions to try, in this order."""


def of_spec(spec: Spec, root: Path, pythons: Sequence[str]) -> BuildRequest:
    """Return the request of a side, whose code is in the folder `root`."""
    pythons = (spec.python,) if spec.python else tuple(pythons) or PYTHONS
    day = BuildRequest(str(spec), BASE, LIBRARIES, date=spec.date, pythons=pythons)
    if spec.date is not None and not spec.requirements:
        return day
    return BuildRequest(
        str(spec),
        (*BASE, *spec.requirements),
        tuple(name for name in LIBRARIES if name not in dict(spec.pins)),
        preferences=installed() if spec.revision is None else pins_of(root / LOCK),
        base=day if spec.date is not None else None,
        pythons=pythons,
    )


def of_entrant(name: str) -> BuildRequest:
    """Return the request of an entrant with an environment of its own.

    JAX, optax and NumPy have the releases of this project's lock, if its library accepts them.

    Raises:
        BakeoffError: this project does not run on the Python that it requires.
    """
    about = impls.declared(name)
    try:
        accepted = SpecifierSet(about.requires_python).filter([minor(), *PYTHONS])
        pythons = tuple(dict.fromkeys(accepted))
    except InvalidSpecifier:
        pythons = ()
    if not pythons:
        raise BakeoffError(
            f"entrant {name!r} requires Python {about.requires_python!r}; this project runs on "
            f"{', '.join(PYTHONS)}: allow one of these, as in '>=3.12'"
        )
    return BuildRequest(
        f"the environment of {name!r}",
        (*about.requirements, *BASE),
        preferences=pins_of(ROOT / LOCK),
        lock=tuple(line for line in lock_of(name).splitlines() if line[:1] != "#"),
        options=(),
        pythons=pythons,
    )


def lock_of(name: str) -> str:
    """Return the text of an entrant's lock; empty if it has none.

    A file that lies elsewhere has the lock of the entrant whose packages it asks for, if any.
    """
    if name in impls.OUTSIDE:
        name = next(each for each in impls.names() if packages_of(each) == packages_of(name))
    path = LOCKS / f"{name}.txt"
    return path.read_text("utf-8") if path.exists() else ""


def packages_of(name: str) -> tuple[object, ...]:
    """Return what an entrant's environment has to have."""
    about = impls.readable(name)
    return about.requirements, about.requires_python


def pins_of(lock: Path) -> tuple[str, ...]:
    """Return the pins of a lock, without their hashes and markers."""
    found = re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE)
    return tuple(found)
