"""Libraries under development: a checkout, or a revision of its repository, which uv builds.

`flax @ ../flax` is a folder as it is, with changes that are not committed; `flax @ ../flax@v0.12.0`
and `flax @ git+https://…@branch` are revisions. Each is a commit of a repository in the cache:
there, changes are committed, and the checkout is only read.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock

from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMES = ("https", "ssh", "file")
"""Schemes of repositories that are fetched: git knows others, some of which run commands."""
NAME_DIGITS = 10
"""Number of digits of a commit, or of changes, in the name of a state."""
COMMIT = re.compile("[0-9a-f]{40}")
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "bakeoff", "EMAIL": "@", "DATE": "2000-01-01T00:00:00Z"}.items()
}
"""Environment variables of git that make the same changes the same commit every time."""


@dataclass(frozen=True)
class Source:
    """Source of a package's code."""

    location: str
    """A folder's absolute path, or a repository's URL."""
    revision: str = ""
    """Commit, tag or branch; empty for a folder as it is, or the head of a repository."""

    def __str__(self) -> str:
        of_url = "git+" if "://" in self.location else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f" @ {of_url}{self.location}{revision}"


class SourceState(NamedTuple):
    """A source as it is now: a commit of a repository in the cache."""

    repository: Path
    commit: str
    name: str
    """Digits of the commit, and of the changes that a folder has beside it."""
    part: str = ""
    """Folder of the package in its repository; empty for the whole one."""

    @property
    def url(self) -> str:
        """URL that uv builds it from."""
        part = f"#subdirectory={self.part}" if self.part else ""
        return f"git+{self.repository.as_uri()}@{self.commit}{part}"


def parse_source(package: str, text: str, given: str) -> Source:
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
        return Source(url._replace(path=path).geturl(), revision)
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
    return Source(str(folder.resolve()), revision)


def find_state(source: Source, folder: Path, notify: Callable[[str], None]) -> SourceState:
    """Return the present state of a source; its repository is kept in a folder.

    Raises:
        BakeoffError: there is no such repository or revision.
    """
    repository = folder / hashlib.sha256(source.location.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{repository}.lock"):
        if "://" in source.location:
            return _fetch(source, repository, notify)
        return _commit(source, repository)


def _fetch(source: Source, repository: Path, notify: Callable[[str], None]) -> SourceState:
    """Return the state of a remote repository; fetch it, unless the commit is known."""
    wanted = source.revision or "HEAD"
    if COMMIT.fullmatch(wanted):
        with suppress(BakeoffError):  # else it has to be fetched first
            find_commit(wanted, str(repository), "")
            return SourceState(repository, wanted, wanted[:NAME_DIGITS])
    notify(f"fetching {source.location}")  # its branches and tags
    command = ("clone", "--quiet", "--mirror", "--", source.location, str(repository))
    if repository.exists():
        command = ("-C", str(repository), "fetch", "--quiet", "--prune", "origin")
    git(*command, failed=f"{source.location} cannot be fetched")
    missing = f"{source.location}: there is no revision {wanted!r} there"
    commit = find_commit(wanted, str(repository), missing)
    return SourceState(repository, commit, commit[:NAME_DIGITS])


def _commit(source: Source, repository: Path) -> SourceState:
    """Return the state of a checkout, whose changes are committed to a repository of our own."""
    place, wanted = source.location, source.revision or "HEAD"
    ask = partial(git, "-C", place, "rev-parse", failed=f"{place} is no repository of git")
    top, part = ask("--show-toplevel"), ask("--show-prefix").rstrip("/")
    commit = find_commit(wanted, top, f"{place}: there is no revision {wanted!r} there")
    name = commit[:NAME_DIGITS]
    here = "--git-dir", str(repository), "--work-tree", top
    if not repository.exists():
        git("clone", "--quiet", "--bare", "--shared", "--", top, str(repository))
    # A shallow checkout shares nothing: its new commits are copied
    git(
        *here, "fetch", "--quiet", "--prune", "--update-shallow", top, "HEAD", "+refs/*:refs/seen/*"
    )
    if not source.revision:
        git(*here, "read-tree", commit)
        git(*here, "add", "--update")
        git(*here, "add", "--", ":/*.py")  # of what git does not know, modules alone
        tree = git(*here, "write-tree")
        if tree != git(*here, "rev-parse", f"{commit}^{{tree}}"):
            commit = git(*here, "commit-tree", "-p", commit, "-m", "changes", tree)
            name += f".changed.{tree[:NAME_DIGITS]}"
    git(*here, "update-ref", f"refs/kept/{commit}", commit)  # what has no name is not fetched
    return SourceState(repository, commit, name, part)


def list_commits(first: SourceState, last: SourceState) -> list[str]:
    """Return the commits between two states of a repository, in the order from one to the other.

    Raises:
        BakeoffError: the states are not of one repository.
    """
    if first.repository != last.repository:
        raise BakeoffError(f"{first.name} and {last.name} are not states of one repository")
    listing = ("-C", str(first.repository), "rev-list", "--first-parent", "--reverse")
    for old, new, way in ((first, last, 1), (last, first, -1)):
        if commits := git(*listing, f"{old.commit}..{new.commit}").split():
            return commits[:-1][::way]
    return []


def find_commit(revision: str, repository: str, missing: str) -> str:
    """Return the commit of a revision; raise BakeoffError, which says `missing`, without one."""
    wanted = f"{revision}^{{commit}}"
    command = ("-C", repository, "rev-parse", "--verify", "--end-of-options", wanted)
    return git(*command, failed=missing)


def git(*arguments: str, failed: str = "git failed") -> str:
    """Run git, and return its output.

    Raises:
        BakeoffError: it failed; the message has the last line of its output.
    """
    command = ["git", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
            command, capture_output=True, text=True, check=True, env=os.environ | AUTHOR
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", error)).strip().splitlines()
        raise BakeoffError(f"{failed} ({why[-1] if why else error})") from error
    return done.stdout.strip()
