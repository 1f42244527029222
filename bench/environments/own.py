"""Environments of entrants that declare what they need: locked, built by uv, cached.

An entrant of this project has a lock with hashes under `impls/locks`; anybody else's is resolved
when it is first used, and its pins are kept in the cache. Both hold JAX, optax and NumPy at the
releases of this project's own lock, unless the entrant asks for others: so that what differs is the
library.
"""

from __future__ import annotations

import platform
import re
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import impls
from bench.engine.processes import Place
from bench.environments import store
from bench.environments.store import binary, digest, replace, whole
from bench.environments.uv import PYTHONS, NetworkError, UnsolvableError, find_python, minor, uv
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder

if TYPE_CHECKING:
    from bench.environments.uv import Notify
    from common.declaration import Declaration

BASE = ("jax", "jaxlib", "optax", "numpy")
"""What every worker imports."""
LOCKS = ROOT / "impls" / "locks"
MAIN_LOCK = ROOT / "requirements.lock"
SIZE = re.compile(r"^# installed: ([\d.]+ [MG]B)", re.MULTILINE)


@dataclass(frozen=True)
class Home:
    """Where an entrant's workers run, built or not."""

    name: str
    path: Path
    python: str
    """Minor version."""
    ready: bool
    size: str
    """On disk, in words; empty where nobody knows before it has been built."""

    @property
    def place(self) -> Place:
        """Where its workers run."""
        return Place.of(str(self.path / binary("python")))


@dataclass(frozen=True)
class Homes:
    """The environments of entrants, in a folder."""

    folder: Path = field(default_factory=lambda: cache_folder() / "environments")
    notify: Notify = lambda _: None
    """Told, in a line, what takes a while."""

    def home(self, name: str) -> Home:
        """Return where an entrant's environment is, or would be; nothing is built."""
        about = asked(name)
        for python in pythons(about):
            path = self.path(name, about, python)
            if whole(path):
                return Home(name, path, python, ready=True, size=in_words(size_of(path)))
        lock = LOCKS / f"{name}.txt"
        said = SIZE.search(lock.read_text("utf-8")) if own(name) and lock.exists() else None
        python = pythons(about)[0]
        path = self.path(name, about, python)
        return Home(name, path, python, ready=False, size=said[1] if said else "")

    def built(self, name: str) -> Home:
        """Return an entrant's environment, built if it was not.

        Raises:
            BakeoffError: it cannot be built; why.
        """
        about = asked(name)
        if (home := self.home(name)).ready:
            return home
        tried: dict[str, str] = {}
        for python in pythons(about):
            path = self.path(name, about, python)

            def install(interpreter: Path, python: str = python) -> None:
                self.install(name, about, interpreter, python)

            try:
                interpreter = find_python(python, self.notify)
                kept = {"entrant": name, "requirements": about.requirements, "python": python}
                size = f" ({home.size})" if home.size else ""
                what = f"the environment of {name}{size}"
                store.built(path, interpreter, install, kept, what, self.notify)
            except UnsolvableError as error:
                tried[python] = str(error)
                continue
            except NetworkError as error:
                raise NetworkError(
                    f"the environment of {name!r} has not been built before, and the package index "
                    f"cannot be reached: connect, or leave {name!r} out ({error})"
                ) from error
            return self.home(name)
        first = next(iter(tried.values()))
        raise UnsolvableError(
            f"the environment of {name!r} cannot be built with Python {', '.join(tried)}: {first}. "
            "Change its REQUIREMENTS, or leave it out"
        )

    def install(self, name: str, about: Declaration, interpreter: Path, python: str) -> None:
        """Put what an entrant needs into its empty environment."""
        lock, hashes = LOCKS / f"{name}.txt", ["--require-hashes"]
        if not own(name) or not lock.exists():
            lock, hashes = self.resolved(about, python), []
        uv(
            *("pip", "install", "--quiet", "--no-deps", *hashes),
            *("--python", str(interpreter), "--requirements", str(lock)),
        )

    def resolved(self, about: Declaration, python: str) -> Path:
        """Return the file of an entrant's pins, found now if they were not before."""
        path = self.folder / "resolutions" / f"{digest([*whole_of(about), python, where()])}.txt"
        if not path.exists():
            self.notify(f"resolving {', '.join(about.requirements)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, compiled(whole_of(about), python))
        return path

    def path(self, name: str, about: Declaration, python: str) -> Path:
        """Return the folder of an entrant's environment: another one when its needs change."""
        what = pins_of(LOCKS / f"{name}.txt") if own(name) else []
        what = what or whole_of(about)
        return self.folder / f"{name}-{digest([what, python, where()])}"


def pins_of(lock: Path) -> list[str]:
    """Return the lines of a lock that say what is installed; none where there is no lock."""
    text = lock.read_text("utf-8") if lock.exists() else ""
    return [line for line in text.splitlines() if not line.startswith("#")]


def own(name: str) -> bool:
    """Tell whether an entrant is this project's."""
    return name not in impls.OUTSIDE


def asked(name: str) -> Declaration:
    """Return what an entrant declares, which has to be an environment.

    Raises:
        BakeoffError: one of its requirements is not one.
    """
    about = impls.declared(name)
    assert about.own_environment
    for text in about.requirements:
        try:
            named = Requirement(text)
        except InvalidRequirement as error:
            problem = str(error).splitlines()[0]
            raise BakeoffError(
                f"entrant {name!r}: {text!r} of its REQUIREMENTS is not one ({problem}); write "
                "them as pip does, as in 'keras==3.15.0'"
            ) from error
        if named.url is not None:
            raise BakeoffError(
                f"entrant {name!r}: {text!r} of its REQUIREMENTS is an address; only releases from "
                "the package index are installed"
            )
    if about.python and about.python not in PYTHONS:
        raise BakeoffError(
            f"entrant {name!r} asks for Python {about.python}; this project runs on "
            f"{', '.join(PYTHONS)}: give one of these as its PYTHON"
        )
    return about


def pythons(about: Declaration) -> list[str]:
    """Return the Pythons to try: the one that it asks for, or the running one before others."""
    return [about.python] if about.python else list(dict.fromkeys([minor(), *PYTHONS]))


def whole_of(about: Declaration) -> list[str]:
    """Return all that is asked of an environment: the entrant's own, and the base beside it."""
    named = {canonicalize_name(Requirement(text).name) for text in about.requirements}
    text = MAIN_LOCK.read_text("utf-8") if MAIN_LOCK.exists() else ""
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, re.MULTILINE))
    base = [f"{name}=={pins[name]}" if name in pins else name for name in BASE if name not in named]
    return [*about.requirements, *base]


def compiled(requirements: list[str], python: str, *, universal: bool = False) -> str:
    """Return uv's pins for some requirements, as a requirements file; with hashes if universal."""
    lock = ("--universal", "--generate-hashes") if universal else ()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pins.txt"
        uv(
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--python-version", python, *lock, "-o", str(out), "-"),
            input_="\n".join(requirements),
        )
        return out.read_text("utf-8")


def relock(name: str) -> None:
    """Resolve an entrant of this project anew, and write its lock.

    Raises:
        BakeoffError: it is not this project's, or its requirements cannot be solved.
    """
    if not own(name):
        raise BakeoffError(f"entrant {name!r} is a file of its own: its pins are in the cache")
    about = asked(name)
    LOCKS.mkdir(exist_ok=True)
    text = compiled(whole_of(about), about.python or PYTHONS[0], universal=True)
    replace(LOCKS / f"{name}.txt", f"# Made by `bakeoff entrants --lock {name}`.\n{text}")


def note_size(home: Home) -> None:
    """Write the size of an environment that has been built into its lock."""
    lock = LOCKS / f"{home.name}.txt"
    lines = [x for x in lock.read_text("utf-8").splitlines() if not SIZE.match(x)]
    line = f"# installed: {home.size} on {where()}, {date.today()}"
    replace(lock, "\n".join([lines[0], line, *lines[1:], ""]))


def where() -> str:
    """Return what else decides which files are installed."""
    return f"{platform.system()} {platform.machine()}"


def size_of(path: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())


def in_words(size: int) -> str:
    """Return a size as people write it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
