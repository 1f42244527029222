"""Git: revisions and their files. Repositories are read, and never written to."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_benchmark.utils import get_project_name

from bench.estimates import group_by_key
from bench.streams import replace_bytes
from bench.worker.settings import ROOT, hide_repository
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""Pattern of a whole commit, which names the same code wherever it is."""
SHA1_DIGITS = 40
"""Digits of a hash of git, unless a repository has the longer SHA-256."""
READ_ONLY = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
"""Variables with which git reads a repository without writing its index or fetching objects."""


class Entry(NamedTuple):
    """A file of a state."""

    mode: str
    """As git has it: `100644`, `100755` for a program, `120000` for a link."""
    object: str
    """Git's hash of its contents."""


type Tree = dict[str, Entry]
"""Path → file."""


def list_commit(commit: str, repository: Path) -> Tree:
    """Return the files of a commit, and of its submodules, if they are checked out."""
    return {name: entry for name, (entry, _) in _list_blobs(commit, repository).items()}


def _list_blobs(commit: str, repository: Path) -> dict[str, tuple[Entry, Path]]:
    """Return path → file and the repository that has its contents."""
    blobs: dict[str, tuple[Entry, Path]] = {}
    ask = (*point_at(repository), "ls-tree", "-r", "-z", "--full-tree", commit)
    rows = run_git(*ask).split("\0")
    for about, name in (row.split("\t", 1) for row in rows if row):
        mode, kind, object_ = about.split()
        if kind == "blob":
            blobs[name] = Entry(mode, object_), repository
        elif ((module := repository / name) / ".git").exists():
            inner = _list_blobs(object_, module).items()
            blobs |= {f"{name}/{path}": blob for path, blob in inner}
    return blobs


def write_commit(commit: str, repository: Path, folder: Path) -> None:
    """Write the files of a commit into a new folder as they are in it: no attributes, no filters.

    Raises:
        BakeoffError: the repository lacks some, as a partial clone does.
    """
    by_repository = group_by_key(
        (source, (name, entry)) for name, (entry, source) in _list_blobs(commit, repository).items()
    )
    folder.mkdir()
    for source, entries in by_repository.items():
        objects = "\n".join(entry.object for _, entry in entries)
        data = io.BytesIO(read_git(*point_at(source), "cat-file", "--batch", input_=objects))
        for name, entry in entries:
            header = data.readline().split()
            if header[1:2] != [b"blob"]:
                raise BakeoffError(f"{source} lacks {name} of {commit}; fetch it there first")
            contents, path = data.read(int(header[2])), folder / name
            data.read(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == "120000":
                path.symlink_to(os.fsdecode(contents))
            else:
                path.write_bytes(contents)
                path.chmod(int(entry.mode[-3:], 8))


def list_folder(folder: Path, like: Tree) -> Tree:
    """Return the files of a folder, with hashes as those of `like`; SHA-1 if it is empty."""
    is_long = any(len(entry.object) > SHA1_DIGITS for entry in like.values())
    tree: Tree = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            mode, contents = "120000", os.fsencode(path.readlink())
        elif path.is_file():
            mode = "100755" if path.stat().st_mode & stat.S_IXUSR else "100644"
            contents = path.read_bytes()
        else:
            continue
        blob = b"blob %d\0" % len(contents) + contents
        digest = hashlib.new("sha256" if is_long else "sha1", blob, usedforsecurity=False)
        tree[str(path.relative_to(folder))] = Entry(mode, digest.hexdigest())
    return tree


def extract_commit(commit: str, folder: Path) -> Path:
    """Return a folder in `folder` with this project's code at a commit."""
    path = folder / commit
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code = Path(scratch) / "code"
            write_commit(commit, ROOT, code)
            try:
                code.rename(path)
            except OSError:
                if not path.exists():  # else another process was faster
                    raise
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
    commit = run_git(*point_at(repository), *command, failed=missing)
    if not COMMIT.fullmatch(commit):  # `^main` excludes commits, and names none
        raise BakeoffError(missing)
    return commit


def point_at(repository: Path) -> Sequence[str]:
    """Return the options with which git uses a checkout or a bare repository: no other around it.

    A kept copy that is damaged may lie inside of a repository of the user's.
    """
    if (repository / ".git").exists():
        return ("-C", str(repository))
    return ("--git-dir", str(repository))


def describe_commit() -> dict[str, Any]:
    """Return what run files say of the commit in this folder: the fields of pytest-benchmark.

    Its own way to ask git whether files have changed renews the index of the user's repository.
    """
    about: dict[str, Any] = {
        "id": "unversioned",
        "time": None,
        "author_time": None,
        "dirty": False,
        "project": replace_bytes(get_project_name()),
        "branch": "(unknown)",
    }
    with suppress(BakeoffError):
        shown = run_git("show", "-s", "--format=%H%n%cI%n%aI", "HEAD").split("\n")
        about |= zip(("id", "time", "author_time"), shown, strict=True)
        about["dirty"] = bool(run_git("status", "--porcelain", "--untracked-files=no"))
        branch = run_git("rev-parse", "--abbrev-ref", "HEAD")
        about["branch"] = "(detached head)" if branch == "HEAD" else replace_bytes(branch)
    return about


def run_git(*arguments: str, failed: str = "git failed") -> str:
    """Run git, and return its output as text.

    Raises:
        BakeoffError: it failed; the message is `failed` and the last line of its output.
    """
    return os.fsdecode(read_git(*arguments, failed=failed)).strip("\n")


def read_git(*arguments: str, input_: str = "", failed: str = "git failed") -> bytes:
    """Run git on some input, and return its output; it fails as `run_git` does."""
    # A daemon would be started for the repository; hooks are the user's
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        return subprocess.run(  # noqa: S603 -- a list of arguments, no shell
            command,
            input=os.fsencode(input_),
            capture_output=True,
            check=True,
            env=hide_repository(os.environ) | READ_ONLY,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        stderr = getattr(error, "stderr", None)
        why = os.fsdecode(stderr).strip().splitlines() if stderr else [str(error)]
        raise BakeoffError(f"{failed} ({why[-1].strip() if why else error})") from error
