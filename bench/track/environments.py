"""Environments of other releases and other days: resolved and built by uv, isolated, cached.

A resolution is a list of pins. What was resolved once is read from the cache, and so is what was
built once, so that known sides need no network. Never is anything put into the user's own
environment. What a SPEC leaves open stays at the current version where that fits: uv takes what it
finds in its output file for preferences.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.measure.process import Place, WorkerFailedError
from bench.measure.settings import ROOT
from bench.track.spec import today
from common.errors import BakeoffError
from common.fetch import cache_folder

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Sequence

    from bench.track.spec import Spec

    type Notify = Callable[[str], None]

BASE = ("jax", "jaxlib", "optax", "numpy")
"""Without these nothing can be measured."""
LIBRARIES = ("flax", "dm-haiku", "equinox")
"""Without one of these, its entrants are a gap."""
PYTHONS = ("3.12", "3.13", "3.14")
"""That this project's code runs on; the first is the one that most releases support."""
OFFLINE = (
    *("failed to fetch", "error sending request", "dns error", "network connectivity is disabled"),
    *("connection refused", "timed out", "connect error", "request failed after"),
    *("not found in the cache", "needs to be downloaded from a registry"),
)
"""What uv says where it reaches no index."""
LOCK = "requirements.lock"
FOR_PYTHON = re.compile(r"[Pp]ython|wheel|abi tag|platform tag")
"""What uv says where another Python may help."""
UNSOLVABLE = re.compile("No solution found|unsatisfiable|no usable wheels|No interpreter found")
"""What uv says where there is nothing to be had."""
MARK = "built.json"
"""Written last: an environment without it was never finished."""
MOST_WORDS = 400
"""Characters of what uv says."""


class UnsolvableError(BakeoffError):
    """There is no set of releases that fits."""

    for_python = False
    """Whether another Python may have one."""


class NetworkError(BakeoffError):
    """The index cannot be reached, and the cache does not have what is needed."""


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
        if whole(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if whole(path):
                return path
            shutil.rmtree(path, ignore_errors=True)
            self.notify(f"building {' '.join(main_pins(pins))}")
            uv("venv", "--quiet", "--no-project", "--python", interpreter, str(path))
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
                file.write("\n".join(pins))
                file.flush()
                uv(
                    *("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
                    *("--python", str(path / binary("python")), "--requirements", file.name),
                )
            warm_up(Place.of(str(path / binary("python"))))
            replace(path / MARK, json.dumps({"pins": [*pins], "python": python}))
        return path

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
        if not (path / "bench/measure/worker.py").exists():
            raise BakeoffError(
                f"the revision {revision!r} does not build: it has no bench/measure/worker.py; "
                "give a later one"
            )
        return path, commit


def kept_resolution(path: Path) -> Resolution:
    """Return a resolution that was written down."""
    found = json.loads(path.read_text("utf-8"))
    return Resolution(tuple(found["pins"]), found["gaps"])


def whole(path: Path) -> bool:
    """Tell whether an environment was built to its end, and its Python is still there."""
    return (path / MARK).exists() and (path / binary("python")).exists()


def minor() -> str:
    """Return the minor version of the running Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@cache
def installed() -> tuple[str, ...]:
    """Return what is installed where this program runs, as pins."""
    found = {canonicalize_name(d.name): d.version for d in metadata.distributions()}
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))


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


def compiled(
    requirements: Sequence[str],
    interpreter: str,
    date: datetime.date | None,
    preferences: Sequence[str],
    *,
    deps: bool = True,
) -> tuple[str, ...]:
    """Return the pins that uv finds for some requirements, and for what these need if `deps`.

    Args:
        requirements: As pip writes them.
        interpreter: That they have to fit.
        date: Nothing newer than its last second (UTC) is taken; None takes what there is.
        preferences: Pins that are taken where they fit.
        deps: Whether what they need is found too.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pins.txt"
        out.write_text("\n".join(preferences), encoding="utf-8")
        until = ("--exclude-newer", f"{date}T23:59:59Z") if date else ()
        uv(
            *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--only-binary", ":all:", "--python", interpreter, *until, "-o", str(out), "-"),
            *(() if deps else ("--no-deps",)),
            input_="\n".join(requirements),
        )
        lines = out.read_text("utf-8").split()
    return tuple(line for line in lines if "==" in line)


PYTHONS_FOUND: dict[str, str | None] = {}
"""Where each is; None where there is none to be had."""


def find_python(version: str, notify: Notify) -> str:
    """Return the path of a Python, one of uv's own where there is no other.

    Args:
        version: Its minor version.
        notify: Told that one is downloaded.

    Raises:
        UnsolvableError: there is none, and uv can get none.
    """
    find = ("python", "find", "--system", "--no-python-downloads", version)
    if version not in PYTHONS_FOUND:
        PYTHONS_FOUND[version] = None
        with suppress(BakeoffError):
            PYTHONS_FOUND[version] = uv(*find).strip()
        if PYTHONS_FOUND[version] is None:
            notify(f"downloading Python {version} with uv")
            with suppress(BakeoffError):
                uv("python", "install", "--quiet", version)
                PYTHONS_FOUND[version] = uv(*find).strip()
    found = PYTHONS_FOUND[version]
    if found is None:
        missing = UnsolvableError(f"there is no Python {version} here, and uv can get none")
        missing.for_python = True
        raise missing
    return found


@cache
def uv_path() -> str:
    """Return uv's program.

    Raises:
        BakeoffError: there is none.
    """
    with_package = None
    try:
        import uv as package

        with_package = package.find_uv_bin()
    except (ImportError, FileNotFoundError):
        own = ROOT / ".uv" / "bin" / "uv"
        with_package = shutil.which("uv") or (str(own) if own.exists() else None)
    if with_package is None:
        raise BakeoffError("uv builds the environments of other releases, and is not installed")
    return with_package


def uv(*arguments: str, input_: str = "") -> str:
    """Return what uv prints; no shell is involved, and it sees no project.

    Raises:
        UnsolvableError: it has no solution.
        NetworkError: it could not reach what it needs.
        BakeoffError: it failed in another way.
    """
    hidden = ("VIRTUAL_ENV", "UV_PROJECT", "UV_EXCLUDE_NEWER", "PYTHONPATH", "PYTHONHOME", "CONDA")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    variables["PATH"] = os.pathsep.join([variables.get("PATH", os.defpath), *pyenv_folders()])
    done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
        [uv_path(), *arguments],
        input=input_,
        capture_output=True,
        text=True,
        env=variables,
        cwd=own_folder(),
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    words = said(done.stderr)
    if any(sign in done.stderr.lower() for sign in OFFLINE):
        raise NetworkError(words)
    if not UNSOLVABLE.search(done.stderr):
        raise BakeoffError(f"uv {arguments[0]} failed: {words}")
    unsolvable = UnsolvableError(words)
    unsolvable.for_python = bool(FOR_PYTHON.search(words))
    raise unsolvable


def own_folder() -> Path:
    """Return a folder of ours, in which nobody else's settings of uv lie."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pyenv_folders() -> list[str]:
    """Return where pyenv keeps its Pythons, which uv finds on the path alone."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(str(path) for path in root.glob("versions/*/bin"))


def said(stderr: str) -> str:
    """Return what uv said, on one line, without its ornaments, warnings and hints."""
    lines = [line for line in stderr.splitlines() if not line.startswith("warning:")]
    words = " ".join(re.sub(r"[×╰─▶│├╭╯]|\x1b\[[0-9;]*m", " ", " ".join(lines)).split())
    words = words.split(" hint:")[0].removeprefix("error: ")
    words = words.removeprefix("No solution found when resolving dependencies: ")
    words = words.removeprefix("No solution found when resolving dependencies cause: ")
    return (words[:MOST_WORDS] + "…" if len(words) > MOST_WORDS else words).rstrip(".")


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
    from bench.measure.measured import offer

    try:
        offer((), {}, place=place)
    except WorkerFailedError as error:
        words = ": ".join([error.reason, *error.stderr.splitlines()[-1:]])
        raise UnsolvableError(f"its releases install but do not run together: {words}") from error


def binary(name: str) -> str:
    """Return where an environment has a program."""
    return f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}"


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def digest(what: object) -> str:
    """Return a short name for what JSON can say."""
    return hashlib.sha256(json.dumps(what, default=list).encode()).hexdigest()[:16]
