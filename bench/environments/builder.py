"""The one builder of environments: uv resolves and installs them, for SPECs and for entrants.

What was asked for is resolved to pins, which are kept; an environment is kept in a folder that is
named by the hash of its pins. So a second build needs no network. The running environment is never
changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock
from packaging.specifiers import InvalidSpecifier, SpecifierSet

import impls
from bench.engine.process import Interpreter, WorkerFailedError, ask_once
from bench.engine.task import Environment
from bench.environments import uv
from bench.environments.git import extract_commit, find_commit
from bench.environments.sources import PackageSource, freeze
from bench.environments.spec import Spec, make_day_spec, make_entrant_spec, today
from bench.fetch import cache_folder
from bench.files import atomic_write
from bench.runfile import EnvironmentInfo
from bench.worker.protocol import Describe
from bench.worker.settings import ROOT
from common.errors import BakeoffError, shorten
from common.versions import COMMON, PYTHON

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Sequence

LOCK = "requirements.lock"
"""File of a revision of this project with all pins and their hashes."""
LOCKS = ROOT / "impls" / "locks"
"""Folder with a lock for each entrant with its own environment."""
INTERPRETER, SITE_PACKAGES = "bin/python", "lib/python*/site-packages"
"""Paths in an environment of its Python and packages."""
JAX_PACKAGES = re.compile("jax(lib|-cuda|-rocm|-tpu|=)")
"""Pattern that begins a pin of JAX or its plugins."""
MARK = "built.json"
"""File that is written last: an environment without it is incomplete."""
CACHE_ADVICE = "name one by BAKEOFF_CACHE that is yours alone"
"""Advice where the cache folder cannot be used."""


@dataclass(frozen=True)
class Builder:
    """Builds environments, and keeps them in a folder.

    Raises UnsolvableError where a release does not exist, or releases do not go together with any
    of the Pythons, and BakeoffError for anything else that was asked for and cannot be had.
    """

    folder: Path = field(default_factory=lambda: cache_folder() / "environments")
    notify: Callable[[str], None] = lambda _: None
    """Called with a line before something that takes a while."""
    extras: tuple[str, ...] = ()
    """Further requirements of every SPEC's environment: what a user's own step imports."""

    def build(self, spec: Spec, pythons: Sequence[str] = uv.PYTHONS) -> Environment:
        """Return the environment of a SPEC; build it if it has not been built before.

        Args:
            spec: The environment; its sources are taken as they are now.
            pythons: Minor versions of Python to try, in this order.
        """
        root, info = ROOT, EnvironmentInfo(spec=str(spec))
        if spec.is_current and not self.extras:
            return Environment(Interpreter(), info)
        if spec.revision is not None:
            info.commit = find_commit(spec.revision)
        require_own(self.folder.parent)
        if spec.revision is not None:
            root = extract_commit(info.commit, self.folder.parent / "revisions")
            if not (root / LOCK).exists():
                raise BakeoffError(
                    f"the revision {spec.revision!r} cannot be measured: it has no {LOCK}; give a "
                    "later one"
                )
            same = (root / LOCK).read_bytes() == (ROOT / LOCK).read_bytes()
            if same and not self.extras:
                return Environment(Interpreter.from_python(sys.executable, root), info)
        pins = {n: self.freeze(w) if isinstance(w, PackageSource) else w for n, w in spec.pins}
        spec = replace(spec, pins=tuple(pins.items()))
        pythons = (PYTHON,) if spec.is_current else pythons
        folder, python, info.gaps = self.install_first(spec, root, pythons)
        info.pins = uv.list_installed([str(path) for path in folder.glob(SITE_PACKAGES)])
        for name, source in spec.sources.items():
            version = info.pins[name].partition("+")[0]
            info.pins[name] = info.versions[name] = f"{version}+{source.label}"
        interpreter = Interpreter.from_python(str(folder / INTERPRETER), root)
        return Environment(interpreter, info, python)

    def build_entrant(self, entrant: str | Path) -> Environment:
        """Return an entrant's own environment; build it if that has not been done before."""
        return self.build(make_entrant_spec(entrant), choose_pythons(entrant))

    def find_folder(self, entrant: str) -> Path | None:
        """Return the folder of an entrant's locked environment; None if it has not been built."""
        lock = read_entrant_lock(entrant)
        folders = (self.name_folder(lock, python) for python in choose_pythons(entrant))
        return next(filter(is_complete, folders), None)

    def freeze(self, source: PackageSource) -> PackageSource:
        """Return the present state of a library under development."""
        return freeze(source, self.folder.parent / "sources", self.notify)

    def install_first(
        self, spec: Spec, root: Path, pythons: Sequence[str]
    ) -> tuple[Path, str, dict[str, str]]:
        """Install an environment with the first Python that fits.

        Returns:
            Its folder; the minor version of its Python; package → why it is left out.
        """
        problems: list[str] = []
        for python in pythons:
            try:
                resolution = self.resolve(spec, root, python)
                return self.install(spec, resolution.pins, python), python, resolution.gaps
            except uv.UnsolvableError as error:
                problems.append(str(error))
        raise uv.UnsolvableError(
            f"{spec} cannot be built with Python {', '.join(pythons)}: {problems[0]}. Give other "
            "releases, or leave it out"
        )

    def resolve(self, spec: Spec, root: Path, python: str) -> uv.Resolution:
        """Return the releases of an environment; from the cache, if they were resolved before.

        Args:
            spec: The environment, with frozen sources.
            root: Folder of the code that its workers run.
            python: Minor version of Python.
        """
        if spec.entrant is not None and (lock := read_entrant_lock(spec.entrant)):
            return uv.Resolution(lock)
        required, optional = self.list_requirements(spec)
        date, preferences = self.choose_releases(spec, root, python)
        is_over = date is None or date < today()  # else, tomorrow may bring other releases
        options = list_options(spec)
        question = (required, optional, python, str(date), is_over, preferences, options)
        path = self.folder / "resolutions" / f"{digest(*question)}.json"
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=uv.Resolution)
        self.notify(f"resolving {spec}")
        solve = partial(
            uv.compile_pins, python=python, date=date, preferences=preferences, options=options
        )
        resolution = uv.resolve(required, optional, solve)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, msgspec.json.encode(resolution))
        return resolution

    def list_requirements(self, spec: Spec) -> tuple[list[str], list[str]]:
        """Return the packages that an environment must have, and those that it has if they fit."""
        if spec.entrant is not None:
            return [*impls.read_declaration(spec.entrant).requirements, *COMMON], []
        pinned = dict(spec.pins)
        required = [*COMMON, *self.extras, *(f"{name}{wanted}" for name, wanted in pinned.items())]
        if spec.is_current:  # JAX's plugins for accelerators are kept
            required += [pin for pin in uv.list_pins() if JAX_PACKAGES.match(pin)]
        return required, [name for name in impls.list_shared_libraries() if name not in pinned]

    def choose_releases(
        self, spec: Spec, root: Path, python: str
    ) -> tuple[datetime.date | None, Sequence[str]]:
        """Return the day of the newest releases allowed, None for any, and the preferred pins.

        Releases that a SPEC leaves open are those of its day, its revision's lock or this Python.
        """
        if spec.entrant is not None or spec.revision is not None:
            return None, read_pins(root / LOCK)
        if spec.date is None:
            return None, uv.list_pins()
        if not spec.pins:
            return spec.date, ()
        # No limit: a pin may be newer than that day
        return None, self.resolve(make_day_spec(spec.date), root, python).pins

    def install(self, spec: Spec, pins: Sequence[str], python: str) -> Path:
        """Return the folder of an environment with these releases; build it if it is incomplete."""
        path = self.name_folder(pins, python)
        if is_complete(path):
            return path
        self.notify(f"building {spec}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if is_complete(path):  # another process was faster
                return path
            shutil.rmtree(path, ignore_errors=True)
            uv.run_uv("venv", "--quiet", "--no-project", "--python", python, str(path))
            file, interpreter = path / "requirements.txt", str(path / INTERPRETER)
            file.write_text("\n".join(pins), encoding="utf-8")
            # Bytecode, since compiling it in a worker would be timed with the import
            uv.run_uv(
                *("pip", "install", "--quiet", "--no-deps", "--compile-bytecode"),
                *(*list_options(spec), "--python", interpreter, "--requirements", str(file)),
            )
            try:
                ask_once(Describe([impls.BASELINE]), Interpreter.from_python(interpreter))
            except WorkerFailedError as error:
                raise uv.UnsolvableError(f"its releases do not run together: {error}") from error
            atomic_write(path / MARK, json.dumps({"title": str(spec), "python": python}))
        return path

    def name_folder(self, pins: Sequence[str], python: str) -> Path:
        """Return the folder in which releases are installed, or would be."""
        return self.folder / digest(pins, python)


def choose_pythons(entrant: str | Path) -> list[str]:
    """Return the minor versions of Python that an entrant's own environment may have.

    Raises:
        BakeoffError: this project does not run on the Python that it requires.
    """
    required, pythons = impls.read_declaration(entrant).requires_python, list[str]()
    with suppress(InvalidSpecifier):
        pythons += dict.fromkeys(SpecifierSet(required).filter([PYTHON, *uv.PYTHONS]))
    if not pythons:
        name, known = impls.source(entrant).stem, ", ".join(uv.PYTHONS)
        raise BakeoffError(
            f"entrant {name!r} requires Python {required!r}; this project runs on {known}: allow "
            "one of these, as in '>=3.12'"
        )
    return pythons


def list_options(spec: Spec) -> list[str]:
    """Return the options of uv with which an environment is resolved and installed."""
    built = [f"--no-binary={name}" for name in spec.sources]
    return [] if spec.entrant is not None else [*uv.WHEELS, *built]


def read_entrant_lock(entrant: str | Path) -> tuple[str, ...]:
    """Return the lines of an entrant's lock; none if it has no lock, or is a user's own."""
    path = LOCKS / f"{entrant}.txt"
    if isinstance(entrant, Path) or not path.exists():
        return ()
    return tuple(line for line in path.read_text("utf-8").splitlines() if line[:1] != "#")


def read_pins(lock: Path) -> list[str]:
    """Return the pins of a lock, without their hashes and markers."""
    return re.findall(r"^[A-Za-z0-9._-]+==[^\s;\\]+", lock.read_text("utf-8"), re.MULTILINE)


def require_own(folder: Path) -> None:
    """Make sure that a cache folder, whose code is run, exists and is the user's own.

    Raises:
        BakeoffError: it cannot be made, is another user's, or anybody can write there.
    """
    name = shorten(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        why = (error.strerror or "cannot be made").lower()
        raise BakeoffError(f"cache folder {name}: {why}; {CACHE_ADVICE}") from error
    problem = "can be written by anybody" if about.st_mode & stat.S_IWOTH else ""
    if about.st_uid != os.getuid():
        problem = "is another user's"
    if problem:
        raise BakeoffError(f"cache folder {name} {problem}, and its code is run: {CACHE_ADVICE}")
    if about.st_mode & stat.S_IWGRP:  # as some systems make all folders
        folder.chmod(stat.S_IMODE(about.st_mode) & ~stat.S_IWGRP)


def is_complete(path: Path) -> bool:
    """Tell whether an environment was installed completely, and still has its interpreter."""
    return (path / MARK).exists() and (path / INTERPRETER).exists()


def digest(*parts: object) -> str:
    """Return a short hash of some values, of the operating system and of the processor's kind."""
    text = json.dumps([*parts, platform.system(), platform.machine()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
