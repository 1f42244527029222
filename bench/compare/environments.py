"""Environments of other releases and other days: resolved and built by uv, isolated, cached.

A resolution is a list of pins. What was resolved once is read from the cache, and so is what was
built once, so that known sides need no network. Never is anything put into the user's own
environment. What a SPEC leaves open stays at the current version where that fits: uv takes what it
finds in its output file for preferences.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from bench.compare.spec import today
from bench.engine.processes import Place, WorkerFailedError
from bench.environments import store
from bench.environments.store import binary, digest, replace
from bench.environments.uv import (
    MOST_WORDS,
    PYTHONS,
    NetworkError,
    UnsolvableError,
    compiled,
    find_python,
    installed,
    minor,
    uv,
)
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Sequence

    from bench.compare.spec import Spec

    type Notify = Callable[[str], None]

BASE = ("jax", "jaxlib", "optax", "numpy")
"""Without these nothing can be measured."""
LIBRARIES = ("flax", "dm-haiku", "equinox")
"""Without one of these, its entrants are a gap."""
LOCK = "requirements.lock"


@dataclass(frozen=True)
class Environment:
    """Where the workers of a side run."""

    spec: Spec
    place: Place
    pins: tuple[str, ...] = ()
    """All that is installed, `name==version`; empty for the environment at hand."""
    python: str = ""
    """Its minor version."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Libraries that it does not have, and why."""
    commit: str | None = None
    """Of this project's code, where that is a revision."""


@dataclass(frozen=True)
class Resolution:
    """Releases that go together."""

    pins: tuple[str, ...]
    gaps: dict[str, str]
    """Libraries that do not go with the rest, and why."""


@dataclass(frozen=True)
class Builder:
    """Makes environments, and keeps them in a folder."""

    folder: Path = field(default_factory=lambda: cache_folder() / "environments")
    notify: Notify = lambda _: None
    """Told, in a line, what takes a while."""
    frozen: bool = False
    """Whether today's stack is what it was when it was last asked for."""

    def environment(self, spec: Spec, pythons: Sequence[str] = ()) -> Environment:
        """Return where a side's workers run, built if it was not.

        Args:
            spec: What is asked for.
            pythons: Minor versions to try, in this order; `PYTHONS` if none.

        Raises:
            UnsolvableError: a release is not there, or releases do not go together.
            NetworkError: the index cannot be reached, and the cache has not all that is needed.
            BakeoffError: there is no uv, no such Python, or no such revision.
        """
        if spec.current:
            return Environment(spec, Place(), python=minor())
        root, commit = (ROOT, None) if spec.revision is None else self.checkout(spec.revision)
        if spec.revision is not None and same_lock(root):
            return Environment(spec, Place.of(sys.executable, root), python=minor(), commit=commit)
        tried: dict[str, str] = {}
        for_python = False
        for python in [spec.python] if spec.python else pythons or PYTHONS:
            try:
                interpreter = find_python(python, self.notify)
                resolution = self.resolution(spec, interpreter, python, root)
                path = self.built(resolution.pins, interpreter, python)
            except UnsolvableError as error:
                tried[python] = str(error)
                for_python = error.for_python
                if not for_python:
                    break
                continue
            except NetworkError as error:
                raise NetworkError(
                    f"{spec} has not been built before, and the package index cannot be reached: "
                    f"connect, or give a side that has ({error})"
                ) from error
            place = Place.of(str(path / binary("python")), root)
            return Environment(spec, place, resolution.pins, python, resolution.gaps, commit)
        first = next(iter(tried.values()))
        failed = UnsolvableError(
            f"{spec} cannot be built with Python {', '.join(tried)}: {first}. Give other releases"
        )
        failed.for_python = for_python
        raise failed

    def resolution(self, spec: Spec, interpreter: str, python: str, root: Path) -> Resolution:
        """Return the pins of a side; from the cache, if they were found before."""
        if spec.revision is not None:
            return self.resolved([], interpreter, python, preferences=locked(root, spec))
        if spec.date is None:
            return self.resolved(spec.requirements, interpreter, python, preferences=installed())
        stack = self.resolved([], interpreter, python, date=spec.date)
        if not spec.requirements:
            return stack
        return self.resolved(spec.requirements, interpreter, python, preferences=stack.pins)

    def resolved(
        self,
        requirements: Iterable[str],
        interpreter: str,
        python: str,
        date: datetime.date | None = None,
        preferences: Sequence[str] = (),
    ) -> Resolution:
        """Return releases of the whole stack that go together, with as many libraries as can be."""
        about = (platform.system(), platform.machine())
        asked = [[*requirements], python, str(date or ""), [*preferences], BASE, LIBRARIES, about]
        kept = self.folder / "resolutions" / f"{digest(asked)}.json"
        # that of a day that is not over may still change
        open_ = not self.frozen and date is not None and date >= today()
        if kept.exists() and not open_:
            return kept_resolution(kept)
        self.notify(f"resolving {', '.join(requirements) or 'the stack'} {date or ''}".rstrip())

        def solve(libraries: Sequence[str]) -> tuple[str, ...]:
            names = [*BASE, *libraries, *requirements]
            return compiled(names, interpreter, date, preferences)

        gaps: dict[str, str] = {}
        try:
            try:
                pins = solve(LIBRARIES)
            except UnsolvableError:
                have: list[str] = []
                pinned = {Requirement(text).name for text in requirements}
                pins = solve(have := [name for name in LIBRARIES if name in pinned])
                for library in LIBRARIES:
                    if library in pinned:
                        continue
                    try:
                        pins = solve([*have, library])
                        have.append(library)
                    except UnsolvableError as error:
                        gaps[library] = str(error)
        except NetworkError:
            if kept.exists():
                return kept_resolution(kept)
            raise
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace(kept, json.dumps({"pins": pins, "gaps": gaps}))
        return Resolution(pins, gaps)

    def built(self, pins: Sequence[str], interpreter: str, python: str) -> Path:
        """Return the folder of an environment with these pins; built if it was not, or not whole.

        Its modules are imported once, so that they have been compiled to bytecode.
        """
        path = self.path(pins, python)

        def install(interpreter: Path) -> None:
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write("\n".join(pins))
                file.flush()
                uv(
                    *("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
                    *("--python", str(interpreter), "--requirements", file.name),
                )
            warm_up(Place.of(str(interpreter)))

        about = {"pins": [*pins], "python": python}
        what = " ".join(main_pins(pins))
        return store.built(path, interpreter, install, about, what, self.notify)

    def path(self, pins: Sequence[str], python: str) -> Path:
        """Return where an environment is, or would be."""
        return self.folder / digest([*pins, python, platform.system(), platform.machine()])

    def checkout(self, revision: str) -> tuple[Path, str]:
        """Return the code of a revision of this project, in a folder of its own, and its commit.

        Raises:
            BakeoffError: there is no such revision, or it cannot measure.
        """
        commit = commit_of(revision)
        path = self.folder.parent / "revisions" / commit
        if not path.exists():
            self.notify(f"taking the code of {revision}")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                archive = Path(scratch) / "code.tar"
                git("archive", "--format=tar", f"--output={archive}", commit)
                with tarfile.open(archive) as tar:
                    tar.extractall(Path(scratch) / "code", filter="data")
                if not path.exists():
                    (Path(scratch) / "code").rename(path)
        if not (path / "bench/worker/__main__.py").exists():
            raise BakeoffError(
                f"the revision {revision!r} does not build: it has no bench/worker/__main__.py; "
                "give a later one"
            )
        return path, commit


def kept_resolution(path: Path) -> Resolution:
    """Return a resolution that was written down."""
    found = json.loads(path.read_text("utf-8"))
    return Resolution(tuple(found["pins"]), found["gaps"])


def locked(root: Path, spec: Spec) -> tuple[str, ...]:
    """Return the pins of a revision's lock."""
    try:
        text = (root / LOCK).read_text("utf-8")
    except OSError:
        raise BakeoffError(
            f"the revision {str(spec)!r} does not build: it has no {LOCK}; give a later one"
        ) from None
    return tuple(re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", text, re.MULTILINE))


def same_lock(root: Path) -> bool:
    """Tell whether a revision's lock is the one at hand."""
    ours, theirs = ROOT / LOCK, root / LOCK
    return ours.exists() and theirs.exists() and ours.read_bytes() == theirs.read_bytes()


def main_pins(pins: Iterable[str]) -> list[str]:
    """Return the pins of the stack itself, without what it stands on."""
    return [pin for pin in pins if pin.split("==")[0] in (*BASE, *LIBRARIES)]


def commit_of(revision: str) -> str:
    """Return the commit that a revision of this project names.

    Raises:
        BakeoffError: there is none, or this is no git checkout.
    """
    try:
        name = f"{revision}^{{commit}}"
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", name).strip()
    except BakeoffError as error:
        raise BakeoffError(
            f"there is no revision {revision!r} of this project (in {ROOT}); give another one, or "
            "an environment, as in `flax==0.12.8`"
        ) from error


def git(*arguments: str) -> str:
    """Return what git prints about this project."""
    try:
        done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607 -- the user's git
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BakeoffError(f"git cannot be run: {error.strerror}") from error
    if done.returncode:
        raise BakeoffError(f"git {arguments[0]} failed: {done.stderr.strip()[:MOST_WORDS]}")
    return done.stdout


def warm_up(place: Place) -> None:
    """Have all modules imported once: what is not compiled to bytecode would be timed.

    Raises:
        UnsolvableError: not even the baseline can be loaded.
    """
    from bench.run import offer

    try:
        offer((), {}, place=place)
    except WorkerFailedError as error:
        words = ": ".join([error.reason, *error.stderr.splitlines()[-1:]])
        raise UnsolvableError(f"its releases install but do not run together: {words}") from error
