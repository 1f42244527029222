"""The one builder of environments: uv resolves and installs them, for SPECs and for entrants.

A request is resolved to pins, which are kept; an environment is kept in a folder that is named by
the hash of its pins. So what was built once needs no network. The running environment is never
changed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock

import impls
from bench.engine.process import Place, WorkerFailedError, ask_once
from bench.environments.sources import Source, SourceState, find_commit, find_state, git
from bench.environments.spec import (
    LOCK,
    BuildRequest,
    Spec,
    make_entrant_request,
    make_spec_request,
)
from bench.environments.uv import UnsolvableError, compile_pins, minor, require_own, uv
from bench.runfile import EnvironmentInfo
from bench.worker.protocol import Describe
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.fetch import cache_folder
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PYTHON, SITE_PACKAGES = "bin/python", "lib/python*/site-packages"
MARK = "built.json"
"""File that is written last: an environment without it is incomplete."""


class Resolution(msgspec.Struct, frozen=True):
    """Releases that go together."""

    pins: tuple[str, ...]
    """Lines of a requirements file."""
    gaps: dict[str, str] = {}
    """Optional package that does not go with the rest → why."""


@dataclass(frozen=True)
class Environment:
    """Environment of a SPEC, built."""

    place: Place
    info: EnvironmentInfo
    """Packages, gaps and commit; `versions` has only packages built from sources, named by
    commits."""
    python: str = field(default_factory=minor)
    """Minor version of Python, as in `3.12`."""


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

    def environment(self, spec: Spec, pythons: Sequence[str] = ()) -> Environment:
        """Return the environment of a SPEC; build it if that has not been done before.

        The minor versions of Python are tried in their order; `PYTHONS` if none are given.
        """
        root, info = ROOT, EnvironmentInfo(spec=str(spec))
        if spec.is_current and not self.extras:
            return Environment(Place(), info)
        pythons = [minor()] if spec.is_current else pythons
        if spec.revision is None:
            require_own(self.folder.parent)
        else:
            root, info.commit = checkout(spec.revision, self.folder.parent / "revisions")
            if not (root / LOCK).exists():
                raise BakeoffError(
                    f"the revision {spec.revision!r} cannot be measured: it has no {LOCK}; give a "
                    "later one"
                )
            same = (root / LOCK).read_bytes() == (ROOT / LOCK).read_bytes()
            if same and not self.extras:
                return Environment(Place.from_python(sys.executable, root), info)
        states = {name: self.state(source) for name, source in spec.sources.items()}
        interpreter, python, made = self.build(
            make_spec_request(spec, root, pythons, states, self.extras)
        )
        info.pins = dict(pin.split("==", 1) for pin in made.pins if "==" in pin)
        info.gaps = made.gaps
        paths = [str(path) for path in Path(interpreter).parents[1].glob(SITE_PACKAGES)]
        for package, state in states.items():
            [distribution] = metadata.distributions(name=package, path=paths)
            version = distribution.version.partition("+")[0]
            info.pins[package] = info.versions[package] = f"{version}+{state.name}"
        return Environment(Place.from_python(interpreter, root), info, python)

    def state(self, source: Source) -> SourceState:
        """Return the present state of a library under development."""
        return find_state(source, self.folder.parent / "sources", self.notify)

    def build_place(self, entrant: str | Path) -> Place:
        """Return the place of an entrant's own environment; build it if need be."""
        require_own(self.folder.parent)
        interpreter, _, _ = self.build(make_entrant_request(entrant))
        return Place.from_python(interpreter)

    def find_folder(self, entrant: str) -> Path | None:
        """Return the folder of an entrant's locked environment; None if it has not been built."""
        request = make_entrant_request(entrant)
        folders = (self.name_folder(request.lock, python) for python in request.pythons)
        return next(filter(_is_complete, folders), None)

    def build(self, request: BuildRequest) -> tuple[str, str, Resolution]:
        """Build an environment; return its interpreter, its minor version and the packages.

        The first of the request's Pythons that it can be built with is taken.
        """
        problems: list[str] = []
        for python in request.pythons:
            try:
                resolution = self.resolution(request, python)
                path = self.install(request, resolution.pins, python)
                return str(path / PYTHON), python, resolution
            except UnsolvableError as error:
                problems.append(str(error))
        raise UnsolvableError(
            f"{request.title} cannot be built with Python {', '.join(request.pythons)}: "
            f"{problems[0]}. Give other releases, or leave it out"
        )

    def resolution(self, request: BuildRequest, python: str) -> Resolution:
        """Return releases that meet a request; from the cache, if they were resolved before."""
        if request.lock:
            return Resolution(request.lock)
        path = self.folder / "resolutions" / f"{_digest(repr(request), python)}.json"
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=Resolution)
        preferences = request.preferences
        if isinstance(preferences, BuildRequest):
            preferences = self.resolution(preferences, python).pins
        self.notify(f"resolving {request.title}")
        resolution = _resolve(request, preferences, python)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, msgspec.json.encode(resolution))
        return resolution

    def install(self, request: BuildRequest, pins: Sequence[str], python: str) -> Path:
        """Return the folder of an environment with these releases; build it if it is incomplete."""
        path = self.name_folder(pins, python)
        if _is_complete(path):
            return path
        self.notify(f"building {request.title}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if _is_complete(path):  # another process was faster
                return path
            shutil.rmtree(path, ignore_errors=True)
            uv("venv", "--quiet", "--no-project", "--python", python, str(path))
            file, interpreter = path / "requirements.txt", str(path / PYTHON)
            file.write_text("\n".join(pins), encoding="utf-8")
            # Bytecode, since compiling it in a worker would be timed with the import
            uv(
                *("pip", "install", "--quiet", "--no-deps", "--compile-bytecode", *request.options),
                *("--python", interpreter, "--requirements", str(file)),
            )
            try:
                ask_once(Describe([impls.BASELINE]), Place.from_python(interpreter))
            except WorkerFailedError as error:
                why = f"its releases do not run together: {error}"
                raise UnsolvableError(why) from error
            atomic_write(path / MARK, json.dumps({"title": request.title, "python": python}))
        return path

    def name_folder(self, pins: Sequence[str], python: str) -> Path:
        """Return the folder in which releases are list_installed, or would be."""
        return self.folder / _digest(pins, python)


def checkout(revision: str, folder: Path) -> tuple[Path, str]:
    """Return a folder with this project's code at a revision, and the revision's commit.

    The code lies in a subfolder that is named by the commit; the repository stays as it is.
    """
    missing = (
        f"there is no revision {revision!r} of this project; give another one, or an environment, "
        "as in `flax==0.12.8`"
    )
    commit = find_commit(revision, str(ROOT), missing)
    require_own(folder.parent)
    path = folder / commit
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive, code = Path(scratch) / "code.tar", Path(scratch) / "code"
            command = ("-C", str(ROOT), "archive", f"--output={archive}", commit)
            git(*command, failed=f"cannot extract {revision}")
            shutil.unpack_archive(archive, code, filter="data")
            with suppress(OSError):  # another process may have been faster
                code.rename(path)
    return path, commit


def _resolve(request: BuildRequest, preferences: Sequence[str], python: str) -> Resolution:
    solve = partial(
        compile_pins,
        python=python,
        date=request.date,
        preferences=preferences,
        options=request.options,
    )
    try:
        return Resolution(solve([*request.requirements, *request.optional]))
    except UnsolvableError:
        if not request.optional:
            raise
    fitting, gaps = [*request.requirements], dict[str, str]()
    pins = solve(fitting)
    for name in request.optional:  # as many as go together
        try:
            pins = solve([*fitting, name])
        except UnsolvableError as error:
            gaps[name] = str(error)
        else:
            fitting.append(name)
    return Resolution(pins, gaps)


def _is_complete(path: Path) -> bool:
    return (path / MARK).exists() and (path / PYTHON).exists()


def _digest(*parts: object) -> str:
    text = json.dumps([*parts, platform.system(), platform.machine()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
