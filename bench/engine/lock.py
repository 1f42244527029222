"""One run on a machine at a time: two would measure each other."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import filelock

from common.errors import BakeoffError

LOCK = "jax-bakeoff.lock"


def only_one() -> filelock.BaseFileLock:
    """Return the lock of this machine, taken; it is given back when the process ends.

    Raises:
        BakeoffError: another run has it.
    """
    path = Path(tempfile.gettempdir()) / LOCK
    lock = filelock.FileLock(path, timeout=0, mode=0o666)  # the next run may be another user's
    owner = path.with_suffix(".owner")
    try:
        lock.acquire()
    except filelock.Timeout as error:
        try:
            who = f" (process {int(owner.read_text())})"
        except (OSError, ValueError):
            who = ""
        raise BakeoffError(
            f"another run{who} is measuring on this machine, and two would measure each other: "
            "wait until it has ended"
        ) from error
    except OSError as error:
        raise BakeoffError(f"cannot take the lock {path}: {error.strerror}") from error
    with suppress(OSError):  # another user's; it is for a message only
        owner.write_text(str(os.getpid()))
    return lock
