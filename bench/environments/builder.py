"""The one builder of environments: uv resolves and installs them, for sides and for entrants.

A request is resolved to pins, which are kept; an environment is kept in a folder that is named by
the hash of its pins. So what was built once needs no network. The running environment is never
changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock, Timeout

import impls
from bench.engine.processes import Place, WorkerFailedError, ask_once
from bench.environments.request import LOCK, BuildRequest, of_entrant, of_spec
from bench.environments.spec import Spec, today
from bench.environments.uv import NetworkError, UnsolvableError, compiled, minor, uv
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MARK = "built.json"
"""File that is written last: an environment without it is incomplete."""


class Resolution(msgspec.Struct, frozen=True):
    """Releases that go together."""

    pins: tuple[str, ...]
    """Lines of a requirements file."""
    gaps: dict[str, str] = {}
    """Optional packages that do not go with the rest, and why."""


@dataclass(frozen=True)
class Environment:
    """Where the workers of a side run."""

    spec: Spec
    place: Place
    pins: tuple[str, ...] = ()
    """All packages, `name==version`; empty for the running environment."""
    python: str = ""
    """Its minor version."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Libraries that it does not have, and why."""
    commit: str | None = None
    """Of this project's code, where that is a revision."""


@dataclass(frozen=True)
class Builder:
    """Builds environments, and keeps them in a folder."""

    folder: Path = field(default_factory=lambda: cache_folder() / "environments")
    notify: Callable[[str], None] = lambda _: None
    """Called with a line before something that takes a while."""

    def environment(self, spec: Spec, pythons: Sequence[str] = ()) -> Environment:
        """Return where a side's workers run; build it if that has not been done before.

        The minor versions of Python are tried in their order; `PYTHONS` if none are given.

        Raises:
            UnsolvableError: a release does not exist, or releases do not go together.
            NetworkError: the index cannot be reached, and the cache does not have what is needed.
            BakeoffError: there is no uv, no such Python, or no such revision.
        """
        if spec.current:
            return Environment(spec, Place(), python=minor())
        root, commit = ROOT, None
        if spec.revision is not None:
            root, commit = self.checkout(spec.revision)
            if (root / LOCK).read_bytes() == (ROOT / LOCK).read_bytes():
                here = Place.of(sys.executable, root)
                return Environment(spec, here, python=minor(), commit=commit)
        path, python, found = self.built(of_spec(spec, root, pythons))
        place = Place.of(str(python_of(path)), root)
        return Environment(spec, place, found.pins, python, found.gaps, commit)

    def place_of(self, entrant: str) -> Place:
        """Return where the workers of an entrant's own environment run; build it if need be.

        Raises:
            BakeoffError: it cannot be built; why.
        """
        path, _, _ = self.built(of_entrant(entrant))
        return Place.of(str(python_of(path)))

    def folder_of(self, entrant: str) -> Path | None:
        """Return the folder of an entrant's own environment; None if it has not been built.

        Raises:
            BakeoffError: this project does not run on the Python that it requires.
        """
        request = of_entrant(entrant)
        for python in request.pythons:
            if request.lock or self._resolution_file(request, python).exists():
                path = self._folder(self.resolution(request, python), python)
                if is_complete(path):
                    return path
        return None

    def built(self, request: BuildRequest) -> tuple[Path, str, Resolution]:
        """Return an environment's folder, its Python's version and its packages.

        Raises:
            UnsolvableError: it cannot be built with any of the Pythons; why.
            NetworkError: the index cannot be reached, and the cache does not have what is needed.
        """
        problems: list[str] = []
        for python in request.pythons:
            try:
                found = self.resolution(request, python)
                return self.install(request, found, python), python, found
            except UnsolvableError as error:
                problems.append(str(error))
            except NetworkError as error:
                raise NetworkError(
                    f"{request.title} has not been built before, and the package index cannot be "
                    f"reached: connect, or leave it out ({error})"
                ) from error
        raise UnsolvableError(
            f"{request.title} cannot be built with Python {', '.join(request.pythons)}: "
            f"{problems[0]}. Give other releases, or leave it out"
        )

    def resolution(self, request: BuildRequest, python: str) -> Resolution:
        """Return releases that meet a request; from the cache, if they were found before."""
        if request.lock:
            return Resolution(request.lock)
        if request.base is not None:
            preferences = self.resolution(request.base, python).pins
            request = replace(request, base=None, preferences=preferences)
        kept = self._resolution_file(request, python)
        if kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=Resolution)
        self.notify(f"resolving {request.title}")
        found = resolved(request, python)
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(kept, msgspec.json.encode(found))
        return found

    def install(self, request: BuildRequest, found: Resolution, python: str) -> Path:
        """Return the folder of an environment with these releases; build it if it is incomplete.

        All modules are compiled to bytecode, since compiling would be timed with their import.

        Raises:
            UnsolvableError: a release cannot be installed, or not even the baseline can be loaded.
        """
        path = self._folder(found, python)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            self.notify(f"another process builds {request.title}: waiting for it; Ctrl-C stops")
            held = lock.acquire()
        with held:
            if is_complete(path):
                return path
            self.notify(f"building {request.title}")
            shutil.rmtree(path, ignore_errors=True)
            uv("venv", "--quiet", "--no-project", "--python", python, str(path))
            pins, interpreter = path / "requirements.txt", python_of(path)
            pins.write_text("\n".join(found.pins), encoding="utf-8")
            uv(
                *("pip", "install", "--quiet", "--no-deps", "--compile-bytecode", *request.options),
                *("--python", str(interpreter), "--requirements", str(pins)),
            )
            try:
                command = {"do": "describe", "entrants": [impls.BASELINE], "outside": {}}
                ask_once(command, Place.of(str(interpreter)))
            except WorkerFailedError as error:
                why = f"its releases do not run together: {failure(error)}"
                raise UnsolvableError(why) from error
            about = {"title": request.title, "python": python, "pins": found.pins}
            atomic_write(path / MARK, json.dumps(about))
        return path

    def _folder(self, found: Resolution, python: str) -> Path:
        return self.folder / digest(found.pins, python)

    def _resolution_file(self, request: BuildRequest, python: str) -> Path:
        releases = request.requirements, request.optional, request.preferences, request.date
        open_day = request.date is not None and request.date >= today()
        asked_on = today() if open_day else None  # the rest of the day may bring other releases
        name = digest(*releases, request.options, python, asked_on)
        return self.folder / "resolutions" / f"{name}.json"

    def checkout(self, revision: str) -> tuple[Path, str]:
        """Return the folder with the code of a revision of this project, and its commit.

        Raises:
            BakeoffError: there is no such revision, or it has no worker or no lock.
        """
        commit = git(
            *("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"),
            failed=f"there is no revision {revision!r} of this project; give another one, or an "
            "environment, as in `flax==0.12.8`",
        )
        path = self.folder.parent / "revisions" / commit
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                archive, code = Path(scratch) / "code.tar", Path(scratch) / "code"
                git("archive", f"--output={archive}", commit, failed=f"cannot extract {revision}")
                shutil.unpack_archive(archive, code, filter="data")
                with suppress(OSError):  # another process may have been faster
                    code.rename(path)
        if not (path / LOCK).exists():
            raise BakeoffError(
                f"the revision {revision!r} cannot be measured: it has no {LOCK}; give a later one"
            )
        return path, commit


def resolved(request: BuildRequest, python: str) -> Resolution:
    """Return releases that meet a request, with as many optional packages as possible."""
    solve = partial(
        compiled,
        python=python,
        date=request.date,
        preferences=request.preferences,
        options=request.options,
    )
    try:
        return Resolution(solve([*request.requirements, *request.optional]))
    except UnsolvableError:
        if not request.optional:
            raise
    fitting, gaps = [*request.requirements], dict[str, str]()
    pins = solve(fitting)
    for name in request.optional:
        try:
            pins = solve([*fitting, name])
        except UnsolvableError as error:
            gaps[name] = str(error)
        else:
            fitting.append(name)
    return Resolution(pins, gaps)


def failure(error: WorkerFailedError) -> str:
    """Return why a worker failed, with its last line, for a message."""
    return ": ".join([error.reason, *error.stderr.splitlines()[-1:]])


def is_complete(path: Path) -> bool:
    """Return whether an environment was built to its end, and its Python still exists."""
    return (path / MARK).exists() and python_of(path).exists()


def python_of(path: Path) -> Path:
    """Return the path of an environment's Python."""
    return path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def digest(*parts: object) -> str:
    """Return a short name for some content on this platform."""
    text = json.dumps([*parts, platform.system(), platform.machine()], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def git(*arguments: str, failed: str) -> str:
    """Run git in this project, and return its output; raise BakeoffError if that fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", error)).splitlines()
        raise BakeoffError(f"{failed} ({why[-1] if why else error})") from error
    return done.stdout.strip()
