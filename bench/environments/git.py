"""Git: revisions and their files. Repositories are read, and never written to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMIT = re.compile("[0-9a-f]{40}")
"""Pattern of a whole commit, which names the same code wherever it is."""
KEPT_VARIABLES = re.compile(
    "GIT_(SSH|SSL|HTTP|PROXY|ASKPASS|TERMINAL|EXEC_PATH|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY|VALUE))"
)
"""Variables of git that say how repositories are reached. All others are hidden from git: in a
hook, they name the repository, and even the index, of the commit that is being made."""
READ_ONLY = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"}
"""Variables with which git reads a repository without writing its index or fetching objects."""


def extract_commit(commit: str, folder: Path, repository: Path = ROOT) -> Path:
    """Return a folder in `folder` with the files of a commit, and of its submodules."""
    path = folder / commit
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code = Path(scratch) / "code"
            _extract(commit, repository, code)
            keep_folder(code, path)
    return path


def _extract(commit: str, repository: Path, folder: Path) -> None:
    """Extract the files of a commit, and of its submodules, into a new folder."""
    archive, failed = folder.with_suffix(".tar"), f"cannot extract {commit} of {repository}"
    ask = ("-C", str(repository))
    run_git(*ask, "archive", f"--output={archive}", commit, failed=failed)
    try:
        shutil.unpack_archive(archive, folder, filter="data")
    except tarfile.TarError as error:  # such as a link out of the folder
        raise BakeoffError(f"{failed}: {error}") from error
    for line in run_git(*ask, "ls-tree", "-r", "-z", commit).split("\0"):
        kind, _, name = line.partition("\t")
        if " commit " in kind:
            module, its_commit = repository / name, kind.split()[2]
            if not (module / ".git").exists():
                raise BakeoffError(f"{failed}: its submodule {name} is not checked out there")
            _extract(its_commit, module, folder / name)


def find_commit(revision: str, repository: Path = ROOT, location: str = "") -> str:
    """Return the commit of a revision of this project, or of another repository.

    The user knows that by its `location`. Without such a revision, that is a BakeoffError.
    """
    missing = f"there is no revision {revision!r}"
    if location:
        missing = f"{location}: {missing} there"
    else:
        missing += " of this project; give another one, or an environment, as in `flax==0.12.8`"
        top = run_git("-C", str(repository), "rev-parse", "--show-toplevel", failed=missing)
        if not repository.samefile(top):  # a copy, without a history, inside of another repository
            raise BakeoffError(f"{missing} (this copy of it is no repository of git)")
    command = ("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    commit = run_git("-C", str(repository), *command, failed=missing)
    if not COMMIT.fullmatch(commit):  # `^main` is all that `main` has not
        raise BakeoffError(missing)
    return commit


def hide_repository(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables without those that name a repository of git."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("GIT_") or KEPT_VARIABLES.match(name)
    }


def run_git(*arguments: str, failed: str = "git failed") -> str:
    """Run git, and return its output.

    Raises:
        BakeoffError: it failed; the message is `failed` and the last line of its output.
    """
    # A daemon would be started for the repository; hooks are the user's
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 -- a list of arguments, no shell
            command, capture_output=True, check=True, env=hide_repository(os.environ) | READ_ONLY
        )
    except (OSError, subprocess.CalledProcessError) as error:
        stderr = getattr(error, "stderr", None)
        why = os.fsdecode(stderr).strip().splitlines() if stderr else [str(error)]
        raise BakeoffError(f"{failed} ({why[-1].strip() if why else error})") from error
    return os.fsdecode(done.stdout).strip("\n")


def keep_folder(made: Path, path: Path) -> Path:
    """Give a folder its name, unless another process was faster; return the path."""
    with suppress(OSError):
        made.rename(path)
    return path
