"""Code of libraries under development, and of revisions of this project.

In a SPEC, `flax @ ../flax` is a folder as it is, with changes that are not committed;
`flax @ ../flax@v0.12.0` and `flax @ git+https://…@branch` are revisions. A folder and its revisions
are copied to archives in the cache, from which uv builds; a remote repository is cloned there. What
is the user's is only read: git is never told to write to it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from bench.environments.git import (
    COMMIT,
    find_commit,
    list_commit,
    list_folder,
    run_git,
    write_commit,
)
from bench.files import MIB, LargeFileError, read_regular
from common.errors import BakeoffError, mask_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.environments.git import Tree

SCHEMES = ("https", "ssh", "file")
"""Schemes of repositories that are fetched: git knows others, some of which run commands."""
LABEL_DIGITS = 10
"""Number of digits of a commit or a digest in a label: enough to tell them apart."""
PROJECT_FILES = ("pyproject.toml", "setup.py")
"""Files of which each package has one."""
NOT_COPIED = ("__pycache__", ".venv", ".git", ".bakeoff")
"""Names in a folder without git that are no part of a package, and change by themselves."""
MOST_COPIED = 1 << 30
"""Largest total of the files that are copied, in bytes: the code of JAX has a tenth of that."""
ARCHIVE = ".tar.gz"
"""Ending of the archive of a frozen folder."""
VERSION_FILE = ".git_archival.txt"
"""File from which builds take the version where there is no repository."""
NO_DATE = "2000-01-01T00:00:00+00:00"
"""Date of each commit in an archive: a version says the number of commits, and no day."""


@dataclass(frozen=True)
class PackageSource:
    """Source of a package's code: a folder, or a revision of a repository."""

    location: str
    """A folder's absolute path, or a repository's URL; for uv, a frozen source's archive, too."""
    revision: str = ""
    """Commit, tag or branch; empty for a folder as it is, or the head of a repository."""
    label: str = ""
    """Digits of a frozen source's commit, of the changes beside it, or of a folder's contents."""
    repository: str = ""
    """Repository of a frozen source, which has its commit; empty for a folder without git."""
    commit: str = ""

    def __str__(self) -> str:
        if self.location.endswith(ARCHIVE):
            return f" @ {Path(self.location).as_uri()}"
        git = "git+" if "://" in self.location else ""
        return mask_secrets(f" @ {git}{self.location}{f'@{self.revision}' * bool(self.revision)}")

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
        path, revision = _split_revision(url.path, unquote)
        if url.scheme not in SCHEMES:
            known = ", ".join(f"git+{scheme}://" for scheme in SCHEMES)
            raise BakeoffError(f"{given}: {text!r} is no repository's URL; give {known}…")
        return PackageSource(url._replace(path=path).geturl(), revision)
    name, revision = _split_revision(text, os.path.expanduser)  # `~nobody` stays
    folder = Path(os.path.expanduser(name))  # noqa: PTH111
    if not folder.is_dir() or name + "@" == text:
        raise BakeoffError(
            f"{given}: there is no folder {text!r}; give a checkout of {package}, as in "
            f"`{package} @ ../{package}`, a revision of it, `@ ../{package}@main`, or "
            f"`@ git+https://…/{package}@branch`"
        )
    if not any((folder / name).exists() for name in PROJECT_FILES):
        raise BakeoffError(
            f"{given}: {text!r} is no package: it has neither pyproject.toml nor setup.py"
        )
    return PackageSource(str(folder.resolve()), revision)


def _split_revision(text: str, decode: Callable[[str], str]) -> tuple[str, str]:
    """Split at the `@` before a revision: after the longest that is a folder, else the first one.

    Names of folders and of revisions may have an `@`, too.
    """
    ends = [len(text), *(match.start() for match in re.finditer("@", text))]
    for end in sorted(ends, reverse=True):
        if end and Path(decode(text[:end])).is_dir():
            return text[:end], text[end + 1 :]
    location, _, revision = text.partition("@")
    return location, revision


def freeze(source: PackageSource, folder: Path, notify: Callable[[str], None]) -> PackageSource:
    """Return a source as it is now: an archive or a repository that is kept in `folder`.

    Raises:
        BakeoffError: there is no such repository or revision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "://" in source.location:
        return _freeze_repository(source, folder, notify)
    checkout = Path(source.location)
    top, part = _find_repository(checkout)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        code = Path(scratch) / "code"
        if source.revision:
            if top is None:
                raise BakeoffError(
                    f"{checkout} is no repository of git: it has no {source.revision!r}"
                )
            commit = find_commit(source.revision, top, str(checkout))
            write_commit(commit, top, code)
            if not (code / part).is_dir():
                raise BakeoffError(
                    f"{checkout}: {source.revision!r} has no folder {part!r}; give another revision"
                )
        elif top is None or not _is_committed(checkout):
            _copy_files(checkout, _list_folder(checkout), code)
            archive, digest = _make_archive(code, list_folder(code, {}), folder)
            return PackageSource(str(archive), label=digest)
        else:
            commit = find_commit("HEAD", top, str(checkout))
            _copy_files(top, _list_checkout(top), code)
        committed = list_commit(commit, top)
        tree, label = list_folder(code, committed), commit[:LABEL_DIGITS]
        package = code / part  # alone, as in a release
        archive, digest = _make_archive(package, tree, folder, _describe_version(commit, top))
    if tree != committed:
        label += f".changed.{digest}"
    history = run_git("-C", str(top), "rev-parse", "--path-format=absolute", "--git-common-dir")
    return PackageSource(str(archive), "", label, history, commit)


def _freeze_repository(
    source: PackageSource, folder: Path, notify: Callable[[str], None]
) -> PackageSource:
    """Return a remote repository's commit, fetched first unless it is a hash the copy has.

    A copy that cannot be brought up to date is made anew.
    """
    location, revision = source.location, source.revision or "HEAD"
    copy = folder / hashlib.sha256(location.encode()).hexdigest()[:16]
    with FileLock(f"{copy}.lock"):
        commit = ""
        if COMMIT.fullmatch(revision):
            with suppress(BakeoffError):
                commit = find_commit(revision, copy, location)
        if not commit:
            notify(f"fetching {mask_secrets(location)}")
            _fetch(location, copy)
            commit = find_commit(revision, copy, location)
    label = commit[:LABEL_DIGITS]
    return PackageSource(copy.as_uri(), commit, label, repository=str(copy), commit=commit)


def _fetch(location: str, copy: Path) -> None:
    """Bring a copy of a repository up to date; clone anew where that cannot be done.

    Raises:
        BakeoffError: it cannot be fetched.
    """
    if not (copy / "shallow").exists():  # a shallow copy would stay shallow
        with suppress(BakeoffError):
            refs = ("--prune", "--", location, "+refs/*:refs/*")
            run_git("--git-dir", str(copy), "fetch", "--quiet", *refs)
            return
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        new, failed = Path(scratch) / "new", f"{location} cannot be fetched"
        run_git("clone", "--quiet", "--mirror", "--", location, str(new), failed=failed)
        # The section names the address, which may have a password
        run_git("--git-dir", str(new), "config", "--remove-section", "remote.origin")
        shutil.rmtree(copy, ignore_errors=True)
        new.rename(copy)


def _find_repository(folder: Path) -> tuple[Path | None, str]:
    """Return the top of the repository that a folder is in, and the folder's path there.

    They are None and empty outside of any repository.

    Raises:
        BakeoffError: git does not read the repository.
    """
    ask = ("-C", str(folder), "rev-parse", "--show-toplevel", "--show-prefix")
    try:
        top, _, path_there = run_git(*ask).partition("\n")
    except BakeoffError as error:
        # git proposes a command, in brackets at the end of its message
        if allowing := re.search(r"\((git config .*)\)$", str(error)):
            raise BakeoffError(
                f"{folder} is another user's, and git does not read it: allow that by "
                f"`{allowing[1]}`"
            ) from error
        if (folder / ".git").exists():
            raise BakeoffError(f"{folder}: {error}") from error
        return None, ""
    return Path(top), path_there


def _is_committed(folder: Path) -> bool:
    """Tell whether the last commit has a package; else, the repository around it is another's."""
    for name in PROJECT_FILES:
        with suppress(BakeoffError):
            run_git("-C", str(folder), "rev-parse", "--verify", "--quiet", f"HEAD:./{name}")
            return True
    return False


def _list_checkout(top: Path) -> list[Path]:
    """Return the files of a checkout, and of its submodules, that are part of its state.

    Of the files that git does not know, modules alone are.
    """
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


def _copy_files(top: Path, files: Iterable[Path], folder: Path) -> None:
    """Copy files of `top` to a new folder; of links that lead out of `top`, the files there.

    A link that leads out of it to nothing is left out.

    Raises:
        BakeoffError: one cannot be read or is not a regular file, or all of them are too large.
    """
    folder.mkdir()
    left = MOST_COPIED
    for path in files:
        to, is_link = folder / path.relative_to(top), path.is_symlink()
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            if is_link and path.resolve().is_relative_to(top.resolve()):
                shutil.copy2(path, to, follow_symlinks=False)
            elif path.exists() or not is_link:
                data = read_regular(path, left)
                left -= len(data)
                to.write_bytes(data)
                shutil.copystat(path, to)
        except LargeFileError as error:
            raise BakeoffError(
                f"{top} has too much to copy: with {path}, it is over {MOST_COPIED // MIB} MiB; "
                "move large files out of it"
            ) from error
        except OSError as error:  # it changes at the moment, or is not a regular file
            link = f" (a link to {path.readlink()})" if is_link else ""
            raise BakeoffError(
                f"cannot copy {path}{link}: {error.strerror or error}; make it a file that can be "
                "read, or remove it"
            ) from error


def _describe_version(commit: str, repository: Path) -> str:
    """Return the file from which builds take the version where a copy has no repository.

    `git archive` writes it too: https://setuptools-scm.readthedocs.io/en/latest/usage
    """
    described = f"0.0-1-g{commit[:LABEL_DIGITS]}"  # as if it had a first tag
    with suppress(BakeoffError):
        described = run_git("-C", str(repository), "describe", "--tags", "--long", commit)
    return f"node: {commit}\nnode-date: {NO_DATE}\ndescribe-name: {described}\nref-names:\n"


def _make_archive(code: Path, tree: Tree, folder: Path, version: str = "") -> tuple[Path, str]:
    """Return the archive of a package, kept in `folder` by its contents, and digits of these.

    uv builds in a copy of its own, so that an archive stays what it was.

    Args:
        code: Folder of the package.
        tree: Files that the package is built from.
        folder: Folder of archives.
        version: Contents of the file that says the version; empty for none.
    """
    digest = hashlib.sha256(repr(sorted(tree.items())).encode(errors="surrogateescape")).hexdigest()
    archive = folder / (
        hashlib.sha256(f"{digest}{code.name}{version}".encode()).hexdigest() + ARCHIVE
    )
    if not archive.exists():
        if version:
            (code / VERSION_FILE).write_text(version, encoding="utf-8")
        made = code.with_name(f"made{ARCHIVE}")
        with tarfile.open(made, "w:gz", compresslevel=1) as file:
            file.add(code, "source")
        made.replace(archive)
    return archive, digest[:LABEL_DIGITS]


def list_commits(first: PackageSource, last: PackageSource) -> list[str]:
    """Return the commits between two frozen sources, without these, from the first to the last.

    Raises:
        BakeoffError: they are not of one repository.
    """
    if first.repository != last.repository or not first.repository:
        raise BakeoffError(f"{first.label} and {last.label} are not states of one repository")
    for old, new, order in ((first, last, 1), (last, first, -1)):
        between = f"{old.commit}..{new.commit}"
        ask = ("--git-dir", first.repository, "rev-list", "--first-parent", "--reverse", between)
        if commits := run_git(*ask).split():
            # The newer one's own commit is between them only if it has changes beside that commit
            return (commits if new.is_changed else commits[:-1])[::order]
    return []
