"""Environments on disk: each in a folder of its own, built once, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from bench.environments.uv import uv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from filelock import AcquireReturnProxy

MARK = "built.json"
"""Written last: an environment without it was never finished."""


def built(
    path: Path,
    interpreter: str,
    install: Callable[[Path], None],
    about: Mapping[str, Any],
    what: str,
    notify: Callable[[str], None],
) -> Path:
    """Return the folder of an environment; built, if it was not or not to its end.

    Args:
        path: The folder.
        interpreter: Path of its Python.
        install: Puts packages into the empty environment, given its Python.
        about: What is written down of it, when it is done.
        what: The environment, in words.
        notify: Told what takes a while: building it, or waiting for another process that does.
    """
    if whole(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    wait = f"another process builds {what}: waiting for it; Ctrl-C stops"
    with taken(FileLock(f"{path}.lock"), partial(notify, wait)):
        if whole(path):
            return path
        shutil.rmtree(path, ignore_errors=True)
        notify(f"building {what}")
        uv("venv", "--quiet", "--no-project", "--python", interpreter, str(path))
        install(path / binary("python"))
        replace(path / MARK, json.dumps(about))
    return path


def taken(lock: FileLock, waiting: Callable[[], None]) -> AcquireReturnProxy:
    """Take a lock, given back at the end of `with`; tell `waiting` if another process has it."""
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        waiting()
        return lock.acquire()


def whole(path: Path) -> bool:
    """Tell whether an environment was built to its end, and its Python is still there."""
    return (path / MARK).exists() and (path / binary("python")).exists()


def binary(name: str) -> str:
    """Return where an environment has a program."""
    return f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}"


def replace(path: Path, text: str | bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(text.encode() if isinstance(text, str) else text)
    partial.replace(path)


def digest(what: object) -> str:
    """Return a short name for what JSON can say."""
    return hashlib.sha256(json.dumps(what, default=list).encode()).hexdigest()[:16]
