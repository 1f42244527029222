"""Code of libraries under development, and of revisions of this project.

In a SPEC, `flax @ ../flax` is a folder as it is, with changes that are not committed;
`flax @ ../flax@v0.12.0` and `flax @ git+https://…@branch` are revisions. A folder and its revisions
are copied to folders in the cache, from which uv builds; a remote repository is cloned there. What
is the user's is only read: git is never told to write to it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from bench.environments.git import COMMIT, extract_commit, find_commit, keep_folder, run_git
from common.errors import BakeoffError, mask_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SCHEMES = ("https", "ssh", "file")
"""Schemes of repositories that are fetched: git knows others, some of which run commands."""
LABEL_DIGITS = 10
"""Number of digits of a commit or a digest in a label: enough to tell them apart."""
PROJECT_FILES = ("pyproject.toml", "setup.py")
"""Files of which each package has one."""
NOT_COPIED = ("__pycache__", ".venv", ".git")
"""Names in a folder without git that are no part of a package, and change by themselves."""


@dataclass(frozen=True)
class PackageSource:
    """Source of a package's code: a folder, or a revision of a repository."""

    location: str
    """A folder's absolute path, or a repository's URL."""
    revision: str = ""
    """Commit, tag or branch; empty for a folder as it is, or the head of a repository."""
    label: str = ""
    """Digits of a frozen source's commit, of the changes beside it, or of a folder's contents."""
    repository: str = ""
    """Repository of a frozen source, which has its commit; empty for a folder without git."""
    commit: str = ""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        if "://" in self.location:
            return mask_secrets(f" @ git+{self.location}{revision}")
        if self.label:  # frozen: for uv
            return f" @ {Path(self.location).as_uri()}"
        return f" @ {self.location}{revision}"

    @property
    def is_changed(self) -> bool:
        """Whether a frozen source has changes beside its commit."""
        return self.label != self.commit[:LABEL_DIGITS]


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
    if not any((folder / name).exists() for name in PROJECT_FILES):
        raise BakeoffError(
            f"{given}: {text!r} is no package: it has neither pyproject.toml nor setup.py"
        )
    return PackageSource(str(folder.resolve()), revision)


def freeze(source: PackageSource, folder: Path, notify: Callable[[str], None]) -> PackageSource:
    """Return a source as it is now: a folder or a repository that is kept in `folder`.

    Raises:
        BakeoffError: there is no such repository or revision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "://" in source.location:
        return _freeze_repository(source, folder, notify)
    checkout = Path(source.location)
    top, part = _find_repository(checkout)
    if source.revision:
        if top is None:
            raise BakeoffError(f"{checkout} is no repository of git: it has no {source.revision!r}")
        commit = find_commit(source.revision, top, str(checkout))
    elif top is None or not _is_committed(checkout):
        copy = _keep_copy(checkout, _list_folder(checkout), folder)
        return PackageSource(str(copy), label=copy.name[:LABEL_DIGITS])
    else:
        commit = find_commit("HEAD", top, str(checkout))
    label = commit[:LABEL_DIGITS]
    if source.revision or not _is_changed(top):
        copy = extract_commit(commit, folder, top)
    else:
        copy = _keep_copy(top, _list_checkout(top), folder)
        label += f".changed.{copy.name[:LABEL_DIGITS]}"
    if not (copy / part).is_dir():
        raise BakeoffError(f"{checkout}: {source.revision!r} has no folder {part!r}; give another")
    return PackageSource(str(copy / part), label=label, repository=str(top), commit=commit)


def _freeze_repository(
    source: PackageSource, folder: Path, notify: Callable[[str], None]
) -> PackageSource:
    """Return a remote repository's commit, fetched first unless it is a hash the copy has.

    A copy that cannot be brought up to date is made anew.
    """
    location, revision = source.location, source.revision or "HEAD"
    failed = f"{location} cannot be fetched"
    copy = folder / hashlib.sha256(location.encode()).hexdigest()[:16]

    def freeze() -> PackageSource:
        commit = find_commit(revision, copy, location)
        return PackageSource(
            copy.as_uri(), commit, commit[:LABEL_DIGITS], repository=str(copy), commit=commit
        )

    with FileLock(f"{copy}.lock"):
        if COMMIT.fullmatch(revision):
            with suppress(BakeoffError):
                return freeze()
        notify(f"fetching {mask_secrets(location)}")
        refs = ("--prune", "--", location, "+refs/*:refs/*")
        with suppress(BakeoffError):
            run_git("-C", str(copy), "fetch", "--quiet", *refs)
            return freeze()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            new = Path(scratch) / "new"
            run_git("clone", "--quiet", "--mirror", "--", location, str(new), failed=failed)
            # It names the address, which may have a password
            run_git("-C", str(new), "config", "--remove-section", "remote.origin")
            shutil.rmtree(copy, ignore_errors=True)
            new.rename(copy)
        return freeze()


def _find_repository(folder: Path) -> tuple[Path | None, str]:
    """Return the top of the repository that a folder is in, and the folder's path there.

    Raises:
        BakeoffError: git does not read the repository.
    """
    ask = ("-C", str(folder), "rev-parse", "--show-toplevel", "--show-prefix")
    try:
        top, _, part = run_git(*ask).partition("\n")
    except BakeoffError as error:
        if "safe.directory" in str(error):
            raise BakeoffError(
                f"{folder} is another user's, and git does not read it: allow that by "
                f"`git config --global --add safe.directory {folder}`"
            ) from error
        if (folder / ".git").exists():
            raise BakeoffError(f"{folder}: {error}") from error
        return None, ""
    return Path(top), part


def _is_committed(folder: Path) -> bool:
    """Tell whether the last commit has a package; else, the repository around it is another's."""
    for name in PROJECT_FILES:
        with suppress(BakeoffError):
            run_git("-C", str(folder), "rev-parse", "--verify", "--quiet", f"HEAD:./{name}")
            return True
    return False


def _is_changed(top: Path) -> bool:
    """Tell whether a checkout has changes: of files that git does not know, modules alone count."""
    options = ("--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=none")
    status = run_git("-C", str(top), "status", "--no-renames", *options).split("\0")
    return any(line[:2] != "??" or line.endswith(".py") for line in status if line)


def _list_checkout(top: Path) -> list[Path]:
    """Return the files of a checkout, and of its submodules, that are part of its state."""
    ask = ("-C", str(top), "ls-files", "-z")
    names = run_git(*ask).split("\0")
    names += run_git(*ask, "--others", "--exclude-standard", "--", "*.py").split("\0")
    files: list[Path] = []
    for path in dict.fromkeys(top / name for name in names if name):
        if path.is_dir() and not path.is_symlink():
            files += _list_checkout(path) if (path / ".git").exists() else []
        elif os.path.lexists(path):  # else it has been deleted
            files.append(path)
    return files


def _list_folder(folder: Path) -> list[Path]:
    """Return the files of a folder without git, as `pip install` takes them."""
    files: list[Path] = []
    for path, folders, names in folder.walk():
        folders[:] = [name for name in folders if name not in NOT_COPIED]
        links = [name for name in folders if (path / name).is_symlink()]
        files += [path / name for name in (*names, *links) if name not in NOT_COPIED]
    return files


def _keep_copy(top: Path, files: Iterable[Path], folder: Path) -> Path:
    """Return the copy of some files in a folder of `folder`, which is named by their digest.

    Raises:
        BakeoffError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy = Path(scratch) / "copy"
        try:
            for path in sorted(files):
                to = copy / path.relative_to(top)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to, follow_symlinks=False)
                is_link = to.is_symlink()
                contents = os.fsencode(to.readlink()) if is_link else to.read_bytes()
                about = f"{path.relative_to(top)}\0{is_link}\0{len(contents)}\0"
                digest.update(about.encode(errors="surrogateescape") + contents)
        except OSError as error:  # it changes at the moment, or is not a regular file
            raise BakeoffError(f"cannot copy {path}: {error.strerror or error}") from error
        return keep_folder(copy, folder / digest.hexdigest())


def list_commits(first: PackageSource, last: PackageSource) -> list[str]:
    """Return the commits between two frozen sources, in the order from one to the other.

    Raises:
        BakeoffError: they are not of one repository.
    """
    if first.repository != last.repository or not first.repository:
        raise BakeoffError(f"{first.label} and {last.label} are not states of one repository")
    for old, new, way in ((first, last, 1), (last, first, -1)):
        between = f"{old.commit}..{new.commit}"
        ask = ("-C", first.repository, "rev-list", "--first-parent", "--reverse", between)
        if commits := run_git(*ask).split():
            return (commits if new.is_changed else commits[:-1])[::way]
    return []
