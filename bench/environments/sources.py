"""Code that git keeps: libraries under development, and revisions of this project.

In a SPEC, `flax @ ../flax` is a folder as it is, with changes that are not committed;
`flax @ ../flax@v0.12.0` and `flax @ git+https://…@branch` are revisions. uv builds each from a
commit of a repository in the cache, to which the changes of a checkout are committed; the checkout
is only read.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMES = ("https", "ssh", "file")
"""Schemes of repositories that are fetched: git knows others, some of which run commands."""
LABEL_DIGITS = 10
"""Number of digits of a commit's or a tree's hash in a label: enough to tell them apart."""
COMMIT = re.compile("[0-9a-f]{40}")
"""Pattern of a whole commit, which names the same code wherever it is."""
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "bakeoff", "EMAIL": "@", "DATE": "2000-01-01T00:00:00Z"}.items()
}
"""Environment variables of git that make the same changes the same commit every time."""


@dataclass(frozen=True)
class PackageSource:
    """Source of a package's code: a folder, or a revision of a repository."""

    location: str
    """A folder's absolute path, or a repository's URL."""
    revision: str = ""
    """Commit, tag or branch; empty for a folder as it is, or the head of a repository."""
    part: str = ""
    """Folder of the package in its repository; empty for the whole one."""
    label: str = ""
    """Digits of a frozen source's commit, and of the changes beside it."""

    def __str__(self) -> str:
        git = "git+" if "://" in self.location else ""
        revision = f"@{self.revision}" if self.revision else ""
        part = f"#subdirectory={self.part}" if self.part else ""
        return f" @ {git}{self.location}{revision}{part}"


def parse_source(package: str, text: str, given: str) -> PackageSource:
    """Return the source that a SPEC names, after the `@`.

    Args:
        package: Name of the package.
        text: A folder, a folder and a revision, or `git+` and a URL.
        given: The option and the SPEC, for messages.

    Raises:
        BakeoffError: it is none of these, or there is no such folder.
    """
    if text.startswith("git+"):
        try:
            url = urlsplit(text.removeprefix("git+"))
        except ValueError as error:  # an IPv6 address without a `]`
            raise BakeoffError(f"{given}: {text!r} is no URL ({error}); give another") from error
        if url.fragment:
            raise BakeoffError(f"{given}: {text!r} names a part of a repository; give a whole one")
        path, _, revision = url.path.partition("@")
        if url.scheme not in SCHEMES:
            known = ", ".join(f"git+{scheme}://" for scheme in SCHEMES)
            raise BakeoffError(f"{given}: {text!r} is no repository's URL; give {known}…")
        return PackageSource(url._replace(path=path).geturl(), revision)
    folder, revision = Path(os.path.expanduser(text)), ""  # noqa: PTH111 -- `~nobody` stays
    if not folder.is_dir():
        name, _, revision = text.rpartition("@")
        folder = Path(os.path.expanduser(name))  # noqa: PTH111
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
    return PackageSource(str(folder.resolve()), revision)


def freeze(source: PackageSource, folder: Path, notify: Callable[[str], None]) -> PackageSource:
    """Return a source as it is now: a commit of a repository that is kept in `folder`.

    Raises:
        BakeoffError: there is no such repository or revision.
    """
    repository = folder / hashlib.sha256(source.location.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{repository}.lock"):
        if "://" in source.location:
            return _freeze_repository(source, repository, notify)
        return _freeze_checkout(source, repository)


def _freeze_repository(
    source: PackageSource, copy: Path, notify: Callable[[str], None]
) -> PackageSource:
    """Return a remote repository's commit, fetched first unless it is a hash the copy has."""
    location, revision, commit = source.location, source.revision or "HEAD", ""
    if COMMIT.fullmatch(revision):
        with suppress(BakeoffError):
            commit = find_commit(revision, copy, location)
    if not commit:
        notify(f"fetching {location}")
        command = ("clone", "--quiet", "--mirror", "--", location, str(copy))
        if copy.exists():
            command = ("-C", str(copy), "fetch", "--quiet", "--prune", "origin")
        run_git(*command, failed=f"{location} cannot be fetched")
        commit = find_commit(revision, copy, location)
    return PackageSource(copy.as_uri(), commit, label=commit[:LABEL_DIGITS])


def _freeze_checkout(source: PackageSource, copy: Path) -> PackageSource:
    """Return the commit of a checkout's revision, or of the checkout with its changes."""
    checkout = source.location
    no_git = f"{checkout} is no repository of git"
    ask = partial(run_git, "-C", checkout, "rev-parse", failed=no_git)
    top, part = ask("--show-toplevel"), ask("--show-prefix").rstrip("/")
    commit = find_commit(source.revision or "HEAD", Path(top), checkout)
    label = commit[:LABEL_DIGITS]
    if not copy.exists():
        run_git("clone", "--quiet", "--bare", "--shared", "--", top, str(copy))
    git = partial(run_git, "--git-dir", str(copy), "--work-tree", top)
    # A shallow checkout shares nothing: its new commits are copied
    git("fetch", "--quiet", "--prune", "--update-shallow", top, "HEAD", "+refs/*:refs/seen/*")
    if not source.revision:
        git("read-tree", commit)
        git("add", "--update")
        git("add", "--", ":/*.py")  # of the files that git does not know, modules alone
        tree = git("write-tree")
        if tree != git("rev-parse", f"{commit}^{{tree}}"):
            commit = git("commit-tree", "-p", commit, "-m", "changes", tree)
            label += f".changed.{tree[:LABEL_DIGITS]}"
    git("update-ref", f"refs/kept/{commit}", commit)  # uv cannot fetch a commit without a ref
    return PackageSource(copy.as_uri(), commit, part, label)


def list_commits(first: PackageSource, last: PackageSource) -> list[str]:
    """Return the commits between two frozen sources, in the order from one to the other.

    Raises:
        BakeoffError: they are not of one repository.
    """
    if first.location != last.location:
        raise BakeoffError(f"{first.label} and {last.label} are not states of one repository")
    repository = unquote(urlsplit(first.location).path)
    for old, new, way in ((first, last, 1), (last, first, -1)):
        between = f"{old.revision}..{new.revision}"
        commits = run_git("-C", repository, "rev-list", "--first-parent", "--reverse", between)
        if commits:
            return commits.split()[:-1][::way]
    return []


def extract_commit(commit: str, folder: Path) -> Path:
    """Return a folder in `folder` with this project's code at a commit.

    The repository stays as it is.
    """
    path = folder / commit
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive, code = Path(scratch) / "code.tar", Path(scratch) / "code"
            command = ("-C", str(ROOT), "archive", f"--output={archive}", commit)
            run_git(*command, failed=f"cannot extract {commit}")
            shutil.unpack_archive(archive, code, filter="data")
            with suppress(OSError):  # another process may have been faster
                code.rename(path)
    return path


def find_commit(revision: str, repository: Path = ROOT, location: str = "") -> str:
    """Return the commit of a revision of this project, or of another repository.

    The user knows that by its `location`. Without such a revision, that is a BakeoffError.
    """
    missing = f"there is no revision {revision!r}"
    if location:
        missing = f"{location}: {missing} there"
    else:
        missing += " of this project; give another one, or an environment, as in `flax==0.12.8`"
    command = ("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    return run_git("-C", str(repository), *command, failed=missing)


def run_git(*arguments: str, failed: str = "git failed") -> str:
    """Run git, and return its output.

    Raises:
        BakeoffError: it failed; the message is `failed` and the last line of its output.
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
