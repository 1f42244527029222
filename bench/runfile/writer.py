"""Writer of run files: whole or not at all, and never over another file."""

from __future__ import annotations

import datetime
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

from bench.files import partial_file
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.runfile import ResultsWithSamples


def run_file(
    results: ResultsWithSamples, commit_info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the run file of a command that measures by itself, without pytest.

    It has no entries of pytest-benchmark: sides, days or styles are compared here. `commit_info`
    has the fields of pytest-benchmark about the commit of this folder.
    """
    return {
        "machine_info": pytest_benchmark_generate_machine_info(),
        "commit_info": commit_info or {},
        "benchmarks": [],
        "datetime": datetime.datetime.now(datetime.UTC).isoformat(),
        "version": "5",
        "bakeoff": results,
    }


def write(path: Path, data: Mapping[str, object]) -> None:
    """Write a new file of JSON."""
    with whole_file(path) as partial:
        partial.write_bytes(msgspec.json.encode(data, enc_hook=float) + b"\n")


@contextmanager
def whole_file(path: Path, what: str = "") -> Iterator[Path]:
    """Yield the place to write a file, which gets its name when all of it is written.

    `what` stands before its name in messages.

    Raises:
        BakeoffError: it cannot be written.
    """
    try:
        with partial_file(path, name_new) as partial:
            yield partial
    except OSError as error:
        raise BakeoffError(f"{what}{path} cannot be written: {error.strerror}") from error


def name_new(file: Path, path: Path) -> None:
    """Give a file a second name; raise FileExistsError where there is such a file.

    Without hard links, another process may still come between the look and the renaming.
    """
    try:
        path.hardlink_to(file)
    except OSError:
        if path.exists(follow_symlinks=False):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        file.replace(path)
