"""Libraries under development: a checkout, or a revision of its repository, built as a wheel.

`flax @ ../flax` is a folder as it is, with changes that are not committed; `flax @ ../flax@v0.12.0`
and `flax @ git+https://…@branch` are revisions. Each state is built once, from a copy, and kept by
its name: the commit, and a digest of what is not in it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from bench.environments.uv import uv
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMES = ("https", "ssh", "file")
"""Of repositories that are fetched: git knows others, some of which run commands."""
NAMED = 10
"""Digits of a commit, or of a digest, that name what was built."""
COMMIT = re.compile("[0-9a-f]{40}")
LEFT_OUT = {".git", ".venv", "venv", "__pycache__", "build", "dist", "node_modules"}
"""Folders of a checkout without git that are no part of a package."""


class NotBuiltError(BakeoffError):
    """A state of a library from which no wheel can be made."""


@dataclass(frozen=True)
class Source:
    """Where a package's code is taken from."""

    package: str
    location: str
    """A folder's absolute path, or a repository's URL."""
    revision: str = ""
    """Commit, tag or branch; empty for a folder as it is, or the head of a repository."""

    def __str__(self) -> str:
        of_url = "git+" if "://" in self.location else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.package} @ {of_url}{self.location}{revision}"


@dataclass(frozen=True)
class Built:
    """What was built of a source."""

    wheel: Path
    version: str
    """The package's own, and behind a `+` the commit, and a digest of what is not in it."""


def source_of(package: str, text: str, given: str) -> Source:
    """Return the source that a SPEC names, after the `@`.

    Args:
        package: Whose code it is.
        text: A folder, a folder and a revision, or `git+` and a URL.
        given: The option and the SPEC, for messages.

    Raises:
        BakeoffError: it is none of these, or there is no such folder.
    """
    if text.startswith("git+"):
        url = urlsplit(text.removeprefix("git+"))
        if url.fragment:
            raise BakeoffError(f"{given}: {text!r} names a part of a repository; give a whole one")
        path, _, revision = url.path.partition("@")
        if url.scheme not in SCHEMES:
            known = ", ".join(f"git+{scheme}://" for scheme in SCHEMES)
            raise BakeoffError(f"{given}: {text!r} is no repository; it begins with {known}")
        return Source(package, url._replace(path=path).geturl(), revision)
    folder, revision = Path(text).expanduser(), ""
    if not folder.is_dir():
        name, _, revision = text.rpartition("@")
        folder = Path(name).expanduser()
        if not name or not revision or not folder.is_dir():
            raise BakeoffError(
                f"{given}: there is no folder {text!r}; give a checkout of {package}, as in "
                f"`{package} @ ../{package}`, a revision of it, `@ ../{package}@main`, or "
                f"`@ git+https://…@branch`"
            )
    if not any((folder / name).exists() for name in ("pyproject.toml", "setup.py")):
        raise BakeoffError(
            f"{given}: {text!r} is no package: it has neither pyproject.toml nor setup.py"
        )
    return Source(package, str(folder.resolve()), revision)


def built(source: Source, folder: Path, notify: Callable[[str], None]) -> Built:
    """Return the wheel of a source's state now; build it if that has not been done before.

    Args:
        source: Whose wheel it is.
        folder: Where mirrors of repositories and wheels are kept.
        notify: Called with a line before something that takes a while.

    Raises:
        NotBuiltError: the state cannot be built, or is another package's.
        BakeoffError: there is no such repository or revision.
    """
    repository, commit = head(source, folder, notify)
    state, files = state_of(source, commit)
    kept = folder / "wheels" / source.package / state
    if not (wheels := list(kept.glob("*.whl"))):
        notify(f"building {source} ({state})")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, out = Path(scratch) / "code", Path(scratch) / "out"
            if commit:
                git("clone", "--quiet", "--shared", "--no-checkout", repository, str(code))
                if files is None:
                    git("-C", str(code), "checkout", "--quiet", "--detach", commit)
            for name in files or ():
                copy = code / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(source.location) / name, copy)
            command = ("build", "--wheel", "--quiet", "--python", sys.executable)
            try:
                uv(*command, "--out-dir", str(out), str(code))
            except BakeoffError as error:
                raise NotBuiltError(f"{source} ({state}) cannot be built: {error}") from error
            with suppress(OSError):  # another process may have been faster
                out.replace(kept)
        wheels = list(kept.glob("*.whl"))
    try:
        name, version, *_ = parse_wheel_filename(wheels[0].name)
    except (IndexError, InvalidWheelFilename) as error:
        raise NotBuiltError(f"{source} ({state}) made no wheel") from error
    if name != canonicalize_name(source.package):
        raise NotBuiltError(f"{source} is the package {name}, not {source.package}")
    return Built(wheels[0], f"{version.public}+{state}")


def state_of(source: Source, commit: str) -> tuple[str, list[str] | None]:
    """Return the name of what a source is now: digits of its commit, and of what is not in that.

    With it come all files of a folder that is not as its commit has it; None for any other source.
    """
    if source.revision or "://" in source.location or (files := changed_files(source)) is None:
        return commit[:NAMED], None
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\n".encode() + (Path(source.location) / name).read_bytes())
    changed = f"changed.{digest.hexdigest()[:NAMED]}"
    return ".".join(filter(None, [commit[:NAMED], changed])), files


def head(source: Source, folder: Path, notify: Callable[[str], None]) -> tuple[str, str]:
    """Return the repository of a source, on this machine, and the commit that is asked for.

    Both are empty where the source is a folder without git.
    """
    repository = source.location
    if "://" in repository:
        mirror = folder / "mirrors" / hashlib.sha256(repository.encode()).hexdigest()[:16]
        if mirror.exists() and COMMIT.fullmatch(source.revision):
            with suppress(BakeoffError):  # else it has to be fetched first
                return str(mirror), commit_of(source.revision, str(mirror), "")
        notify(f"fetching {repository}")  # its branches and tags
        command = ("clone", "--quiet", "--mirror", "--", repository, str(mirror))
        if mirror.exists():
            command = ("-C", str(mirror), "fetch", "--quiet", "--prune", "origin")
        mirror.parent.mkdir(parents=True, exist_ok=True)
        git(*command, failed=f"{repository} cannot be fetched")
        repository = str(mirror)
    elif not (Path(repository) / ".git").exists():
        if source.revision:
            raise BakeoffError(f"{source}: {repository} is no repository of git")
        return "", ""
    wanted = source.revision or "HEAD"
    missing = f"{source}: there is no revision {wanted!r} there"
    return repository, commit_of(wanted, repository, missing)


def commits_between(first: Source, last: Source, folder: Path) -> list[str]:
    """Return the commits between two states of a repository, in the order from one to the other.

    Raises:
        BakeoffError: the states are not of one repository.
    """
    ends = [head(source, folder, lambda _: None) for source in (first, last)]
    if first.location != last.location or not ends[0][0]:
        raise BakeoffError(f"{first} and {last} are not states of one repository")
    repository, (old, new) = ends[0][0], (commit for _, commit in ends)
    for span, way in ((f"{old}..{new}", 1), (f"{new}..{old}", -1)):
        listed = git("-C", repository, "rev-list", "--first-parent", "--reverse", span).split()
        if listed:
            changed = changed_files(last) if way > 0 and not last.revision else None
            return listed if changed else listed[:-1][::way]
    return []


def changed_files(source: Source) -> list[str] | None:
    """Return all files of a folder, where any is not as its commit has it; None if none is.

    Of files that git does not know, modules count; what is written beside them, such as a table of
    results, does not. Without git, these are all files but those that no package has.
    """
    folder = Path(source.location)
    if (folder / ".git").exists():
        here = "-C", str(folder)
        new = git(*here, "ls-files", "-z", "-o", "--exclude-standard", "--", "*.py").split("\0")
        if not any(new) and not git(*here, "status", "--porcelain", "--untracked-files=no"):
            return None
        listed = [*git(*here, "ls-files", "-z").split("\0"), *new]
        return sorted(name for name in listed if name and (folder / name).is_file())
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not LEFT_OUT & {*path.relative_to(folder).parts}
    )


def commit_of(revision: str, repository: str, missing: str) -> str:
    """Return the commit of a revision; raise BakeoffError, which says `missing`, without one."""
    wanted = f"{revision}^{{commit}}"
    command = ("-C", repository, "rev-parse", "--verify", "--end-of-options", wanted)
    return git(*command, failed=missing)


def git(*arguments: str, failed: str = "git failed") -> str:
    """Run git, and return what it says.

    Raises:
        BakeoffError: it failed: what, and its last line.
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", error)).strip().splitlines()
        raise BakeoffError(f"{failed} ({why[-1] if why else error})") from error
    return done.stdout.strip()
