"""The contents of an environment: of a SPEC, and of an entrant's file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

import impls
from bench.environments.spec import today
from bench.environments.uv import PYTHONS, WHEELS, installed, minor
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.versions import COMMON

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence
    from pathlib import Path

    from bench.environments.spec import Spec

LOCK = "requirements.lock"
"""File of a revision of this project with all pins and their hashes."""
LOCKS = ROOT / "impls" / "locks"
"""Folder with such a file for each entrant with an environment of its own."""


@dataclass(frozen=True)
class BuildRequest:
    """The contents of an environment."""

    title: str
    """Name of the environment in messages."""
    requirements: tuple[str, ...] = ()
    """What it has to have, as pip writes it."""
    optional: tuple[str, ...] = ()
    """Packages that are left out, each for itself, where they do not go with the rest."""
    preferences: tuple[str, ...] | BuildRequest = ()
    """Pins that are kept where they fit, or the contents that have these pins."""
    date: datetime.date | None = None
    """Releases that are newer than this day are not considered."""
    lock: tuple[str, ...] = ()
    """Lines of a requirements file; with them, nothing is resolved."""
    options: tuple[str, ...] = WHEELS
    """Options of `uv pip compile` and `uv pip install`."""
    pythons: tuple[str, ...] = PYTHONS
    """Versions of Python to try, in this order."""

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that its releases depend on, apart from the version of Python."""
        pins = self.preferences
        preferences = pins.key if isinstance(pins, BuildRequest) else pins
        # Until a day has ended, it may bring other releases: they are resolved anew tomorrow
        asked_on = today() if self.date is not None and self.date >= today() else None
        return self.requirements, self.optional, preferences, self.date, asked_on, self.options


def of_spec(spec: Spec, root: Path, pythons: Sequence[str]) -> BuildRequest:
    """Return the contents of a SPEC's environment, whose code is in the folder `root`."""
    pythons = (spec.python,) if spec.python else tuple(pythons) or PYTHONS
    libraries = tuple(impls.libraries())
    stack = BuildRequest(str(spec), COMMON, libraries, date=spec.date, pythons=pythons)
    if spec.date is not None and not spec.requirements:
        return stack
    pins = installed() if spec.revision is None else pins_of(root / LOCK)
    pinned = dict(spec.pins)
    return replace(
        stack,
        requirements=(*COMMON, *spec.requirements),
        optional=tuple(name for name in libraries if name not in pinned),
        preferences=pins if spec.date is None else stack,
        date=None,  # a release that is pinned may be newer
    )


def of_entrant(name: str) -> BuildRequest:
    """Return the contents of the environment of an entrant that has its own.

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
        (*about.requirements, *COMMON),
        preferences=pins_of(ROOT / LOCK),
        lock=_locked(name),
        options=(),
        pythons=pythons,
    )


def _locked(name: str) -> tuple[str, ...]:
    """Return the lines of an entrant's lock; none if it has no lock.

    A file from elsewhere shares the lock of the entrant that asks for the same packages.
    """

    def packages(entrant: str) -> tuple[object, ...]:
        about = impls.readable(entrant)
        return about.requirements, about.requires_python

    if name in impls.OUTSIDE:  # which is the last of those that ask for its packages
        name = next(other for other in impls.names() if packages(other) == packages(name))
    path = LOCKS / f"{name}.txt"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return tuple(line for line in lines if line[:1] != "#")


def pins_of(lock: Path) -> tuple[str, ...]:
    """Return the pins of a lock, without their hashes and markers."""
    pins = re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE)
    return tuple(pins)
