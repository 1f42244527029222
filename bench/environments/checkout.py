"""Code of a git revision, in a folder of its own that is kept; the repository stays as it is."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from common.errors import BakeoffError


def checkout(repository: Path, revision: str, folder: Path) -> tuple[Path, str]:
    """Return a folder with the code of a revision, and the revision's commit.

    Args:
        repository: Folder of the repository.
        revision: Anything that names a commit there.
        folder: Where such folders are kept, each under the name of its commit.

    Raises:
        BakeoffError: there is no such revision.
    """
    commit = _git(
        repository,
        *("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"),
        failed=f"there is no revision {revision!r} of this project; give another one, or an "
        "environment, as in `flax==0.12.8`",
    )
    path = folder / commit
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive, code = Path(scratch) / "code.tar", Path(scratch) / "code"
            command = "archive", f"--output={archive}", commit
            _git(repository, *command, failed=f"cannot extract {revision}")
            shutil.unpack_archive(archive, code, filter="data")
            with suppress(OSError):  # another process may have been faster
                code.rename(path)
    return path, commit


def _git(repository: Path, *arguments: str, failed: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", error)).splitlines()
        raise BakeoffError(f"{failed} ({why[-1] if why else error})") from error
    return done.stdout.strip()
